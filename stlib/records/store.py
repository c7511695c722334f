"""Records on disk: one JSON file each, written whole, found again by what they describe. Imports no torch."""

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import BaseModel, ValidationError

from stlib.files import in_order, write_atomic
from stlib.paths import BUILD, DECISIONS, RECORDS
from stlib.records.schema import SCHEMA_VERSION, Record


class RecordError(ValueError):
    """A record file that cannot be used; the message names the file and what is wrong with it."""


def write_record(record: Record, folder: Path = RECORDS) -> Path:
    """Write `record` to its place under `folder`, whole or not at all. Raises OSError.

    A failed run never takes the place of a finished one: the earlier record then stays. A finished one
    raises RecordError where `require_free` does. A file there that is no record, or one of newer code, is
    kept as `<name>.json.corrupt`.
    """
    path = folder / record.path
    if record.status == "finished":
        require_free(record, folder)
    elif _finished(path):
        return path
    with suppress(FileNotFoundError):
        try:
            read_record(path)
        except RecordError:
            path.replace(path.with_name(f"{path.name}.corrupt"))
    write_atomic(path, as_json(record))
    return path


def require_free(run: Record, folder: Path) -> None:
    """Raise RecordError unless the record of `run` may be written under `folder`.

    It may not replace a finished record of other data, teacher, textures, settings or precision, but for the
    demo, which is made again at will; and records of own data do not go among the study's or the demo's.
    """
    studied = [place.resolve() for place in (RECORDS, DECISIONS, BUILD / "records")]
    if run.dataset.name == "other" and folder.resolve() in studied:
        raise RecordError(
            f"{folder} holds the records of this study or of the demo, and {run.category} is of neither: "
            "name another folder of records"
        )
    earlier = _finished(folder / run.path)
    if earlier and run.dataset.name != "demo":
        require_alike(_known(run), earlier, folder / run.path)


def is_recorded(run: Record, folder: Path) -> bool:
    """Whether the record of this very `run`, finished, is under `folder`, as far as the run is known."""
    earlier = _finished(folder / run.path)
    return earlier is not None and not differences(_known(run), earlier)


def require_alike(asked: Mapping[str, object], earlier: Record, path: Path) -> None:
    """Raise RecordError unless the record in `path` was made of what is `asked`, as `made_of` names it."""
    if others := differences(asked, earlier):
        raise RecordError(
            f"{path} is a finished record of other {' and '.join(others)}: name another folder by --records "
            "(in a notebook -p records), or move it away"
        )


def made_of(run: Record) -> dict[str, object]:
    """What a run was made from, in words; a fine-tuned teacher has a name, and once it is there a hash."""
    tuned = run.teacher.tuned
    made: dict[str, object] = {
        "data": run.dataset.fingerprint,
        "teacher": tuned.source_sha256 if tuned else run.teacher.pyramid_sha256,
        "textures": run.textures.fingerprint if run.textures else "",
        "settings": run.config,
        "precision": run.precision,
    }
    if tuned:
        made |= {"fine-tuning": tuned.epochs and tuned.name, "fine-tuned teacher": run.teacher.pyramid_sha256}
    return made


def _known(run: Record) -> dict[str, object]:
    """The same of a run that may not have begun: a teacher counts by its name only until it has a hash."""
    made = made_of(run)
    made.pop("fine-tuning" if made.get("fine-tuned teacher") else "fine-tuned teacher", None)
    return made


def differences(asked: Mapping[str, object], run: Record) -> list[str]:
    """What is `asked` for and not what `run` was made from, in words; what is not asked may differ."""
    made = made_of(run)
    return [name for name in asked if asked[name] != made.get(name)]


def _finished(path: Path) -> Record | None:
    """The finished record that is there; a damaged one is none."""
    try:
        found = read_record(path)
    except (FileNotFoundError, RecordError):
        return None
    return found if found.status == "finished" else None


def as_json(record: BaseModel) -> bytes:
    """JSON with a list of numbers on one line: readable files, and diffs of one line per series."""
    text = record.model_dump_json(indent=1)
    text = re.sub(r'\[[^][{}"]+\]', lambda found: " ".join(found[0].split()), text)
    return (text + "\n").encode()


def read_record(path: Path) -> Record:
    """The validated record in `path`. Raises RecordError for anything else, naming file and fields."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'record'}: {item['msg']}"
            for item in error.errors()[:5]
        )
        raise RecordError(f"{path} is not a valid record (schema {SCHEMA_VERSION}): {problems}") from error


def load_records(folder: Path | str = RECORDS, rows: Collection[str] = ("*",)) -> list[Record]:
    """The records under `folder` in path order; `rows` are patterns of `<method>[-<variant>]`.

    Rows that are not asked for are not read. Raises RecordError at the first invalid or misplaced record.
    """
    found = []
    for path in in_order(Path(folder).rglob("*.json")):
        if not any(fnmatchcase(path.parent.name, row) for row in rows):
            continue
        record = read_record(path)
        if path.relative_to(folder) != record.path:
            raise RecordError(f"{path} describes {record.path}: a record's place follows from its content")
        found.append(record)
    return found

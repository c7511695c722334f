"""Records on disk: one JSON file each, written whole, found again by what they describe. Imports no torch."""

import gc
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import BaseModel, ValidationError

from stlib.files import write_atomic
from stlib.paths import RECORDS
from stlib.records.schema import SCHEMA_VERSION, Record, Run, Summary


class RecordError(ValueError):
    """A record file that cannot be used; the message names the file and what is wrong with it."""


def write_record(record: Record, folder: Path = RECORDS) -> Path:
    """Write `record` to its place under `folder`, whole or not at all. Raises OSError.

    A failed run never takes the place of a finished one: the earlier record then stays.
    """
    path = folder / record.path
    if record.status == "finished" or not _is_finished(path):
        write_atomic(path, as_json(record))
    return path


def _is_finished(path: Path) -> bool:
    """Whether a finished record is there; a damaged one is none."""
    try:
        return read_record(path).status == "finished"
    except (FileNotFoundError, RecordError):
        return False


def as_json(record: BaseModel) -> bytes:
    """JSON with a list of numbers on one line: readable files, and diffs of one line per series."""
    text = record.model_dump_json(indent=1)
    text = re.sub(r'\[[^][{}"]+\]', lambda found: " ".join(found[0].split()), text)
    return (text + "\n").encode()


def read_record(path: Path) -> Record:
    """The validated record in `path`. Raises RecordError for anything else, naming file and fields."""
    return _read(path, Record)


def read_summary(path: Path) -> Summary:
    """The validated summary of the record in `path`; raises what `read_record` does."""
    return _read(path, Summary)


def _read(path: Path, kind: type[Run]) -> Run:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'record'}: {item['msg']}"
            for item in error.errors()[:5]
        )
        raise RecordError(f"{path} is not a valid record (schema {SCHEMA_VERSION}): {problems}") from error


def record_files(folder: Path, rows: Collection[str] = ("*",)) -> list[Path]:
    """The files under `folder` in path order; `rows` are patterns of `<method>[-<variant>]`."""
    return [path for path in sorted(folder.rglob("*.json")) if of_rows(path, rows)]


def of_rows(path: Path, rows: Collection[str]) -> bool:
    """Whether the record in `path` is of one of the rows."""
    return any(fnmatchcase(path.parent.name, row) for row in rows)


def require_place(run: Summary, path: Path, folder: Path) -> None:
    """Raise RecordError unless `path`, where `run` was found, is where it belongs under `folder`."""
    if path.relative_to(folder) != run.path:
        raise RecordError(f"{path} describes {run.path}: a record's place follows from its content")


def iter_records(folder: Path = RECORDS, rows: Collection[str] = ("*",)) -> Iterator[Record]:
    """`load_records`, one by one."""
    for path in record_files(folder, rows):
        record = read_record(path)
        require_place(record, path, folder)
        yield record


def load_records(folder: Path = RECORDS, rows: Collection[str] = ("*",)) -> list[Record]:
    """The records under `folder` in path order; `rows` are patterns of `<method>[-<variant>]`.

    Rows that are not asked for are not read. Raises RecordError at the first invalid or misplaced record.
    """
    with uncollected():
        return list(iter_records(folder, rows))


@contextmanager
def uncollected() -> Iterator[None]:
    """The garbage collector waits: of many records it would go through all earlier ones again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()

"""The record of a fine-tuned teacher, as one validated JSON file. Imports no torch."""

from pathlib import Path
from typing import Literal

from pydantic import JsonValue, ValidationError

from stlib.files import in_order, write_atomic
from stlib.paths import TEACHERS
from stlib.protocol import Precision, Profile
from stlib.records.schema import SCHEMA_VERSION, Block, Runtime, TeacherInfo
from stlib.records.store import RecordError, as_json


class TeacherRecord(Block):
    """One fine-tuning of a teacher: what it learned from, how well, and how far it moved."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    profile: Profile
    tuning: dict[str, JsonValue]
    precision: Precision
    source: TeacherInfo
    """The teacher before."""
    categories: dict[str, str]
    """The classes, each with the fingerprint of its files."""
    images: int
    held_out: int
    curves: dict[str, list[float]]
    """Per epoch, the head's first: train_loss, accuracy, weight_change_* and feature_cosine_* per level."""
    pyramids: list[str]
    """Hash of the teacher after 0, 1, 2 ... full epochs."""
    runtime: Runtime


def write_teacher_record(record: TeacherRecord, folder: Path = TEACHERS) -> Path:
    """Write to `<folder>/<profile>/<name>.json`, whole or not at all. Raises OSError.

    One that goes on for more epochs than `record`, from the same teachers, stays.
    """
    path = folder / record.profile / f"{record.name}.json"
    known = read_teacher_record(path)
    earlier, count = known.pyramids if known else [], len(record.pyramids)
    if len(earlier) <= count or earlier[:count] != record.pyramids:
        write_atomic(path, as_json(record))
    return path


def read_teacher_record(path: Path) -> TeacherRecord | None:
    """The record in `path`; None where there is none, or a damaged one. Raises OSError."""
    try:
        return TeacherRecord.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def load_teacher_records(folder: Path = TEACHERS) -> list[TeacherRecord]:
    """All teacher records under `folder`, in path order. Raises RecordError at the first invalid one."""
    records = []
    for path in in_order(folder.rglob("*.json")):
        try:
            records.append(TeacherRecord.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            raise RecordError(f"{path} is not a valid teacher record: {error}") from error
    return records

"""Summaries of all runs, read through an index. Imports no torch.

Every chapter of the book needs them, each in a process of its own. The index keeps in one file what was read
before, so that a build parses a record once. What counts is always the record: an entry holds as long as its
file is the one that was read, and a lost or damaged index is made again.
"""

import hashlib
import json
import time
from array import array
from collections.abc import Collection, Mapping
from contextlib import suppress
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import numpy as np
from pydantic import TypeAdapter

from stlib.files import write_atomic
from stlib.paths import BUILD, RECORDS
from stlib.protocol import METRICS
from stlib.records.schema import Summary
from stlib.records.store import RecordError, of_rows, read_summary, record_files, require_place, uncollected

INDEX: Final = BUILD / "summaries.npz"
"""Of RECORDS. Other folders have none unless one is named."""

Stamp = tuple[int, ...]
"""A file's device, inode, size and time of change: records are written whole, never changed in place."""
Entries = Mapping[Stamp, Summary]

_SUMMARIES: Final = TypeAdapter(list[Summary])
_FIELDS: Final = json.dumps([_SUMMARIES.json_schema(), list(METRICS)]).encode()
_SCHEMA: Final = hashlib.sha256(_FIELDS).hexdigest()
"""An index made with other fields or metrics in another order is none."""
_SETTLED: Final = 2_000_000_000
"""Nanoseconds. A younger file is not entered: it could change again without its time showing it."""


def load_summaries(
    folder: Path = RECORDS, rows: Collection[str] = ("*",), index: Path | None = None
) -> list[Summary]:
    """The runs under `folder` without their series, in path order; `rows` as in `store.load_records`.

    With an index all rows are read, so that it is whole. Raises RecordError at the first invalid or misplaced
    record of the rows asked for.
    """
    index = INDEX if index is None and folder == RECORDS else index
    stamps = {path: _stamp(path) for path in record_files(folder, ["*"] if index else rows)}
    runs: dict[Path, Summary] = {}
    with uncollected():
        known = _read(index) if index else {}
        for path, stamp in stamps.items():
            try:
                runs[path] = known.get(stamp) or read_summary(path)
                require_place(runs[path], path, folder)
            except RecordError:
                if of_rows(path, rows):
                    raise
    if index:
        _renew(index, known, {stamps[path]: run for path, run in runs.items()})
    return [run for path, run in runs.items() if of_rows(path, rows)]


def _stamp(path: Path) -> Stamp:
    found = path.lstat() if path.is_symlink() and not path.exists() else path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _renew(index: Path, known: Entries, runs: Entries) -> None:
    """Write the index again unless it holds all of `runs` that are settled."""
    latest = time.time_ns() - _SETTLED
    entries = {stamp: run for stamp, run in runs.items() if stamp[-1] < latest}
    if not entries.keys() <= known.keys():
        with suppress(OSError):  # a folder that cannot be written costs time only
            write_atomic(index, _packed(entries))


def _packed(entries: Entries) -> memoryview:
    """Replicates, which are most of a summary, as plain numbers; the rest as JSON."""
    runs = list(entries.values())
    found = [run.bootstrap.get(metric, ()) for run in runs for metric in METRICS]
    file = BytesIO()
    np.savez(
        file,
        schema=np.array(_SCHEMA),
        stamps=np.frombuffer(json.dumps(list(entries)).encode(), np.uint8),
        summaries=np.frombuffer(_SUMMARIES.dump_json(runs, exclude={"__all__": {"bootstrap"}}), np.uint8),
        lengths=np.array([len(values) for values in found]),
        replicates=np.concatenate([np.asarray(values, float) for values in found]),
    )
    return file.getbuffer()


def _read(index: Path) -> Entries:
    """The entries of an index; none if it is missing, damaged or made with other fields."""
    try:
        with ZipFile(index) as parts:
            if parts.testzip():  # NumPy reads no further than an array's header says, and checks no further
                return {}
        with index.open("rb") as file, np.load(file) as parts:
            if parts["schema"].item() != _SCHEMA:
                return {}
            stamps = [tuple(stamp) for stamp in json.loads(parts["stamps"].tobytes())]
            runs = _SUMMARIES.validate_json(parts["summaries"].tobytes())
            ends, values = np.cumsum(parts["lengths"]).tolist(), parts["replicates"]
        pieces = (values[start:end].tobytes() for start, end in pairwise([0, *ends]))
        found = {}
        for stamp, run in zip(stamps, runs, strict=True):
            bootstrap = {metric: array("d", piece) for metric, piece in zip(METRICS, pieces) if piece}
            found[stamp] = run.model_copy(update={"bootstrap": bootstrap})
    except Exception:  # damage shows in any way, from EOFError to SyntaxError
        return {}
    return found

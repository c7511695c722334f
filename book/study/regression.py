"""Does the demo still give what it gave? A run's record against the committed one."""

from pathlib import Path

from markupsafe import Markup

from stlib.paths import RECORDS
from stlib.protocol import METRICS
from stlib.records.schema import Record
from stlib.records.store import read_record
from study.analysis.paired import SEGMENTING
from study.tables import Html, table

DRIFT = 0.05
"""Largest difference of a pixel metric from the committed demo record on another processor."""
CHAOTIC_DRIFT = 0.15
"""The same where a segmentation net trains, whose rounding grows: AMD for Intel moved pixel AP by .06, and
from one evaluation to the next it moves by .03 (`benchmarks/last_steps.py`)."""
IMAGE_DRIFT = 0.10
"""Of an image metric: it rests on 32 images, and AVX2 for AVX-512 moves one by .038."""


def regression(record: Record, committed: Path = RECORDS) -> Markup:
    """A line per metric: as committed (within the drift) or CHANGED; recipe, teacher, counts must be equal.

    The text holds no number that rounding can move, so that nbval can compare it. Raises RecordError when
    the committed record is damaged.
    """
    path = committed / record.path
    if record.profile != "demo" or not path.is_file():
        return Html("<p>There is no committed demo record to compare this run with.</p>")
    before = read_record(path)
    # Not the fingerprint: the demo's sines round differently on other processors.
    counts = [(r.dataset.train_images, r.dataset.test_good, r.dataset.test_defect) for r in (record, before)]
    same = {
        "recipe": (record.config, record.precision) == (before.config, before.precision),
        "teacher": _teacher(record) == _teacher(before),
        "number of images": counts[0] == counts[1],
    }
    drift = CHAOTIC_DRIFT if record.method in SEGMENTING else DRIFT
    for name, words in METRICS.items():
        now, then = record.metrics.get(name), before.metrics.get(name)
        limit = IMAGE_DRIFT if name.startswith("image") else drift
        same[words] = now == then if now is None or then is None else abs(now - then) <= limit
    caption = (
        "This run and the committed demo record; metrics of pixels may differ by "
        f"{drift:.2f}, of images by {IMAGE_DRIFT:.2f}"
    )
    rows = [{"part": part, "held": held} for part, held in same.items()]
    return table(rows, caption, {"Part": "part", "State": "{{ 'as committed' if held else 'CHANGED' }}"})


def _teacher(record: Record) -> object:
    """What the teacher is; of a fine-tuned one how it was made, since its weights round differently too."""
    tuned = record.teacher.tuned
    if tuned is None:
        return record.teacher
    return record.teacher.source, tuned.source_sha256, tuned.data, tuned.epochs, tuned.categories

"""A detector fresh from its training, and the record that it becomes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stlib.data.mvtec import Category
from stlib.detector import Detector
from stlib.methods import Method
from stlib.methods.checkpoint import Checkpoint
from stlib.nn.maps import Maps
from stlib.paths import places
from stlib.records.schema import History, Record
from stlib.records.store import require_free, write_record
from stlib.records.teacher import TeacherRecord, write_teacher_record
from stlib.run.evaluation import measured
from stlib.run.provenance import Clock


class RunFailed(RuntimeError):  # noqa: N818 - the run failed, the program did not
    """A run that broke off after it had begun; `record` says so and is worth keeping."""

    def __init__(self, record: Record) -> None:
        super().__init__(f"{record.method} on {record.category}, seed {record.seed}: {record.error}")
        self.record = record


class AlreadyFinished(Exception):  # noqa: N818 - all is well
    """What a run that skips finished ones ends with: its record is there, at `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is the finished record of this very run: nothing is trained")
        self.path = path


@dataclass(frozen=True)
class FittedDetector(Detector):
    """A detector fresh from its training. It also holds all that the record of the run needs."""

    history: History = field(repr=False)
    """The curves of the training, its steps, and which checkpoint is tested."""
    category: Category = field(repr=False)
    """What it was trained on."""
    checkpoint: Checkpoint
    teacher_record: TeacherRecord | None = field(repr=False)
    """Of the fine-tuning behind the teacher, where there was one."""
    method: Method = field(repr=False)
    clock: Clock = field(repr=False)
    base: Mapping[str, object] = field(repr=False)
    """The fields of the record that were known before the training."""

    def record(self, maps: Maps) -> Record:
        """Measure the `maps` of the category's test images, and describe the whole run.

        Beside the metrics the record holds their bootstrap replicates, the image scores, and what other
        readings of the same maps give. Raises RunFailed when the scores are not finite.
        """
        try:
            found = measured(self.category, self.method, maps)
        except FloatingPointError as error:
            raise RunFailed(unfinished(self.base, str(error), self.clock)) from error
        about = {"history": self.history, "runtime": self.clock.runtime()}
        return Record.model_validate({**self.base, **about, **found})

    def save_record(
        self, record: Record, folder: Path | str | None = None, detector: Path | str | None = None
    ) -> Path:
        """Write what `record` returned under `folder`, and the `detector` where a file is named for it.

        Without a folder it goes where the command writes it: that of the demo never among the committed ones.
        The record of a teacher that was fine-tuned goes to the folder `teachers` beside it. The record comes
        last, as what it stands for must be there, and only then is the checkpoint forgotten: neither a full
        disk nor a wrong name costs the training. Raises OSError, and RecordError where `require_free` does.
        """
        own = record.dataset.name == "other"
        folder = Path(folder or places(record.profile, own=own).records)
        require_free(record, folder)
        if detector:
            self.save(detector)
        if self.teacher_record:
            write_teacher_record(self.teacher_record, folder.parent / "teachers")
        path = write_record(record, folder)
        self.checkpoint.remove()
        return path


def unfinished(base: Mapping[str, object], why: str, clock: Clock) -> Record:
    """The record of a run without metrics. Raises ValueError for names that no record may have."""
    about = {"status": "failed", "error": why, "runtime": clock.runtime()}
    return Record.model_validate({**base, **about})

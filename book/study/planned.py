"""A run that a notebook has planned, and what is recorded of it."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stlib.data.layout import Layout, fingerprint, scan
from stlib.methods import get_method
from stlib.nn.backbone import load_teacher
from stlib.records.schema import Record, record_path
from stlib.records.store import differences, load_records, require_alike
from stlib.run.spec import RunSpec


@dataclass(frozen=True)
class Plan:
    """A run that can start: its parameters hold, and its folders and its category's images are there."""

    spec: RunSpec
    records: Path
    runs: Path

    @property
    def image_size(self) -> int:
        """Side of the images that the recipe takes."""
        return get_method(self.spec.method).recipe(self.spec.profile, self.spec.variant).image_size

    @property
    def options(self) -> dict[str, Any]:
        """What `stlib.fit` takes besides method and category."""
        names = ("profile", "variant", "seed", "teacher", "textures", "device", "precision")
        folders = {"runs": self.runs, "records": self.records}
        return {name: getattr(self.spec, name) for name in names} | folders

    @cached_property
    def layout(self) -> Layout:
        """The files of its category."""
        return scan(self.spec.data, self.spec.category)

    @cached_property
    def own(self) -> str:
        """The fingerprint of own data, by which a record names them; '' for MVTec AD and the demo."""
        return fingerprint(self.layout) if self.layout.dataset == "other" else ""

    @property
    def recorded(self) -> bool:
        """Whether a finished record of this very run is there. Raises RecordError for a damaged one."""
        return any(run.seed == self.spec.seed and not self.differences(run) for run in self.runs_recorded())

    @cached_property
    def _made_of(self) -> dict[str, object]:
        """What this run would be made from, as `made_of` names it and as far as it is known before the work.

        Not the demo's images, which round differently on other processors, and not torchvision's weights,
        which may have to be downloaded.
        """
        known: dict[str, object] = {"precision": self.spec.precision}
        if self.layout.dataset != "demo":
            known["data"] = fingerprint(self.layout)
        if self.spec.teacher != "torchvision":
            known["teacher"] = load_teacher(self.spec.teacher)[1].pyramid_sha256
        return known

    def asked(self, seed: int) -> dict[str, object]:
        """What the run of `seed` would be made from, as far as it is known before the work."""
        recipe = get_method(self.spec.method).recipe(self.spec.profile, self.spec.variant, seed)
        return self._made_of | {"settings": recipe.model_dump(mode="json")}

    def differences(self, run: Record) -> list[str]:
        """What a recorded `run` was made from that one of this plan would not be, in words."""
        shown = {"precision": f" ({run.precision})", "teacher": f" ({run.teacher.source})"}
        return [name + shown.get(name, "") for name in differences(self.asked(run.seed), run)]

    @property
    def others(self) -> list[str]:
        """The `differences` of all its recorded runs, whatever their seed."""
        return sorted({name for run in self.runs_recorded() for name in self.differences(run)})

    def require_free(self) -> None:
        """Raise RecordError where its record may not be written: a finished one of another run is there."""
        for run in self.runs_recorded():
            if run.seed == self.spec.seed:
                require_alike(self.asked(run.seed), run, self.records / run.path)

    def runs_recorded(self) -> list[Record]:
        """The finished runs of its method, variant, category and profile. Raises RecordError.

        `differences` says what else they were made from: a table may show runs in several precisions.
        """
        spec = self.spec
        row = record_path(spec.method, spec.category, 0, spec.profile, spec.variant).parent.name
        same = ("method", "variant", "category", "profile")
        return [
            run
            for run in self.records_beside([row])
            if run.status == "finished" and all(getattr(run, name) == getattr(spec, name) for name in same)
        ]

    def records_beside(self, rows: Collection[str] = ("*",)) -> tuple[Record, ...]:
        """The records in its folder, as `load_records`: of own data only those of these very photographs."""
        return tuple(
            run
            for run in load_records(self.records, rows)
            if self.own == (run.dataset.fingerprint if run.dataset.name == "other" else "")
        )

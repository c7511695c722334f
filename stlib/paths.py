"""Where things are. Every path of the project starts here; environment variables move the big ones."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
"""The folder `stlib/` itself."""

ROOT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else Path.cwd()
"""The checkout: the folder that holds `stlib/`, `results/` and `book/`. For an installed package the folder
that the program was started in: nobody looks for data and results among installed packages."""

DATA = Path(os.environ.get("STLIB_DATA") or ROOT / "data")
"""Downloaded datasets: `mvtec_ad/` and `dtd/` (variable `STLIB_DATA`)."""

RESULTS = Path(os.environ.get("STLIB_RESULTS") or ROOT / "results")
"""Records and reported numbers (variable `STLIB_RESULTS`)."""

RECORDS = RESULTS / "records"
"""One JSON file per finished run, committed."""

TEACHERS = RESULTS / "teachers"
"""One JSON file per fine-tuned teacher, committed; the weights stay under RUNS."""

BENCHMARKS = RESULTS / "benchmarks"
"""One JSON file per benchmark and kind of device, committed."""

DECISIONS = RESULTS / "decisions"
"""Records whose thresholds are tried in the chapter on own parts, committed; no other page reads them."""

REPORTED = ROOT / "results" / "reported"
"""The papers' printed numbers, one CSV per paper, committed."""

RUNS = RESULTS / "runs"
"""Checkpoints and executed notebooks: what a run leaves behind besides its record. Not committed."""

BUILD = Path(os.environ.get("STLIB_BUILD") or ROOT / "build")
"""What can be made again: the demo dataset, the demo's notebooks and records (variable `STLIB_BUILD`)."""


@dataclass(frozen=True)
class Places:
    """Where the runs of a profile find and leave things unless told otherwise."""

    data: Path
    """Root of the dataset."""
    teacher: str
    """As `stlib.nn.backbone.load_teacher` takes it."""
    textures: Path | str
    """As `stlib.data.textures.load_textures` takes it."""
    records: Path
    runs: Path
    """Checkpoints and fine-tuned teachers."""


def named_teacher(given: str) -> str:
    """`given` as `stlib.nn.backbone.load_teacher` takes it; a file's path starts at ROOT.

    Raises ValueError where neither weights nor a file are called so.
    """
    if given in ("torchvision", "demo", "random"):
        return given
    if not (ROOT / given).is_file():
        raise ValueError(f"'{given}': choose torchvision, demo, random or an existing weight file")
    return str(ROOT / given)


def places(profile: str, *, own: bool = False) -> Places:
    """The demo's are under BUILD, with teacher and textures of its own; other profiles' are kept.

    What runs on `own` data leave, neither MVTec AD nor the demo, is under `RESULTS/own`.
    """
    if profile == "demo":
        here = Places(BUILD / "demo", "demo", "demo", BUILD / "records", BUILD / "runs")
    else:
        here = Places(DATA / "mvtec_ad", "torchvision", DATA / "dtd", RECORDS, RUNS)
    home = RESULTS / "own"
    return replace(here, records=home / "records", runs=home / "runs") if own else here

"""`stlib run` and `teacher`: what trains."""

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shlex import quote
from shutil import copy2
from typing import TYPE_CHECKING, Annotated

import typer

from stlib import paths
from stlib.cli.status import refusals
from stlib.files import require_space, require_writable
from stlib.protocol import CATEGORIES, Precision, Profile

if TYPE_CHECKING:
    from stlib.data.layout import Layout
    from stlib.decision import Threshold
    from stlib.detector import Detector
    from stlib.records.schema import Record
    from stlib.run.fitted import RunFailed

DEFAULT = " Without it: the profile's own."

ProfileOption = Annotated[Profile, typer.Option(help="Schedule: paper, short or demo.")]
DataOption = Annotated[Path | None, typer.Option(help=f"Dataset root.{DEFAULT}")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[Precision, typer.Option(help="Arithmetic of training; tf32 needs a GPU.")]

training = typer.Typer()


@training.command()
@refusals()
def run(  # noqa: PLR0917 - typer reads them by name
    method: Annotated[str, typer.Argument(help="Which detector, e.g. stpm.")],
    category: Annotated[str, typer.Argument(help="A folder under --data, e.g. bottle.")],
    seed: Annotated[int, typer.Option(help="Of weights, batches and a fine-tuned teacher.")] = 0,
    profile: ProfileOption = "paper",
    variant: Annotated[str, typer.Option(help="A named deviation, e.g. image_size=512 or a row.")] = "",
    data: DataOption = None,
    teacher: Annotated[
        str | None, typer.Option(help=f"'torchvision', 'demo', 'random' or a weight file.{DEFAULT}")
    ] = None,
    textures: Annotated[str | None, typer.Option(help=f"DTD's folder.{DEFAULT}")] = None,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads; 0: one for the demo, else PyTorch's choice.")
    ] = 0,
    records: Annotated[Path | None, typer.Option(help=f"Folder of records.{DEFAULT}")] = None,
    runs: Annotated[Path | None, typer.Option(help=f"Folder of checkpoints.{DEFAULT}")] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Keep the detector, e.g. bottle.safetensors; one of own data is kept anyway."),
    ] = None,
    no_save: Annotated[bool, typer.Option("--no-save", help="Not even one of own data.")] = False,
    skip_finished: Annotated[
        bool, typer.Option("--skip-finished", help="Train nothing where the record of this very run is.")
    ] = False,
) -> None:
    """Train and measure one method on one category, and write its record. A killed run continues.

    Exit status 0: the record is there. 1: the training diverged. 2: bad input or a full disk, in a line.
    """
    import torch  # here, so that `stlib --help` answers at once

    from stlib.data.layout import scan
    from stlib.methods import get_method
    from stlib.methods.checkpoint import end_with_checkpoint
    from stlib.run.experiment import run as run_experiment
    from stlib.run.fit import progress_bar
    from stlib.run.fitted import AlreadyFinished, RunFailed
    from stlib.run.spec import RunSpec

    if threads or profile == "demo":  # more threads add in another order: tests compare the demo's runs
        torch.set_num_threads(threads or 1)
    here = paths.places(profile)
    spec = RunSpec(
        method,
        category,
        seed=seed,
        profile=profile,
        variant=variant,
        data=data or here.data,
        teacher=teacher or here.teacher,
        textures=textures or here.textures,
        device=device,
        precision=precision,
    )
    spec.check()
    layout = scan(spec.data, category)
    own = layout.dataset == "other"
    here = paths.places(profile, own=own)
    target, checkpoints = records or here.records, runs or here.runs
    keep = bool(save) or (own and not no_save)

    def place_of(record: Path) -> Path | None:
        """Where the detector of this record is kept; None for one that is not."""
        return (save or record.with_suffix(".safetensors")) if keep else None

    _require_places(target, checkpoints, save, keep=keep, teachers=bool(get_method(method).tuning))
    _tell_of_data(layout, target, get_method(method).recipe(profile, variant).image_size)
    try:
        with end_with_checkpoint(signal.SIGTERM, signal.SIGINT), progress_bar(spec, show=True) as progress:
            result = run_experiment(
                spec, progress=progress, runs=checkpoints, records=target, skip_finished=skip_finished
            )
            place = place_of(target / result.record.path)
            earlier = _earlier(place) if place else None
            again = bool(earlier and earlier.equals(result.detector))
            kept = earlier.info.threshold if earlier and again else None
            if place and not again:
                _keep_earlier(place, earlier)
            path = result.save(target, None if kept else place)
    except AlreadyFinished as found:
        _tell_of_earlier(found.path, place_of(found.path))
        return
    except RunFailed as failure:
        _keep_record(failure, target)
        raise typer.Exit(1) from failure
    typer.echo("\n  ".join([str(path), *_told(result.record, place, kept)]))


def _require_places(records: Path, runs: Path, save: Path | None, *, keep: bool, teachers: bool) -> None:
    """Raise OSError, before the work, unless there is room for all that a run leaves."""
    from stlib.detector import MARK
    from stlib.run.experiment import SPACE

    require_writable(records / "record.json")
    require_writable(runs / "run.ckpt")
    if teachers:
        require_writable(records.parent / "teachers" / "record.json")
    if save:
        require_writable(save, MARK)
    if keep:
        require_space(save.parent if save else records, SPACE, "keep the detector")


def _earlier(place: Path) -> "Detector | None":
    """The detector at `place`; None without one that this version can load."""
    from stlib.detector import Detector

    with suppress(OSError, ValueError):
        return Detector.load(place)
    return None


def _keep_earlier(place: Path, earlier: "Detector | None") -> None:
    """Keep another detector at `place` under a further name: it may be the better, or hold a threshold."""
    from stlib.files import sha256

    if place.is_file() and place.stat().st_size:
        aside = place.with_stem(f"{place.stem}-{sha256(place)[:8]}")
        told = (earlier.info.threshold or "no threshold") if earlier else "of another version"
        copy2(place, aside)  # not moved: a line may load it at any moment
        typer.echo(f"the earlier {place} ({told}) is kept as {aside}", err=True)


def _tell_of_earlier(record: Path, detector: Path | None) -> None:
    """Say that a run is not made again, and of a `detector` that it has left no more."""
    there = detector and detector.is_file()
    stays = f", {detector} stays as it is" if there else ""  # with --save it may be of another run
    typer.echo(f"{record}\n  finished before: nothing is trained{stays}")
    if detector and not there:
        typer.echo(f"no detector at {detector}: the run without --skip-finished makes it", err=True)


def _keep_record(failure: "RunFailed", target: Path) -> None:
    """Say that a run failed, keep its record, and say where."""
    from stlib.records.store import read_record, write_record

    typer.echo(failure, err=True)
    path = write_record(failure.record, target)
    kept = read_record(path).status == "finished"
    told = f"the finished record of an earlier run stays: {path}" if kept else f"recorded in {path}"
    typer.echo(told, err=True)


def _tell_of_data(layout: "Layout", target: Path, size: int) -> None:
    """Say which images there are, whether they are below the input's `size`, and what counts as own parts."""
    from stlib.data.images import pixel_size

    kinds = Counter(item.defect for item in layout.test)
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "no image"
    typer.echo(f"{layout.category}: {len(layout.train)} images to learn from; test: {found}", err=True)
    width, height = pixel_size(layout.train[0])
    if max(width, height) < size:
        told = f"{layout.train[0].name} has {width} x {height} pixels: enlarged to {size} it shows no more"
        typer.echo(told, err=True)
    if layout.dataset == "other" and (name := layout.category) in CATEGORIES:
        why = "; ".join(layout.unofficial_counts()) or "other names of files or kinds of defect"
        told = f"{name} is not MVTec AD's ({why}): it counts as own parts, its record goes to {target}"
        typer.echo(told, err=True)


def _told(record: "Record", detector: Path | None, kept: "Threshold | None" = None) -> Iterator[str]:
    """Line by line what a run found: where its `detector` is, metrics, threshold, and what to do next.

    `kept` is the threshold that an equal detector had before.
    """
    from stlib.methods import get_method

    if detector:
        yield str(detector)
    for name, value in record.metrics.items():
        yield f"{name:12} {value:.4f}"
    for reason in dict.fromkeys(record.undefined.values()):
        names = [name for name, why in record.undefined.items() if why == reason]
        yield f"not measured: {', '.join(names)}: {reason}"
    if threshold := kept or record.threshold:
        yield str(threshold)
    elif detector:
        variants = get_method(record.method).variants
        variant = next((name for name, changed in variants.items() if "held_out" in changed), None)
        last = record.variant.rpartition(",")[2]
        size = f",{last}" if last.startswith("image_size=") else ""
        told = f"; `--variant {variant}{size}` holds some out for one" if variant else ""
        command = f"stlib threshold {quote(str(detector))} folder/of/good"
        yield f"no threshold: `{command}` with other good images{told}"
    selected = record.history.selected if record.history else {}
    if "val_score" in selected and selected.get("epoch", 0) == record.config.get("epochs"):
        yield f"the last epoch, {selected['epoch']:.0f}, was the best: a longer training may be better"


@training.command()
@refusals()
def teacher(  # noqa: PLR0917
    variant: Annotated[str, typer.Argument(help="Of et_stpm, e.g. e=10: makes fewer epochs too.")] = "",
    seed: Annotated[int, typer.Option(help="Of the runs that take it.")] = 0,
    profile: ProfileOption = "paper",
    data: DataOption = None,
    source: Annotated[
        str | None, typer.Option("--teacher", help=f"What to fine-tune, as in `run`.{DEFAULT}")
    ] = None,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "fp32",
    runs: Annotated[Path | None, typer.Option(help=f"Folder of teachers.{DEFAULT}")] = None,
) -> None:
    """Fine-tune ET-STPM's teacher before the runs that share it. A killed fine-tuning continues."""
    import torch

    from stlib.methods.training import Execution
    from stlib.nn.backbone import load_teacher
    from stlib.run.spec import RunSpec
    from stlib.run.teacher_cache import Teacher, prepare_teacher

    here = paths.places(profile)
    spec = RunSpec(
        "et_stpm",
        "",  # it learns from all categories
        seed=seed,
        profile=profile,
        variant=variant,
        data=data or here.data,
        teacher=source or here.teacher,
        device=device,
        precision=precision,
    )
    require_writable((runs or here.runs) / "teacher.ckpt")
    spec.check()
    execution = Execution(torch.device(device), precision)
    tuned = prepare_teacher(spec, Teacher(*load_teacher(spec.teacher)), execution, runs or here.runs)
    typer.echo(tuned.info.tuned.name if tuned.info.tuned else tuned.info.source)

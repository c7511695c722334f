"""`stlib detect`, `threshold` and `export`: what a trained detector is used for."""

import csv
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from stlib.cli.status import FINDINGS, refusals, sigterm_as_exit
from stlib.decision import QUANTILE
from stlib.files import require_writable, write_atomic
from stlib.protocol import Precision

if TYPE_CHECKING:
    from stlib.data.images import DatasetError
    from stlib.inspection import Inspected
    from stlib.report import Report

detectors = typer.Typer()


@detectors.command()
@refusals()
def detect(  # noqa: PLR0917
    detector: Annotated[Path, typer.Argument(help="What `run` wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
    maps: Annotated[
        Path | None,
        typer.Option(help="Folder for maps at the size of the image: float32 TIFF, and PNG to look at."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="HTML page of all images, the worst first, e.g. report.html.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[
        Precision, typer.Option(help="tf32 (GPU) and bf16 are faster and not exact.")
    ] = "fp32",
) -> None:
    """Score images with a trained detector: a line `image,score,decision` each; higher is more anomalous.

    Exit status 3: some images could not be read; the others are scored.
    """
    from stlib.detector import Detector
    from stlib.inspection import inspect, listed, map_paths
    from stlib.methods.training import require_device
    from stlib.report import REPORT_MARK, Report

    require_device(device, precision)
    files, notes = listed(images)
    trained = Detector.load(detector)
    targets = map_paths(images, files, maps) if maps else {}
    for file in list(targets.values())[:1]:
        require_writable(file)
    if report:
        require_writable(report, REPORT_MARK)
    about = str(trained.info.threshold or "no threshold: `stlib threshold` reads one from good images")
    typer.echo("\n".join([*notes, about]), err=True)
    page = Report(f"{trained.info.category}: {trained.info.method}", about, len(files), left_out=notes)

    def skip(error: "DatasetError") -> None:
        page.failed.append(str(error))
        typer.echo(f"error: {error}", err=True)

    results = inspect(trained, files, device=device, precision=precision, unreadable=skip)
    with sigterm_as_exit():
        _write(results, page, report, targets)
    if page.failed:
        typer.echo(f"{len(page.failed)} of {len(files)} images could not be read", err=True)
        raise typer.Exit(FINDINGS)


def _write(
    results: "Iterator[Inspected]", page: "Report", report: Path | None, targets: Mapping[Path, Path]
) -> None:
    """Write a line and a map of each result, and the report of them, even if it is broken off."""
    from tqdm import tqdm

    from stlib.inspection import write_map

    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(["image", "score", "decision"])
    scored = 0
    try:
        for found in tqdm(results, total=page.images, unit="image", disable=page.images <= 32):
            lines.writerow([found.path, f"{found.score:.6g}", found.decision])
            scored += 1
            if report:
                page.add(found)
            if target := targets.get(found.path):
                write_map(found, target)
    finally:
        if scored + len(page.failed) < page.images:
            typer.echo(f"broken off: {scored} of {page.images} images were scored", err=True)
        if report:
            write_atomic(report, page.html())


@detectors.command()
@refusals()
def threshold(
    detector: Annotated[Path, typer.Argument(help="What `run` wrote; the threshold is kept in it.")],
    images: Annotated[list[Path], typer.Argument(help="Good images that it did not learn from, or folders.")],
    quantile: Annotated[float, typer.Option(help="Share of good images that should pass.")] = QUANTILE,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
) -> None:
    """Read a detector's threshold from good images, and say how many false alarms to expect."""
    from stlib.decision import require_quantile, threshold_from
    from stlib.detector import MARK, Detector
    from stlib.inspection import listed, require_good, unseen
    from stlib.methods.training import require_device

    require_quantile(quantile)
    require_device(device, "fp32")
    files, notes = listed(images)
    require_good(images)
    trained = Detector.load(detector)
    require_writable(detector, MARK)
    if not trained.info.training_images:
        notes.append("this detector does not know what it learnt from: name none of those pictures")
    pictures, pixels = unseen(trained, files)
    if twice := len(files) - len(pictures):
        notes.append(f"{twice} of {len(files)} are pictures named before: each counts once")
    notes += [f"{count} in {folder}" for folder, count in Counter(p.parent for p in pictures).items()]
    typer.echo("\n".join(notes))
    scores = trained.on(device).maps(pixels).image.tolist()
    typer.echo("the highest scores (a defect among them would raise the threshold):")
    for score, picture in sorted(zip(scores, pictures, strict=True), reverse=True)[:3]:
        typer.echo(f"  {score:.6g} {picture}")
    found = threshold_from(scores, quantile)
    typer.echo(found)
    if before := trained.info.threshold:
        typer.echo(f"in the place of {before}")
    trained.with_threshold(found).save(detector)


@detectors.command()
@refusals()
def export(
    detector: Annotated[Path, typer.Argument(help="What `run` wrote.")],
    output: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
) -> None:
    """Export a trained detector to ONNX: uint8 images in, anomaly map and image score out."""
    from stlib.detector import Detector

    trained = Detector.load(detector)
    trained.export_onnx(output)
    if trained.info.threshold is None:
        typer.echo(
            "no threshold in it, so it decides nothing: "
            f"`stlib threshold {quote(str(detector))} folder/of/good`, then export again",
            err=True,
        )
    typer.echo(output)

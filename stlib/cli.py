"""The `stlib` command: data, runs, teachers, detectors. Thin: every verb is one call into the package."""

import csv
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from stlib import paths
from stlib.protocol import Precision, Profile

DEFAULT = " Without it: the profile's own."
FINDINGS = 3
"""Exit status of a check that found something; 1 is a program that broke."""

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Student-teacher anomaly detectors, reproduced."
)


@app.command()
def run(  # noqa: PLR0917 - typer reads them by name
    method: Annotated[str, typer.Argument(help="Which detector, e.g. stpm.")],
    category: Annotated[str, typer.Argument(help="An MVTec AD category, or one of the demo's.")],
    seed: Annotated[int, typer.Option(help="Of weights, batches and a fine-tuned teacher.")] = 0,
    profile: Annotated[Profile, typer.Option(help="Schedule: paper, short or demo.")] = "paper",
    variant: Annotated[str, typer.Option(help="A named deviation, e.g. an ablation row.")] = "",
    data: Annotated[Path | None, typer.Option(help=f"Dataset root.{DEFAULT}")] = None,
    teacher: Annotated[
        str | None, typer.Option(help=f"'torchvision', 'demo', 'random' or a weight file.{DEFAULT}")
    ] = None,
    textures: Annotated[str | None, typer.Option(help=f"DTD's folder.{DEFAULT}")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[Precision, typer.Option(help="Arithmetic of training; tf32 needs a GPU.")] = "fp32",
    compiled: Annotated[
        bool, typer.Option("--compile", help="DeSTSeg, PFADSeg: torch.compile; minutes first, then faster.")
    ] = False,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves PyTorch's choice.")] = 0,
    records: Annotated[Path | None, typer.Option(help=f"Folder of records.{DEFAULT}")] = None,
    runs: Annotated[Path | None, typer.Option(help=f"Folder of checkpoints.{DEFAULT}")] = None,
    save: Annotated[Path | None, typer.Option(help="Keep the detector, e.g. bottle.safetensors.")] = None,
) -> None:
    """Train and measure one method on one category, and write its record. A killed run continues."""
    import torch  # here, so that `stlib --help` answers at once

    from stlib.methods.training import save_on_sigterm
    from stlib.records.store import read_record, write_record
    from stlib.run.experiment import RunSpec
    from stlib.run.experiment import run as run_experiment
    from stlib.run.fit import progress_bar
    from stlib.run.fitted import RunFailed

    save_on_sigterm()
    if threads:
        torch.set_num_threads(threads)
    if save and not save.parent.is_dir():
        raise refusal(NotADirectoryError(f"--save {save}: make the folder {save.parent} first"))
    here = paths.places(profile)
    records = records or here.records
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
        compiled=compiled,
    )
    try:
        with progress_bar(spec, show=True) as progress:
            result = run_experiment(spec, progress=progress, runs=runs or here.runs)
            if save:  # before the checkpoint is forgotten
                result.detector.save(save)
            path = result.save(records)
    except RunFailed as failure:
        path = write_record(failure.record, records)
        kept = read_record(path).status == "finished"
        told = f"the finished record of an earlier run stays: {path}" if kept else f"recorded in {path}"
        typer.echo(f"{failure}; {told}", err=True)
        raise typer.Exit(1) from failure
    except (ValueError, OSError, RuntimeError) as error:
        raise refusal(error) from error
    typer.echo(path)
    for name, value in result.record.metrics.items():
        typer.echo(f"  {name:12} {value:.4f}")


@app.command()
def teacher(  # noqa: PLR0917
    variant: Annotated[str, typer.Argument(help="Of et_stpm, e.g. e=10: makes fewer epochs too.")] = "",
    seed: Annotated[int, typer.Option(help="Of the runs that take it.")] = 0,
    profile: Annotated[Profile, typer.Option(help="Schedule: paper, short or demo.")] = "paper",
    data: Annotated[Path | None, typer.Option(help=f"Dataset root.{DEFAULT}")] = None,
    source: Annotated[
        str | None, typer.Option("--teacher", help=f"What to fine-tune, as in `run`.{DEFAULT}")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[Precision, typer.Option(help="Arithmetic of training; tf32 needs a GPU.")] = "fp32",
    runs: Annotated[Path | None, typer.Option(help=f"Folder of teachers.{DEFAULT}")] = None,
) -> None:
    """Fine-tune ET-STPM's teacher before the runs that share it. A killed fine-tuning continues."""
    import torch

    from stlib.methods import et_stpm, get_method
    from stlib.methods.training import Execution
    from stlib.nn.backbone import load_teacher
    from stlib.run.teacher_cache import tuned_teacher

    here = paths.places(profile)
    source = source or here.teacher
    try:
        tuned = tuned_teacher(
            source,
            load_teacher(source)[1],
            *et_stpm.tuning(get_method("et_stpm").recipe(profile, variant, seed)),
            root=data or here.data,
            profile=profile,
            execution=Execution(torch.device(device), precision),
            runs=runs or here.runs,
        )
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        raise refusal(error) from error
    typer.echo(tuned.info.tuned.name if tuned.info.tuned else tuned.info.source)


@app.command()
def detect(
    detector: Annotated[Path, typer.Argument(help="What `run --save` wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
    maps: Annotated[Path | None, typer.Option(help="Folder for anomaly maps, as float32 TIFF.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[
        Precision, typer.Option(help="tf32 (GPU) and bf16 are faster and not exact.")
    ] = "fp32",
) -> None:
    """Score images with a trained detector: a line `image,score` for each; higher is more anomalous."""
    from tqdm import tqdm

    from stlib.data.mvtec import images_in, read_images
    from stlib.detector import Detector, map_paths, write_map

    try:
        trained = Detector.load(detector)
        files = [file for path in images for file in (images_in(path) if path.is_dir() else [path])]
        targets = map_paths(files, maps) if maps else []
        lines = csv.writer(sys.stdout, lineterminator="\n")
        lines.writerow(["image", "score"])
        for start in tqdm(range(0, len(files), 32), unit="batch", disable=len(files) <= 32):
            batch = files[start : start + 32]
            pixels = read_images(batch, trained.image_size)
            found = trained.maps(pixels, device=device, precision=precision)
            lines.writerows((file, f"{s:.6g}") for file, s in zip(batch, found.image.tolist(), strict=True))
            for target, pixel in zip(targets[start : start + 32], found.pixel):
                write_map(pixel, target)
    except (ValueError, OSError, RuntimeError) as error:
        raise refusal(error) from error


@app.command()
def export(
    detector: Annotated[Path, typer.Argument(help="What `run --save` wrote.")],
    output: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
) -> None:
    """Export a trained detector to ONNX: uint8 images in, anomaly map and image score out."""
    from stlib.detector import Detector

    try:
        Detector.load(detector).export_onnx(output)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        raise refusal(error) from error
    typer.echo(output)


data = typer.Typer(no_args_is_help=True, help="Datasets: download, check, demo.")
app.add_typer(data, name="data")


@data.command()
def download(
    name: Annotated[Literal["mvtec_ad", "dtd"], typer.Argument(help="Which dataset.")],
    target: Annotated[Path, typer.Option(help="Folder to put it in.")] = paths.DATA,
    url: Annotated[str | None, typer.Option(help="Another address of the same archive.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Its checksum, if it is another archive.")] = None,
) -> None:
    """Download and unpack an official archive; continues where a broken download stopped."""
    from stlib.data.download import download as fetch
    from stlib.data.unpack import ArchiveError

    try:
        typer.echo(fetch(name, target, url=url, sha256=sha256))
    except (ArchiveError, ValueError, OSError) as error:
        raise refusal(error) from error


@data.command()
def check(
    root: Annotated[Path, typer.Argument(help="Folder that holds the categories.")] = paths.DATA / "mvtec_ad",
) -> None:
    """Compare a dataset with the official counts, read every file, and say what the gaps make impossible."""
    from stlib.data.check import absent, check_dataset
    from stlib.data.mvtec import DatasetError

    console = Console()
    table = Table("category", "train", "test good", "test defect", "problems", title=str(root))
    try:
        reports = list(check_dataset(root))
    except DatasetError as error:
        raise refusal(error) from error
    for report in reports:
        counts = (str(report.train), str(report.good), str(report.defect))
        table.add_row(report.category, *counts, str(len(report.findings) or "none"))
    console.print(table)
    for report in reports:
        for finding in report.findings:
            console.print(f"[bold]{report.category}[/bold] {finding.kind}: {finding.text}", highlight=False)
        for consequence in report.consequences:
            console.print(f"  -> {consequence}", highlight=False)
    if missing := absent(root):
        console.print(f"not here: {', '.join(missing)}", highlight=False)
    if any(report.findings for report in reports):
        raise typer.Exit(FINDINGS)


@data.command()
def demo(
    target: Annotated[Path, typer.Argument(help="Folder to make.")] = paths.BUILD / "demo",
    seed: Annotated[int, typer.Option(help="Another seed makes other images.")] = 0,
) -> None:
    """Make the demo dataset: MVTec AD's layout, a few seconds, no download."""
    from stlib.demo.dataset import make_demo

    try:
        typer.echo(make_demo(target, seed=seed))
    except (OSError, ImportError) as error:
        raise refusal(error) from error


def refusal(error: Exception) -> typer.Exit:
    """Say what is wrong on standard error; the exit status is 2."""
    typer.echo(f"error: {error}", err=True)
    return typer.Exit(2)


if __name__ == "__main__":
    app()

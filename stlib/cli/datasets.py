"""`stlib data`: download, check and make datasets."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stlib import paths
from stlib.cli.status import FINDINGS, refusals

datasets = typer.Typer(no_args_is_help=True, help="Datasets: download, check, demo.")


@datasets.command()
@refusals()
def download(
    name: Annotated[Literal["mvtec_ad", "dtd"], typer.Argument(help="Which dataset.")],
    target: Annotated[Path, typer.Option(help="Folder to put it in.")] = paths.DATA,
    url: Annotated[str | None, typer.Option(help="Another address of the same archive.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Its checksum, if it is another archive.")] = None,
) -> None:
    """Download and unpack an official archive; continues where a broken download stopped."""
    from stlib.data.download import download as fetch

    typer.echo(fetch(name, target, url=url, sha256=sha256))


@datasets.command()
@refusals()
def check(
    root: Annotated[Path, typer.Argument(help="Folder that holds the categories.")] = paths.DATA / "mvtec_ad",
) -> None:
    """Compare a dataset with the official counts, read every file, and say what the gaps make impossible."""
    from stlib.data.check import absent, check_dataset, no_category

    console = Console(markup=False, highlight=False)  # a file's name may look like markup
    table = Table("category", "train", "test good", "test defect", "findings", title=Text(str(root)))
    reports = check_dataset(root)
    for report in reports:
        counts = map(str, report.counts)
        table.add_row(Text(report.category), *counts, str(len(report.findings) or "none"))
    console.print(table)
    for report in reports:
        told = [finding.text for finding in report.findings]
        told += [f"note: {note.text}" for note in report.notes]
        told += [f"-> {consequence}" for consequence in report.consequences]
        for text in told:
            typer.echo(f"{report.category}: {text}")  # unlike the console's, not folded
    if others := no_category(root):
        typer.echo(f"no category, for want of a folder train: {', '.join(others)}")
    if missing := absent(root):
        typer.echo(f"not here: {', '.join(missing)}")
    if any(report.findings for report in reports):
        raise typer.Exit(FINDINGS)


@datasets.command()
@refusals()
def demo(
    target: Annotated[Path, typer.Argument(help="Folder to make.")] = paths.BUILD / "demo",
    seed: Annotated[int, typer.Option(help="Another seed makes other images.")] = 0,
) -> None:
    """Make the demo dataset: MVTec AD's layout, a few seconds, no download."""
    from stlib.demo.dataset import make_demo

    typer.echo(make_demo(target, seed=seed))

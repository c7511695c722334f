"""The `study` command: the list of missing runs, what they will cost, and the README's table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from stlib import paths
from stlib.cli.status import refusals
from stlib.files import require_writable, write_atomic
from stlib.records.schema import Record
from stlib.records.store import load_records
from study.plan.estimate import estimate as estimate_costs, total
from study.plan.grid import read_grid
from study.plan.queue import TITLE, missing, queue_text
from study.readme import with_results

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="The study: what is missing, what is told."
)


@app.command()
@refusals()
def queue(
    data_root: Annotated[Path, typer.Option("--data", help="Dataset root.")] = paths.DATA / "mvtec_ad",
    records: Annotated[Path, typer.Option(help="Folder of records.")] = paths.RECORDS,
    output: Annotated[Path, typer.Option(help="File to write.")] = paths.RESULTS / "QUEUE.md",
    estimate: Annotated[bool, typer.Option("--estimate", help="Print what they cost instead.")] = False,
    grid: Annotated[str, typer.Option(help="Which grid of workflow/grid.toml.")] = "paper",
) -> None:
    """Write the list of runs that the book still needs, or say what they will cost."""
    _require_folder("--records", records)
    _require_recipes(grid)
    recorded = load_records(records)
    if estimate:
        _print_estimate(recorded, grid)
        return
    _require_folder("--data", data_root)
    require_writable(output, TITLE.encode())
    at_hand = [path.name for path in data_root.iterdir() if path.is_dir()]
    write_atomic(output, queue_text(recorded, at_hand, grid).encode())
    typer.echo(output)


def _require_recipes(grid: str) -> None:
    """Raise ValueError for a row of the grid that no run can be made of: its command would be refused."""
    from stlib.methods import get_method  # here, so that `study --help` answers at once

    cells = read_grid(grid).cells()
    for method, profile, variant in sorted({(c.method, c.profile, c.variant) for c in cells}):
        try:
            get_method(method).recipe(profile, variant)
        except ValueError as error:
            raise ValueError(f"a row of grid '{grid}' in workflow/grid.toml: {error}") from error


def _require_folder(option: str, folder: Path) -> None:
    """Raise NotADirectoryError for a misspelt folder: what is renewed from nothing is emptied."""
    if not folder.is_dir():
        raise NotADirectoryError(f"no folder {folder}: name another one by {option}")


def _print_estimate(records: Sequence[Record], grid: str) -> None:
    cells = missing(records, grid=grid)
    costs = estimate_costs(cells, records)
    table = Table("method", "runs", "on", "seconds a run", "hours", "from")
    for cost in costs:
        numbers = ("unknown" if n is None else f"{n:,.1f}" for n in (cost.seconds, cost.hours))
        table.add_row(cost.method, str(cost.runs), cost.processor, *numbers, cost.source)
    console = Console()
    console.print(f"{len(cells)} of {len(read_grid(grid).cells())} runs are missing. On GPUs, or on CPUs:")
    console.print(table)
    for processor in ("GPU", "CPU"):
        hours, unknown = total(costs, processor)
        known = f"{hours:,.1f} for {len(cells) - unknown} runs" if unknown < len(cells) else "unknown"
        rest = f"; no record yet for the method of {unknown}" if unknown else ""
        console.print(f"{processor} hours: {known}{rest}", highlight=False)


@app.command()
@refusals()
def readme(
    records: Annotated[Path, typer.Option(help="Folder of records.")] = paths.RECORDS,
    file: Annotated[Path, typer.Option(help="The file with the two markers.")] = paths.ROOT / "README.md",
) -> None:
    """Renew the table of results in README.md."""
    _require_folder("--records", records)
    write_atomic(file, with_results(file.read_text(encoding="utf-8"), load_records(records)).encode())


if __name__ == "__main__":
    app()

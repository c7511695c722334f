"""The `stlib` command: data, runs, queue. Thin: every verb is one call into the package."""

from pathlib import Path
from typing import Annotated

import typer

from stlib import paths
from stlib.protocol import Precision, Profile

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Student-teacher anomaly detectors, reproduced."
)


@app.callback()
def main() -> None:
    """Keeps `run` a verb even while it is the only one."""


@app.command()
def run(
    method: Annotated[str, typer.Argument(help="Which detector, e.g. stpm.")],
    category: Annotated[str, typer.Argument(help="An MVTec AD category, or one of the demo's.")],
    seed: Annotated[int, typer.Option(help="Seed of the student's weights and of the batch order.")] = 0,
    profile: Annotated[Profile, typer.Option(help="Schedule: paper, short or demo.")] = "paper",
    data: Annotated[Path, typer.Option(help="Dataset root.")] = paths.DATA / "mvtec_ad",
    teacher: Annotated[
        str, typer.Option(help="'torchvision', 'demo', 'random' or a weight file.")
    ] = "torchvision",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[Precision, typer.Option(help="Arithmetic of training.")] = "fp32",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves PyTorch's choice.")] = 0,
    records: Annotated[Path, typer.Option(help="Folder of records.")] = paths.RECORDS,
) -> None:
    """Train and measure one method on one category, and write its record. A killed run continues."""
    import torch  # here, so that `stlib --help` answers at once
    from tqdm import tqdm

    from stlib.study.experiment import Run, RunFailed
    from stlib.study.experiment import run as run_experiment
    from stlib.study.records import write_record

    if threads:
        torch.set_num_threads(threads)
    spec = Run(method, category, seed, profile, data, teacher, device, precision)
    with tqdm(desc=f"{method} {category} s{seed}", unit="epoch") as bar:

        def progress(done: int, total: int, state: str) -> None:
            bar.total, bar.n = total, done
            bar.set_postfix_str(state)

        try:
            record = run_experiment(spec, progress=progress).record
        except RunFailed as failure:
            typer.echo(f"{failure}; recorded in {write_record(failure.record, records)}", err=True)
            raise typer.Exit(1) from failure
        except (ValueError, FileNotFoundError) as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from error
    typer.echo(f"{write_record(record, records)}")
    for name, value in record.metrics.items():
        typer.echo(f"  {name:12} {value:.4f}")


if __name__ == "__main__":
    app()

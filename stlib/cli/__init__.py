"""The `stlib` command: data, runs, teachers, detectors. Thin: what it does is done in the package."""

import io
import sys

import typer

from stlib.cli.datasets import datasets
from stlib.cli.detectors import detectors
from stlib.cli.training import training

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Student-teacher anomaly detectors, reproduced."
)
for commands in (training, detectors):
    app.add_typer(commands)  # without a name: its commands stand beside the others
app.add_typer(datasets, name="data")


@app.callback()
def main() -> None:
    """Let every command print what a terminal cannot show, such as the name of a file that is no UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")

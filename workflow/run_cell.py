"""One cell of the grid: execute notebooks/run.ipynb; success is the cell's finished record.

python workflow/run_cell.py method=stpm variant= category=brick seed=0 profile=demo ... records=DIR runs=DIR

papermill's exit code is no proof: a notebook can end early without an error. It works in a folder of its own,
so that a kill leaves no half-written notebook under a final name.
"""

import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

import papermill
from pydantic import TypeAdapter
from zmq.error import ZMQError

from stlib.files import write_atomic
from stlib.paths import ROOT
from study.plan.grid import Cell, state

ATTEMPTS = 3
"""Kernels started side by side now and then take the same port, and a kernel may be killed: the next one goes
on from its checkpoint. An error inside the notebook is not tried again."""


def main(arguments: list[str]) -> None:
    """Leave the record, and the notebook as `<image>.ipynb`, or as `<image>.failed.ipynb` and exit with 1."""
    signal.signal(signal.SIGTERM, _stop)  # unwinds, so that the kernel is shut down
    parameters = dict(argument.split("=", 1) for argument in arguments)
    cell = TypeAdapter(Cell).validate_python(parameters)
    records, place = Path(parameters["records"]), Path(parameters["runs"]) / cell.path
    if state(cell, records) == "finished":
        sys.exit(0)  # another workflow was faster
    content, problem = execute(parameters | {"seed": cell.seed})
    found = state(cell, records)
    failed = place.with_suffix(".failed.ipynb")
    write_atomic(place.with_suffix(".ipynb") if found == "finished" else failed, content)
    if found != "finished":
        sys.exit(f"the record {records / cell.path} is {found}: {problem or 'no error'}; see {failed}")
    failed.unlink(missing_ok=True)


def execute(parameters: dict[str, object]) -> tuple[bytes, Exception | None]:
    """The executed notebook, and why it stopped, if it did."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run.ipynb"
        for _ in range(ATTEMPTS):
            problem: Exception | None = None
            try:
                papermill.execute_notebook(
                    ROOT / "notebooks" / "run.ipynb",
                    output,
                    parameters=parameters,
                    log_output=True,
                    progress_bar=False,
                    start_timeout=300,
                )
            except (papermill.PapermillException, RuntimeError, ZMQError) as error:
                problem = error
            if not isinstance(problem, RuntimeError | ZMQError):  # which say: no kernel, or a dead one
                break
        return output.read_bytes() if output.is_file() else b"", problem


def _stop(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Renew what the demo is compared with: its committed records and the outputs of the notebooks.

python workflow/renew_notebook.py
"""

import shutil
from pathlib import Path

import nbformat
import papermill

from stlib.paths import BUILD, RECORDS, ROOT
from stlib.records.store import load_records, write_record
from stlib.records.teacher import load_teacher_records, write_teacher_record

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COMPARED = {"records": "build/records", "run_missing": True}
"""Parameters with which compare.ipynb makes the runs that the other notebooks do not make."""


def main() -> None:
    """Run the demo, keep its records, and give the notebooks the outputs that nbval checks."""
    (BUILD / "demo.stamp").unlink(missing_ok=True)  # if this breaks off, `make` makes the demo again
    for folder in ("records", "runs", "teachers"):
        shutil.rmtree(BUILD / folder, ignore_errors=True)  # of earlier code, perhaps
    for path in NOTEBOOKS:
        execute(path)
    execute(ROOT / "notebooks" / "compare.ipynb", **COMPARED)
    for record in load_records(BUILD / "records"):
        write_record(record, RECORDS)
    for teacher in load_teacher_records(BUILD / "teachers"):
        write_teacher_record(teacher)
    for path in NOTEBOOKS:
        renew(path)


def renew(path: Path) -> None:
    """Execute once more, now beside the new records, and keep the outputs of the checked cells."""
    done = {cell.id: cell for cell in execute(path).cells}
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            checked = "nbval-check-output" in cell.metadata.get("tags", [])
            cell.outputs = done[cell.id].outputs if checked else []
            cell.execution_count = done[cell.id].execution_count if checked else None
    nbformat.write(notebook, path)


def execute(path: Path, **parameters: object) -> nbformat.NotebookNode:
    """The notebook after a run with `parameters`. Raises PapermillExecutionError when a cell fails."""
    output = BUILD / "tmp" / f"renew-{path.name}"
    output.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(path, output, parameters=parameters)
    return nbformat.read(output, as_version=4)


if __name__ == "__main__":
    main()

"""Renew what the demo is compared with: its committed records and the outputs of notebooks/run.ipynb.

python workflow/renew_notebook.py
"""

import nbformat
import papermill

from stlib.data.demo import DEMO_CATEGORIES
from stlib.methods import METHODS
from stlib.paths import BUILD, RECORDS, ROOT
from stlib.study.records import read_record, record_path, write_record

NOTEBOOK = ROOT / "notebooks" / "run.ipynb"


def main() -> None:
    """Run the demo of every method and category, keep the records and the outputs that nbval checks."""
    for method, entry in METHODS.items():
        if "demo" in entry.profiles:
            for category in DEMO_CATEGORIES:
                execute(method=method, category=category)
                made = read_record(BUILD / "records" / record_path(method, category, 0, "demo"))
                write_record(made, RECORDS)
    executed = execute()  # once more: it now compares with the new records
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    done = {cell.id: cell for cell in executed.cells}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            checked = "nbval-check-output" in cell.metadata.get("tags", [])
            cell.outputs = done[cell.id].outputs if checked else []
            cell.execution_count = done[cell.id].execution_count if checked else None
    nbformat.write(notebook, NOTEBOOK)


def execute(**parameters: str) -> nbformat.NotebookNode:
    """The notebook after a run with `parameters`. Raises PapermillExecutionError when a cell fails."""
    output = BUILD / "tmp" / "renew.ipynb"
    output.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(NOTEBOOK, output, parameters=parameters)
    return nbformat.read(output, as_version=4)


if __name__ == "__main__":
    main()

"""How long do the tables and figures of the book take from 10,000 records, and how much memory?

The records are generated from a committed one. Every chapter's cells run in a process of their own, as in the
build of the site; what the build adds (kernels, Sphinx) does not grow with the records.

python benchmarks/many_records.py [RECORDS]
"""

import json
import os
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path

from stlib.paths import RECORDS, ROOT
from study.plan.grid import read_grid

EXAMPLE = RECORDS / "paper" / "stpm" / "bottle-s0.json"
CHAPTER = r"""
import re, resource, sys, time
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.pylabtools import select_figure_formats

shell = InteractiveShell.instance()
shell.display_formatter.active_types = ["text/html", "text/markdown", "image/png"]
select_figure_formats(shell, "png")
pattern = r"^```\{code-cell\}.*?\n---\n.*?\n---\n(.*?)^```"
begin = time.perf_counter(), time.process_time()
for cell in re.findall(pattern, Path(sys.argv[1]).read_text(), re.M | re.S):
    shell.run_cell(cell).raise_error()
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print("\n", time.perf_counter() - begin[0], time.process_time() - begin[1], memory)
"""


def main(wanted: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        made = generate(Path(name), wanted)
        chapters = [
            path for path in sorted((ROOT / "book").glob("*.md")) if "{code-cell}" in path.read_text()
        ]
        costs = {path.stem: show(path, Path(name)) for path in chapters}
    wall, cpu, memory = zip(*costs.values(), strict=True)
    for name, cost in (costs | {f"{made} records": (sum(wall), sum(cpu), max(memory))}).items():
        print("{:16} {:6.1f} s, {:6.1f} s of CPU, {:5.0f} MB".format(name, *cost))


def generate(results: Path, wanted: int) -> int:
    """Fill `results/records` with the paper's grid, more seeds than it has; scores differ between seeds."""
    record = json.loads(EXAMPLE.read_text())
    scores = record["metrics"]
    grid = read_grid("paper")
    seeds = list(range(1 + wanted // (len(grid.cells()) // len(grid.seeds))))
    cells = list(islice(grid.model_copy(update={"seeds": seeds}).cells(), wanted))
    for cell in cells:
        record |= {name: getattr(cell, name) for name in ("method", "variant", "category", "seed")}
        record["metrics"] = {name: value - cell.seed % 10 / 1000 for name, value in scores.items()}
        path = results / "records" / cell.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
    return len(cells)


def show(chapter: Path, results: Path) -> tuple[float, float, float]:
    """Of running a chapter's cells: seconds on the clock and of the processor, the peak of memory in MB."""
    places = {"STLIB_RESULTS": str(results), "STLIB_BUILD": str(results / "build"), "MPLBACKEND": "Agg"}
    command = [sys.executable, "-c", CHAPTER, str(chapter)]
    done = subprocess.run(
        command, env=os.environ | places, cwd=results, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    wall, cpu, memory = map(float, done.stdout.split()[-3:])
    return wall, cpu, memory


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)

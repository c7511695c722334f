"""How long does the workflow plan a grid of 10,000 cells, with none of them done and with half of them done?

python benchmarks/planning.py [CELLS]
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stlib.paths import RECORDS, ROOT
from stlib.records.store import read_record, write_record
from study.plan.grid import read_grid, state

GRID = """
[many]
profile = "demo"
seeds = {seeds}
categories = {{ all = ["brick", "grass", "gravel", "washer"] }}

[[many.block]]
words = "all"
order = [1, 2]
categories = "all"
rows.stpm = [""]
"""


def main(cells: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "grid.toml"
        file.write_text(GRID.format(seeds=list(range(cells // 4))))
        report("none done", folder, file)
        example = read_record(RECORDS / "demo" / "stpm" / "brick-s0.json")
        grid = read_grid("many", file).cells()
        for cell in grid[::2]:
            fields = {"category": cell.category, "seed": cell.seed}
            write_record(example.model_copy(update=fields), folder / "records")
        begin = time.process_time()
        done = sum(state(cell, folder / "records") == "finished" for cell in grid)
        print(f"reading {done} records: {time.process_time() - begin:.1f} s of CPU")
        report("half done", folder, file)


def report(words: str, folder: Path, file: Path) -> None:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow" / "Snakefile")]
    command += [
        "--workflow-profile",
        str(ROOT / "workflow" / "profiles" / "local"),
        "--dry-run",
        "--quiet",
        "all",
    ]
    command += ["--config", "grid=many", f"grids={file}", f"records={folder}/records", f"runs={folder}/runs"]
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, "--", "runs"], cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    memory = after.ru_maxrss / 1024
    print(f"{words}: {time.monotonic() - begin:.1f} s, {cpu:.1f} s of CPU, {memory:.0f} MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)

"""Make the study's missing runs on a machine without a network, from the bundles of `workflow/bundle.py`.

    python drain.py --deadline 3000 --device cuda    # and again, until nothing is left

Unpacks the bundles beside it into `work/`, makes the runs whose data are there in the order of
results/QUEUE.md, several at once, and stops at the deadline; the next call goes on. `work/results.tar.gz`
holds records, teachers and logs, after every run and at the end, whatever failed. Needs PyTorch, NumPy,
SciPy, Pillow, safetensors and pydantic 2.12 or newer; the rest comes in the bundles.
"""

import argparse
import ctypes
import fcntl
import json
import os
import signal
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler import ENDED, LARGE, MEMORY, Scheduler
from unpacking import gather, say, sets

if TYPE_CHECKING:
    from study.plan.grid import Cell


def use(tree: Path, work: Path) -> None:
    """Import from the tree first, and from the wheels what this machine lacks.

    Raises ValueError for a pydantic that lacks what the tree's settings use, and says nothing clear itself.
    """
    sys.path[:0] = [str(tree), str(tree / "book")]
    sys.path.append(str(work / "site"))
    from pydantic import VERSION

    if tuple(map(int, VERSION.split(".")[:2])) < (2, 12):
        raise ValueError(f"pydantic {VERSION} is too old: install 2.12 or newer")


def lacks(cell: "Cell", at_hand: Collection[str], tuned_on: Iterable[str], here: Collection[str]) -> str:
    """What a cell waits for, in words; '' if nothing. `here`: of 'teacher' and 'textures' what is there."""
    from stlib.methods import get_method

    if cell.category not in at_hand:
        return f"images of {cell.category}"
    if cell.method == "et_stpm" and (rest := [name for name in tuned_on if name not in at_hand]):
        return f"images that the fine-tuned teacher must see: {', '.join(rest)}"
    needed = ["teacher", *(["textures"] if get_method(cell.method).needs_textures else [])]
    return ", ".join(name for name in needed if name not in here)


def named(cells: "Iterable[Cell]", patterns: list[str]) -> "list[Cell]":
    """The cells that the patterns name, in the patterns' order.

    Raises ValueError for a pattern that names none: a slip of the pen must not cost a rented hour.
    """
    cells = list(cells)
    found = {
        pattern: [cell for cell in cells if fnmatchcase(str(cell.path), f"*/{pattern}.json")]
        for pattern in patterns
    }
    if idle := [pattern for pattern in patterns if not found[pattern]]:
        raise ValueError(f"--only {idle[0]} names no run of the grid: write pfadseg-none/pill-s0 or like it")
    return list(dict.fromkeys(cell for pattern in patterns for cell in found[pattern]))


def leave_archive(work: Path) -> None:
    """Records, teachers and logs as one archive, written whole."""
    folders = ("records", "teachers", "logs", "runs/teachers")
    files = {path for name in folders for path in (work / name).rglob("*.*") if path.suffix != ".ckpt"}
    unfinished = work / "results.partial"
    with tarfile.open(unfinished, "w:gz", compresslevel=1) as archive:
        for path in sorted(files):
            if path.is_file() and not path.name.startswith("."):  # unfinished files begin with a dot
                archive.add(path, path.relative_to(work))
    unfinished.replace(work / "results.tar.gz")


def make(order: dict) -> None:
    """In a process of its own: one run and its record."""
    with suppress(OSError, AttributeError):  # Linux: SIGTERM comes also when the parent is killed
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    if os.getppid() != order["parent"]:
        sys.exit(ENDED)
    work = Path(order["work"])
    use(Path(order["tree"]), work)
    import torch

    from stlib.methods.checkpoint import end_with_checkpoint
    from stlib.records.store import write_record
    from stlib.run.experiment import run
    from stlib.run.fitted import RunFailed
    from stlib.run.spec import RunSpec

    torch.set_num_threads(order["threads"])
    try:
        spec = RunSpec(data=work / "data", **order["spec"])
        with end_with_checkpoint(signal.SIGTERM):
            run(spec, progress=lambda *state: print(*state), runs=work / "runs").save(work / "records")
    except RunFailed as failure:
        write_record(failure.record, work / "records")
        sys.exit(str(failure))


@contextmanager
def alone(work: Path, until: float) -> Iterator[int]:
    """Hold the folder's lock. Runs hold it too: what outlives a killed call ends first.

    Where another call holds it still, this one ends with status 2 and leaves that one's archive alone.
    """
    with (work / "lock").open("ab") as file:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > until:
                say(work, f"error: another call is at work in {work}")
                sys.exit(2)
            time.sleep(0.5)
        yield file.fileno()


def drain(options: argparse.Namespace, work: Path, deadline: float, lock: int) -> int:
    """Unpack, choose, run; returns how many runs failed.

    Raises FileNotFoundError without a whole tree, and ValueError for what no run could work with.
    """
    gather(options.bundles, work)
    trees = [(commit, work / "tree" / commit[:12]) for commit, _ in sets(work)]
    commit, tree = next((found for found in trees if found[1].is_dir()), ("", Path()))
    if not commit:
        raise FileNotFoundError(f"no whole tree in {options.bundles}: put all bundles of a set there")
    os.environ |= {"STLIB_COMMIT": commit, "STLIB_DIRTY": "0"}
    use(tree, work)
    from stlib.methods.training import require_device
    from stlib.paths import places
    from stlib.records.store import load_records
    from study.plan.grid import read_grid, state
    from study.plan.queue import missing

    require_device(options.device, options.precision)
    grid = read_grid(options.grid)
    at_hand = [path.name for path in (work / "data").glob("*")]
    tuned_on = options.tuned_on or dict.fromkeys(c.category for c in grid.cells() if c.method == "et_stpm")
    named_last = [part for _, parts in sets(work) for part in parts if part.startswith("teacher/")]
    teacher = next((work / part for part in named_last if (work / part).is_file()), None)
    textures = work / "textures" / "dtd"
    sources = {"teacher": str(teacher or ""), "textures": str(textures) if textures.is_dir() else ""}
    if grid.profile == "demo":
        sources = dict.fromkeys(sources, "demo")
    here = [name for name, source in sources.items() if source]
    lacking = missing(load_records(places(grid.profile).records), at_hand, options.grid)
    wanted = named(grid.cells(), options.only) if options.only else lacking
    cells = [c for c in wanted if c in lacking and state(c, work / "records") != "finished"]
    for cell in [cell for cell in wanted if cell not in cells]:
        say(work, f"{cell.path} is recorded already")
    waits = {cell: lacks(cell, at_hand, tuned_on, here) for cell in cells}
    for (method, reason), count in Counter((c.method, why) for c, why in waits.items() if why).items():
        say(work, f"{count} of {method} wait for {reason}")
    ready = [cell for cell in cells if not waits[cell]]
    say(work, f"commit {commit[:12]}, grid {options.grid}: {len(ready)} runs can be made")

    def command(cell: "Cell") -> list[str]:
        spec = {name: getattr(cell, name) for name in ("method", "category", "seed", "profile", "variant")}
        spec |= sources | {"device": options.device, "precision": cell.precision or options.precision}
        order = {"tree": str(tree), "work": str(work), "threads": options.threads, "parent": os.getpid()}
        return [sys.executable, "-u", __file__, "--make", json.dumps(order | {"spec": spec})]

    call = Scheduler(
        command, work, deadline, memory=options.memory, expect=options.expect, grace=options.grace,
        inherited=[lock], say=partial(say, work), ended=partial(leave_archive, work),
    )  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(call, "deadline", 0.0))
    call.run(ready)
    return call.failed


def main() -> None:
    """Read the command line; whatever happens, leave the archive."""
    begun = time.monotonic()
    if sys.argv[1:2] == ["--make"]:
        make(json.loads(sys.argv[2]))
        return
    beside = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--deadline", type=float, required=True, help="seconds from now; then runs are stopped")
    add("--grace", type=float, default=60, help="seconds that a stopped run has for its checkpoint")
    add("--bundles", type=Path, default=beside, help="folder of bundles")
    add("--work", type=Path, default=beside / "work", help="folder for everything else")
    add("--grid", default="paper", help="which grid of workflow/grid.toml")
    add("--device", default="cpu", help="cpu, cuda or cuda:N")
    add("--precision", default="fp32", help="fp32, tf32 or bf16")
    add("--memory", type=float, default=80, help=f"GB that runs share; one takes {MEMORY}, or {LARGE}")
    add("--threads", type=int, default=4, help="of each run")
    add(
        "--expect", type=float, default=0, help="seconds that a run takes, while none of its method has ended"
    )
    add("--only", nargs="*", default=[], help="these runs, in this order: pfadseg*/pill-s0 and the like")
    add("--tuned-on", nargs="*", default=[], help="categories that ET-STPM's teacher waits for, if not all")
    options = parser.parse_args()
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    deadline = begun + options.deadline
    with alone(work, deadline) as lock:
        try:
            failed = drain(options, work, deadline, lock)
            say(work, f"{failed} runs failed; see {work / 'results.tar.gz'}")
        except (OSError, ValueError) as error:
            say(work, f"error: {error}")
            sys.exit(2)
        except Exception as error:
            say(work, f"error: {error!r}")  # into the log, and so into the archive
            raise
        finally:
            leave_archive(work)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

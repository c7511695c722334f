"""What every benchmark shares: candidates timed in turn in one process, their ratios, a file of the outcome.

The candidates take turns (A B C, C B A, ...), so a machine that gets slower or faster touches all of them. A
ratio is the median over the turns of other / ours; the range says how far single turns were from it. CPU
seconds tell what other work on the machine cannot.
"""

import argparse
import gc
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import distributions
from inspect import getfile
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from torch import nn

from stlib.data.mvtec import Category, load_category
from stlib.data.textures import load_textures
from stlib.methods.training import reuse_memory
from stlib.nn.backbone import load_teacher
from stlib.paths import BENCHMARKS, DATA, ROOT
from stlib.run.provenance import checkout, processor

Work = Callable[[], object]
Run = Mapping[str, object]
PACKAGES = (
    "torch", "numpy", "scikit-learn", "anomalib", "torchmetrics", "adeval", "onnxruntime", "timm", "imgaug",
)  # fmt: skip


def options(description: str) -> argparse.ArgumentParser:
    """The command line that all scripts have. A script offers nothing that it does not use."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--save", action="store_true", help="write results/benchmarks/NAME-DEVICE.json")
    parser.set_defaults(device="cpu", turns=1)  # said in the file by scripts without these options
    return parser


def timed_options(description: str, *, turns: int) -> argparse.ArgumentParser:
    """The command line of scripts that time on a device."""
    parser = options(description)
    parser.add_argument("--turns", type=int, default=turns, help="timed turns after one that is not counted")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser


def options_with_data(description: str) -> argparse.ArgumentParser:
    """The command line of scripts that train on real images."""
    parser = options(description)
    parser.add_argument("--data", type=Path, default=DATA / "mvtec_ad", help="dataset root")
    parser.add_argument("--teacher", default="torchvision", help="torchvision or a weight file")
    return parser


def options_with_textures(description: str) -> argparse.ArgumentParser:
    """The command line of scripts that train on synthetic anomalies."""
    parser = options_with_data(description)
    parser.add_argument("--textures", type=Path, default=DATA / "dtd", help="folder of DTD")
    return parser


def asked(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What was asked for, with so many threads from here on."""
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return arguments


def given(
    arguments: argparse.Namespace, side: int, categories: Iterable[str], **settings: object
) -> tuple[dict[str, object], nn.Module, dict[str, Category]]:
    """What `options_with_data` names: all settings and what they were applied to, teacher and categories."""
    reuse_memory()
    teacher, info = load_teacher(str(arguments.teacher))
    found = {name: load_category(arguments.data, name, image_size=side) for name in categories}
    about: dict[str, object] = {"side": side, **settings, "teacher": info.pyramid_sha256}
    about["data"] = {name: category.fingerprint for name, category in found.items()}
    if "textures" in arguments:
        about["textures"] = load_textures(str(arguments.textures), side)[1].fingerprint
    return about, teacher, found


def each_run(
    name: str, settings: Run, keys: Iterable[Run], make: Callable[..., Run]
) -> Iterator[Sequence[Run]]:
    """After every key all ended runs: `make(**key)` makes it, unless it is kept.

    Kept are runs of the same settings, commit and text of the script, in build/NAME-HASH.jsonl: a script that
    was stopped does not make them again. Code that no commit holds keeps none: nobody could tell later which
    code it was.
    """
    commit, dirty = checkout()
    about = json.dumps([settings, commit, Path(getfile(make)).read_text(encoding="utf-8")])
    kept = ROOT / "build" / f"{name}-{sha256(about.encode()).hexdigest()[:16]}.jsonl"
    runs: list[Run] = []
    if dirty is False and kept.is_file():
        runs = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    for key in keys:
        if not any(key.items() <= run.items() for run in runs):
            begin = time.process_time()
            made = {**key, **make(**key)}
            runs.append(made | {"cpu_seconds": round(time.process_time() - begin, 1)})
            if dirty is False:
                kept.parent.mkdir(exist_ok=True)
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(runs[-1]) + "\n")
            print(runs[-1], flush=True)
        yield runs


def clock(work: Work, device: torch.device) -> tuple[float, float]:
    """(wall seconds, CPU seconds of this process) of one call, the device's queue emptied on both sides."""
    gc.collect()
    _wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    _wait(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(
    candidates: Mapping[str, Work], *, turns: int, device: torch.device, items: int = 1
) -> dict[str, dict[str, float]]:
    """Time all candidates in turn and show the times; the first one is ours. `items` are handled per call."""
    for work in candidates.values():
        work()  # allocates, compiles, fills caches
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for turn in range(turns):
        order = list(candidates)
        for name in order if turn % 2 == 0 else reversed(order):
            times[name].append(clock(candidates[name], device))
    ours = np.array(times[next(iter(candidates))])
    rows = {}
    for name, pairs in times.items():
        wall, cpu = np.array(pairs).T
        ratios = wall / ours[:, 0]
        rows[name] = {
            "seconds": median(wall),
            "lowest": wall.min(),
            "highest": wall.max(),
            "cpu_seconds": median(cpu),
            "items_per_second": items / median(wall),
            "ratio": median(ratios),
            "ratio_lowest": ratios.min(),
            "ratio_highest": ratios.max(),
        }
        rows[name] = {key: float(f"{value:.4g}") for key, value in rows[name].items()}
    show(rows)
    return rows


def show(rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print a line per name and a column per number."""
    print(pd.DataFrame(list(rows.values()), index=list(rows)).to_string(na_rep=""))


def report(name: str, arguments: argparse.Namespace, results: Mapping[str, object]) -> None:
    """Print the machine; with --save write what was measured, for the book."""
    device = torch.device(arguments.device)
    commit, dirty = checkout()
    versions = {found.name: found.version for found in distributions()}
    made = {
        "benchmark": name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "machine": {
            "processor": processor(device),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "load": round(os.getloadavg()[0], 2),
        }
        | {package: versions[package] for package in PACKAGES if package in versions},
        "turns": arguments.turns,
        "results": results,
    }
    print(", ".join(f"{key} {value}" for key, value in made["machine"].items()))
    if arguments.save:
        BENCHMARKS.mkdir(parents=True, exist_ok=True)
        path = BENCHMARKS / f"{name}-{device.type}.json"
        path.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
        print(path)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

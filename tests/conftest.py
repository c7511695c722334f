"""Shared fixtures: one CPU thread, an untrained teacher, small datasets in MVTec AD's layout, and records."""

import ast
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from stlib.data.mvtec import Category, load_category
from stlib.nn.backbone import ResNet18Pyramid, load_teacher
from stlib.paths import ROOT
from stlib.protocol import CATEGORIES, LAYERS, METRICS
from stlib.records.schema import Dataset, History, ImageScore, Record, Runtime, TeacherInfo
from stlib.records.teacher import TeacherRecord

MakeCategory = Callable[..., Path]

# The same examples in every run, and no clock: a busy machine must not fail a law.
settings.register_profile("stlib", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("stlib")


class OneKernel(LoadScopeScheduling):
    """Of several test processes one runs all notebooks: kernels that start at once may take the same port.

    The mark `xdist_group` would say it, but xdist 3.8 does not reach pytest 9.2 with it.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "kernels" if "ipynb" in nodeid or "nbval" in nodeid else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneKernel:
    """How `make test` shares the tests out."""
    return OneKernel(config, log)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    # Sums over several threads may differ in the last bit; many equality tests here are exact.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def random_teacher() -> ResNet18Pyramid:
    """An untrained, frozen teacher: the same one in every test."""
    return load_teacher("random")[0]


def _stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size) float: horizontal stripes with a random phase and a little noise."""
    wave = 120 + 50 * np.sin(2 * np.pi * np.arange(size) / 8 + rng.uniform(0, 2 * np.pi))
    return wave[:, None] + rng.normal(0, 4, (size, size))


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)


def build_category(
    root: Path,
    name: str = "plate",
    *,
    train: int = 10,
    good: int = 4,
    defects: Mapping[str, int] | None = None,
    size: int = 64,
    seed: int = 0,
) -> Path:
    """A category of striped images; a defect is a square whose stripes run the other way. Returns `root`."""
    rng = np.random.default_rng(seed)
    folder = root / name
    for i in range(train):
        _save(folder / "train" / "good" / f"{i:03}.png", _stripes(rng, size))
    for i in range(good):
        _save(folder / "test" / "good" / f"{i:03}.png", _stripes(rng, size))
    for defect, count in (defects if defects is not None else {"turned": 4}).items():
        for i in range(count):
            pixels, mask = _stripes(rng, size), np.zeros((size, size))
            side = size // 4
            top, left = rng.integers(0, size - side, 2)
            square = np.s_[top : top + side, left : left + side]
            pixels[square] = 40 + pixels[square].T
            mask[square] = 255
            _save(folder / "test" / defect / f"{i:03}.png", pixels)
            _save(folder / "ground_truth" / defect / f"{i:03}_mask.png", mask)
    return root


@pytest.fixture(scope="session")
def make_category() -> MakeCategory:
    """`make_category(root, name, train=, good=, defects=, size=, seed=)` writes one category under `root`."""
    return build_category


@pytest.fixture(scope="session")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Category:
    """One small category in memory: 20 training images, 6 good and 6 defective test images, side 64."""
    root = build_category(tmp_path_factory.mktemp("plate"), train=20, good=6, defects={"turned": 6})
    return load_category(root, "plate", image_size=64)


@pytest.fixture(scope="session")
def make_record():
    """A factory of valid records: complete MVTec AD, the paper's schedule, and every metric at `value`."""

    def make(
        category="bottle",
        seed=0,
        value=0.97,
        *,
        metrics=None,
        undefined=None,
        gaps=(),
        dataset="MVTec AD",
        teacher="torchvision IMAGENET1K_V1",
        status="finished",
        spread=0.01,
        **fields,
    ):
        undefined = undefined or {}
        scores = {m: value for m in METRICS if m not in undefined} | (metrics or {})
        counts = CATEGORIES.get(category, CATEGORIES["bottle"])
        noise = np.random.default_rng(1).uniform(-spread, spread, 200)
        finished = {
            "history": History(
                steps=600,
                images_seen=16_700,
                curves={"train_loss": [3.5, 1.2, 0.5], "val_score": [0.1, 0.02, 0.03]},
                selected={"epoch": 2, "val_score": 0.02},
            ),
            "metrics": scores,
            "undefined": undefined,
            "sensitivity": {
                name: {metric: score - 0.05 for metric, score in scores.items()}
                for name in (
                    "maps=sum",
                    "score=top100",
                    "masks=80/255",
                    "masks=any",
                    "masks=full",
                    "checkpoint=last",
                )
            },
            "image_scores": [
                ImageScore(image="broken/000.png", score=0.9),
                ImageScore(image="broken/001.png", score=0.4),
                ImageScore(image="good/000.png", score=0.5),
                ImageScore(image="good/001.png", score=0.1),
            ],
            "pixel_curves": {"fpr": [0.0, 0.2, 1.0], "recall": [0.5, 0.9, 1.0], "precision": [1.0, 0.6, 0.1]},
            "bootstrap": {metric: list(score + noise) for metric, score in scores.items()},
        }
        return Record.model_validate(
            {
                "method": "stpm",
                "category": category,
                "seed": seed,
                "profile": "paper",
                "status": status,
                "error": "epoch 3: training loss nan" if status == "failed" else None,
                "config": {"epochs": 100},
                "precision": "bf16",
                "dataset": Dataset(
                    name=dataset,
                    fingerprint="0" * 64,
                    train_images=counts.train_good,
                    test_good=counts.test_good,
                    test_defect=counts.test_defect,
                    image_size=256,
                    mask_rule="half",
                    gaps=list(gaps),
                ),
                "teacher": TeacherInfo(source=teacher, file_sha256=None, pyramid_sha256="1" * 64, missing=[]),
                "runtime": Runtime(
                    started=datetime(2026, 1, 1, tzinfo=UTC),
                    device="CPU, test",
                    threads=1,
                    train_seconds=600,
                    evaluate_seconds=30,
                    peak_memory_mb=2048,
                    versions={"torch": "2.10"},
                    commit=None,
                    dirty=None,
                ),
            }
            | (finished if status == "finished" else {})
            | fields
        )

    return make


@pytest.fixture(scope="session")
def same_result():
    """`same_result(a, b)`: whether two records are equal in everything but their runtime."""

    def same(a: Record, b: Record) -> bool:
        return a.model_dump(exclude={"runtime"}) == b.model_dump(exclude={"runtime"})

    return same


@pytest.fixture
def run_page(monkeypatch):
    """`run_page(name, records=None)` executes the cells of a page of the book and returns what they show.

    With `records`, these stand in the place of the committed ones, and no teacher is recorded.
    """

    def run(name, records=None):
        shown = []
        monkeypatch.setattr("IPython.display.display", lambda *parts: shown.extend(parts))
        if records is not None:
            monkeypatch.setattr("stlib.records.store.load_records", lambda *_args, **_kwargs: list(records))
            monkeypatch.setattr("stlib.records.teacher.load_teacher_records", list)
        names = {}
        page = (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8")
        for cell in re.findall(r"```\{code-cell\} ipython3\n---\n.*?\n---\n(.*?)```", page, re.DOTALL):
            tree = ast.parse(cell)
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, name, "exec"), names)
            if last:
                shown.append(eval(compile(ast.Expression(last.value), name, "eval"), names))
        plt.close("all")
        return [part for part in shown if part is not None]

    return run


@pytest.fixture
def teacher(make_record):
    levels = [f"{name}_{level}" for name in ("weight_change", "feature_cosine") for level in LAYERS]
    series = {"train_loss": [1.0, 0.5], "accuracy": [0.8, 1.0]} | {name: [0.0, 0.1] for name in levels}
    record = make_record()
    return TeacherRecord(
        name="A", profile="paper", tuning={}, precision="fp32", source=record.teacher,
        categories={"bottle": "0"}, images=10, held_out=2, curves=series, pyramids=["a", "b"],
        runtime=record.runtime,
    )  # fmt: skip

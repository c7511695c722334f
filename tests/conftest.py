"""Shared fixtures: one CPU thread, an untrained teacher, and small datasets in MVTec AD's layout."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from stlib.data.mvtec import Category, load_category
from stlib.nn.backbone import ResNet18Pyramid, load_teacher

MakeCategory = Callable[..., Path]

# The same examples in every run, and no clock: a busy machine must not fail a law.
settings.register_profile("stlib", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("stlib")


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

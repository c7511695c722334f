"""The demo dataset: MVTec AD's layout made from a seed in seconds, so that everything runs offline.

Three textures are crops of CC0 photographs that scikit-image ships; the object is drawn. Five defect kinds
are drawn on them by geometry and shading, on purpose unlike the training synthesis of DeSTSeg (Perlin masks
with blended textures). The set shows that the code works; it says nothing about MVTec AD.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from stlib.files import file_lock
from stlib.paths import BUILD

DEMO_CATEGORIES = ("brick", "grass", "gravel", "washer")
"""Three photographed textures, stored grey like MVTec's grid, and one drawn object in colour."""
DEMO_TEXTURES = ("brick", "grass", "gravel")
SIDE = 160
"""Side of every image in pixels."""
TRAIN_GOOD, TEST_GOOD, TEST_PER_DEFECT = 48, 12, 4
"""Images of each category: training, defect-free test, test per defect kind."""
TRAIN_COLUMNS, TEST_COLUMNS = (0, 264), (280, 512)
"""Columns of the 512x512 photographs; the gap keeps resampling from reading the other part."""
MARKER = "demo.json"
"""Written last into the root: generator version and seed."""
GENERATOR = 3
"""Raised whenever the pixels of a seed change."""

Array = NDArray[np.float32]
Rng = np.random.Generator
Defect = Callable[[Array, tuple[int, int], Rng], tuple[Array, Array]]


class Sample(NamedTuple):
    """One defect-free image: values (H, W, C) in [0, 1], and `body` (H, W), 1 where a defect may lie."""

    image: Array
    body: Array


def make_demo(root: Path | str = BUILD / "demo", *, seed: int = 0) -> Path:
    """Make the demo dataset under `root` unless it is there already, and return `root`.

    Layout: `<category>/{train/good,test/good,test/<defect>,ground_truth/<defect>}`, masks `<stem>_mask.png`.
    A demo set of another seed or generator version at `root` is replaced. Readers never see half a set.

    Raises FileExistsError when `root` holds something else, and OSError where nothing can be written.
    """
    root = Path(root)
    if _is_current(root, seed):
        return root
    if root.exists() and not (root / MARKER).is_file() and (not root.is_dir() or any(root.iterdir())):
        raise FileExistsError(f"{root} exists and is not a demo dataset (no {MARKER}): choose another folder")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.")
    except OSError as error:
        told = (
            f"cannot make {root} ({error.strerror}): name one that you may write to; STLIB_BUILD moves build/"
        )
        raise OSError(told) from error
    with beside as scratch, file_lock(root.with_name(f".{root.name}.lock"), wait=True):
        if _is_current(root, seed):  # another process was faster, and somebody may read it by now
            return root
        made = Path(scratch) / root.name
        for number, category in enumerate(DEMO_CATEGORIES):
            photograph = _photograph(category) if category in DEMO_TEXTURES else None
            _write_category(made / category, photograph, (seed, number))
        marker = {"generator": GENERATOR, "seed": seed}
        (made / MARKER).write_bytes(f"{json.dumps(marker, indent=2)}\n".encode())
        if root.exists():
            root.rename(Path(scratch) / "replaced")
        made.rename(root)
    return root


def _is_current(root: Path, seed: int) -> bool:
    try:
        marker = json.loads((root / MARKER).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(marker, dict) and (marker.get("generator"), marker.get("seed")) == (GENERATOR, seed)


def _photograph(name: str) -> Image.Image:
    from skimage import data  # here: it is slow to import, and readers of a finished set do without it

    return Image.fromarray(getattr(data, name)()).convert("L")


def _write_category(folder: Path, photograph: Image.Image | None, entropy: tuple[int, int]) -> None:
    """All images of one category; every image has its own random stream, so counts can change alone."""

    def sample(columns: tuple[int, int], rng: Rng) -> Sample:
        return _washer(rng) if photograph is None else _crop(photograph, columns, rng)

    parts = [("train/good", TRAIN_GOOD, TRAIN_COLUMNS), ("test/good", TEST_GOOD, TEST_COLUMNS)]
    for split, (part, count, columns) in enumerate(parts):
        for i in range(count):
            rng = np.random.default_rng((*entropy, split, i))
            _save(folder / part / f"{i:03d}.png", sample(columns, rng).image)
    for kind, (name, defect) in enumerate(DRAWERS.items()):
        for i in range(TEST_PER_DEFECT):
            rng = np.random.default_rng((*entropy, 2 + kind, i))
            image, mask = _spoil(sample(TEST_COLUMNS, rng), defect, rng)
            _save(folder / "test" / name / f"{i:03d}.png", image)
            _save(folder / "ground_truth" / name / f"{i:03d}_mask.png", mask)


def _save(file: Path, values: Array) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file)


# --- defect-free images


def _crop(photograph: Image.Image, columns: tuple[int, int], rng: Rng) -> Sample:
    """A crop of random place, scale (up to 1.3 each way) and exposure from the given columns."""
    side = rng.uniform(130, 190)
    left = rng.uniform(columns[0], columns[1] - side)
    top = rng.uniform(0, photograph.height - side)
    crop = photograph.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    values = np.asarray(crop, np.float32)[..., None] / 255
    values = (values - 0.5) * rng.uniform(0.85, 1.1) + 0.5 + rng.uniform(-0.06, 0.06)
    return Sample(np.clip(values, 0, 1), np.ones((SIDE, SIDE), np.float32))


def _washer(rng: Rng) -> Sample:
    """A turned metal ring with three drilled holes on a matt ground: pose, light and noise vary a little."""
    y, x = _grid() - (SIDE / 2 + rng.uniform(-4, 4, (2, 1, 1))).astype(np.float32)
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    outer, inner, turn = rng.uniform(59, 62), rng.uniform(23, 25), rng.uniform(-0.15, 0.15)
    body = _inside(outer - radius) * _inside(radius - inner)
    for third in range(3):
        direction = turn + third * 2 * np.pi / 3
        middle = 42 * np.sin(direction), 42 * np.cos(direction)
        body *= _inside(np.hypot(y - middle[0], x - middle[1]) - 6)
    grooves = np.interp(radius, np.arange(SIDE), ndimage.gaussian_filter1d(rng.normal(size=SIDE), 0.8))
    light = rng.uniform(0.65, 0.8)
    metal = 0.56 + 0.13 * np.cos(2 * (angle - light)) + 0.035 * grooves
    bevel = np.exp(-(((outer - 3 - radius) / 2) ** 2)) + np.exp(-(((radius - inner - 3) / 2) ** 2))
    metal += 0.14 * bevel * np.cos(angle - light)
    ground = 0.24 + 0.05 * ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1.2) + 0.0006 * (x + y)
    shadow = 1 - 0.45 * ndimage.gaussian_filter(np.roll(body, (4, 4), (0, 1)), 4)
    far = np.multiply.outer(ground * shadow, (0.85, 1.0, 1.15))
    image = far + body[..., None] * (np.multiply.outer(metal, (1.0, 0.97, 0.9)) - far)
    lit = image * rng.uniform(0.92, 1.08) + rng.normal(0, 0.012, image.shape)
    return Sample(np.clip(lit, 0, 1).astype(np.float32), body)


# --- defects: each gives a painted image and its coverage (H, W) in [0, 1]


def _spoil(sample: Sample, defect: Defect, rng: Rng) -> tuple[Array, Array]:
    """The image with one defect on its body, and the mask (H, W) of 0 and 1: coverage of at least a half."""
    places = np.argwhere(ndimage.binary_erosion(sample.body > 0.99, iterations=6))
    centre = places[rng.integers(len(places))]
    painted, coverage = defect(sample.image, (int(centre[0]), int(centre[1])), rng)
    coverage = coverage * sample.body
    image = sample.image + coverage[..., None] * (painted - sample.image)
    return image, (coverage >= 0.5).astype(np.float32)


def _scratch(image: Array, centre: tuple[int, int], rng: Rng) -> tuple[Array, Array]:
    """A thin curved line, lighter or darker than its surroundings."""
    direction, bend, length = rng.uniform(0, np.pi), rng.uniform(-0.25, 0.25), rng.uniform(25, 80)
    t = np.linspace(-0.5, 0.5, 80)[:, None, None] * length
    along, across = t, bend * (t**2 * 4 / length - length / 4)
    y, x = _grid()
    gap_y = y - centre[0] - (along * np.sin(direction) + across * np.cos(direction))
    gap_x = x - centre[1] - (along * np.cos(direction) - across * np.sin(direction))
    distance = np.sqrt((gap_y**2 + gap_x**2).min(axis=0))
    change: float = rng.uniform(2.5, 6) * rng.choice((-1, 1)) * _roughness(image)
    return image + change, _inside(rng.uniform(0.9, 2.0) - distance)


def _stain(image: Array, centre: tuple[int, int], rng: Rng) -> tuple[Array, Array]:
    """A large soft-edged patch that takes light away, in colour images some channels more than others."""
    tint = rng.uniform(0.6, 1.0, image.shape[-1]) if image.shape[-1] > 1 else 1
    strength = min(rng.uniform(3.5, 7) * _roughness(image), 0.8)
    return image * (1 - strength * tint), _blob(centre, rng.uniform(10, 24), 5.0, rng)


def _dent(image: Array, centre: tuple[int, int], rng: Rng) -> tuple[Array, Array]:
    """A round hollow seen by its shading: light on one flank, dark on the other."""
    size, light = rng.uniform(7, 15), rng.uniform(0, 2 * np.pi)
    y, x = (_grid() - np.reshape(centre, (2, 1, 1))) / size
    flank = (np.cos(light) * x + np.sin(light) * y) * np.exp(0.5 - (x**2 + y**2) * 2) * 2
    painted = image + (rng.uniform(2.5, 6) * _roughness(image) * flank)[..., None]
    return painted, _inside((1.3 - np.hypot(y, x)) * size, 3.0)


def _chip(image: Array, centre: tuple[int, int], rng: Rng) -> tuple[Array, Array]:
    """A small piece broken out: a dark ragged pit with a lighter rim."""
    size = rng.uniform(4, 8)
    coverage = _blob(centre, size, 1.0, rng)
    depth = ndimage.gaussian_filter(coverage, size / 3)[..., None]
    return image + rng.uniform(6, 12) * _roughness(image) * (0.45 - depth), coverage


def _smear(image: Array, centre: tuple[int, int], rng: Rng) -> tuple[Array, Array]:
    """A rubbed area: the surface is blurred along one direction, and duller or brighter for it."""
    direction, reach = rng.uniform(0, np.pi), int(rng.integers(4, 9))
    shifts = [(k * np.sin(direction), k * np.cos(direction), 0) for k in range(-reach, reach + 1)]
    painted = np.mean([ndimage.shift(image, shift, order=1, mode="nearest") for shift in shifts], axis=0)
    change: float = rng.uniform(0.6, 1.8) * rng.choice((-1, 1)) * _roughness(image)
    return painted + change, _blob(centre, rng.uniform(10, 22), 3.0, rng)


DRAWERS: dict[str, Defect] = {
    "chip": _chip, "dent": _dent, "scratch": _scratch, "smear": _smear, "stain": _stain,
}  # fmt: skip
"""What draws a defect, by the name of its folder."""


def _grid() -> Array:
    """(2, H, W): row and column of every pixel."""
    return np.indices((SIDE, SIDE)).astype(np.float32)


def _inside(distance: Array, softness: float = 1.0) -> Array:
    """1 inside (positive signed distance), 0 outside, a ramp of `softness` pixels between."""
    return np.asarray(np.clip(distance / softness + 0.5, 0, 1), np.float32)


def _blob(centre: tuple[int, int], size: float, softness: float, rng: Rng) -> Array:
    """Coverage of an irregular round region of mean radius `size` pixels."""
    y, x = _grid() - np.reshape(centre, (2, 1, 1))
    angle = np.arctan2(y, x)
    waves = sum(rng.uniform(0, 0.3) / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 6))
    return _inside(size * (1 + waves) - np.hypot(y, x), softness)


def _roughness(image: Array) -> float:
    """Spread of the surface's own fine structure (0.05 to 0.15); a defect's strength is relative to it."""
    return float((image - ndimage.gaussian_filter(image, (4, 4, 0))).std())

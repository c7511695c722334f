"""Drawn textures in many families and random colours: the demo's foreign material, its teacher's lessons."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import cKDTree

SIDE = 128
"""Side of every picture in pixels."""
PERIODS = ((5, 9), (10, 17), (18, 32))
"""Pixels per repetition: fine, middle and coarse textures."""

Field = NDArray[Any]  # float or bool: a pattern is scaled to its own spread later
Picture = NDArray[np.uint8]
Rng = np.random.Generator


def kinds() -> list[tuple[int, tuple[int, int]]]:
    """Every (family, range of periods): the first two arguments of `texture`."""
    nowhere = np.zeros((1, 1))
    families = range(len(fields(nowhere, nowhere, 1.0, np.random.default_rng(0))))
    return [(family, periods) for family in families for periods in PERIODS]


def texture(family: int, periods: tuple[int, int], rng: Rng) -> Picture:
    """(SIDE, SIDE, 3): one turned, slightly warped texture in random colours."""
    period, angle, bend = rng.uniform(*periods), rng.uniform(0, np.pi), rng.uniform(0, 0.15)
    y, x = np.indices((SIDE, SIDE)) - SIDE / 2 + bend * period * np.stack([noise(rng, 12), noise(rng, 12)])
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    field = np.asarray(fields(u, v, period, rng)[family](), np.float64)
    field = ndimage.gaussian_filter(field, rng.uniform(0, 0.8))
    field = np.clip((field - field.mean()) / (field.std() + 1e-6), -2.5, 2.5) * rng.uniform(0.05, 0.3)
    colour, ground = rng.normal(size=3), rng.uniform(0.25, 0.75, 3)
    image = ground + field[..., None] * colour + rng.normal(0, rng.uniform(0, 0.05), (SIDE, SIDE, 1))
    return np.asarray(np.clip(image, 0, 1) * 255, np.uint8)


def fields(u: Field, v: Field, p: float, rng: Rng) -> tuple[Callable[[], Field], ...]:
    """The texture families over coordinates u, v (H, W) with period `p`: grey values of any scale."""
    return (
        lambda: np.sin(2 * np.pi * u / p),
        lambda: u / p % 1 < rng.uniform(0.1, 0.3),
        lambda: np.sin(2 * np.pi * u / p) + np.sin(2 * np.pi * v / p),
        lambda: (np.floor(u / p) + np.floor(v / p)) % 2,
        lambda: np.hypot(u / p % 1 - 0.5, v / p % 1 - 0.5) < rng.uniform(0.2, 0.4),
        lambda: np.minimum(np.abs(u / p % 1 - 0.5), np.abs(v / p % 1 - 0.5)) < rng.uniform(0.06, 0.12),
        lambda: np.sin(2 * np.pi * np.hypot(u, v) / p),
        lambda: (v / p + np.abs(u / p % 2 - 1)) % 1,
        lambda: bricks(u, v, p),
        lambda: weave(u, v, p),
        lambda: rng.random(int((2 * SIDE / p) ** 2))[cells(u, v, p, rng)[1]],
        lambda: cells(u, v, p, rng)[0],
        lambda: np.diff(cells(u, v, p, rng, count=2)[0], axis=-1)[..., 0] < 0.15 * p,
        lambda: cells(u, v, p, rng)[0] < 0.25 * p,
        lambda: noise(rng, p / 4),
        lambda: noise(rng, p / 6) > 0.5,
        lambda: -np.abs(noise(rng, p / 3)),
        lambda: noise(rng, (p, p / 12)),
        lambda: spectrum(rng, 1.0, 3 * p),
        lambda: spectrum(rng, 1.8, 3 * p),
        lambda: drawn(rng, p, "discs"),
        lambda: drawn(rng, p, "strokes"),
        lambda: drawn(rng, p, "polygons"),
    )


def bricks(u: Field, v: Field, p: float) -> Field:
    """Rows of bricks, 2.5 times as long as high, each row shifted by half a brick."""
    along, across = (u / (2.5 * p) + np.floor(v / p) / 2) % 1 - 0.5, v / p % 1 - 0.5
    return np.maximum(np.abs(along) * 2.5 - 1.25, np.abs(across) - 0.5) > -0.1


def weave(u: Field, v: Field, p: float) -> Field:
    """Threads that pass over and under each other."""
    over = (np.floor(u / p) + np.floor(v / p)) % 2
    return np.where(over == 0, np.abs(np.sin(np.pi * u / p)), np.abs(np.sin(np.pi * v / p)) * 0.7)


def cells(u: Field, v: Field, p: float, rng: Rng, count: int = 1) -> tuple[Field, NDArray[np.int64]]:
    """Distances to, and indices of, the nearest `count` random points, about one point per period squared."""
    points = rng.uniform(-SIDE, SIDE, (int((2 * SIDE / p) ** 2), 2))
    distances, indices = cKDTree(points).query(np.stack([u, v], -1), count)
    return distances, indices


def noise(rng: Rng, sigma: float | tuple[float, float]) -> Field:
    """(SIDE, SIDE) Gaussian noise of unit spread, smooth on the scale of `sigma` pixels."""
    field = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), sigma, mode="wrap")
    return np.asarray(field / field.std())


def spectrum(rng: Rng, power: float, period: float) -> Field:
    """(SIDE, SIDE) noise whose amplitude falls with frequency^-power above the frequency of `period`."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE)))
    white = np.fft.fft2(rng.normal(size=(SIDE, SIDE)))
    field = np.fft.ifft2(white * np.maximum(frequency, 1 / period) ** -power).real
    return np.asarray(field / field.std())


def drawn(rng: Rng, p: float, kind: str) -> Field:
    """(SIDE, SIDE): many random 'discs', 'strokes' or 'polygons' of size `p` on top of each other."""
    canvas = Image.new("F", (SIDE, SIDE))
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(5 * (SIDE / p) ** 2)):
        (x, y), r, angle = rng.uniform(-p, SIDE + p, 2), p * rng.uniform(0.3, 0.9), rng.uniform(0, 2 * np.pi)
        if kind == "discs":
            draw.ellipse((x - r, y - r, x + r, y + r), fill=rng.random())
        elif kind == "strokes":
            end = (x + 2 * r * np.cos(angle), y + 2 * r * np.sin(angle))
            draw.line((x, y, *end), fill=rng.random(), width=max(1, int(p / 7)))
        else:
            draw.regular_polygon((x, y, r), int(rng.integers(3, 6)), np.degrees(angle), fill=rng.random())
    return np.asarray(canvas, np.float64)

"""Images from a shop floor through a trained detector: a score, a decision and a map each, and a report.

An image that cannot be read is told, and the others are scored.
"""

import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stlib.data.images import (
    DatasetError,
    as_input,
    images_below,
    named,
    open_image,
    read_images,
    sounds_good,
)
from stlib.detector import Detector, digests
from stlib.files import write_atomic
from stlib.methods import get_method
from stlib.protocol import Precision

BATCH = 8
"""Images at once: they are kept at their own size until their maps are drawn."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inspected:
    """One image, what the detector says about it, and the decision."""

    path: Path
    """Of the image, as it was named or found."""
    image: Image.Image
    """In RGB, at its own size, turned as the camera says."""
    pixel: Tensor
    """(S, S) float32 anomaly map, at the size of the detector's input."""
    score: float
    """Of the whole image, without unit; higher is more anomalous."""
    threshold: float | None
    """Above which a score is anomalous; None for a detector without one."""
    score_apart: bool = False
    """Whether the score does not come from the map, as SPADE's: its threshold says nothing of a pixel."""

    @property
    def anomalous(self) -> bool | None:
        """Whether the score is above the threshold, or no number; None for a detector without a threshold."""
        return None if self.threshold is None else not self.score <= self.threshold

    @property
    def decision(self) -> str:
        """'anomalous', 'good', or nothing for a detector without a threshold."""
        return {True: "anomalous", False: "good", None: ""}[self.anomalous]

    def full_map(self) -> Image.Image:
        """The map as float32 at the size of the image, bilinear: what a TIFF holds."""
        return Image.fromarray(self.pixel.numpy()).resize(self.image.size, Image.Resampling.BILINEAR)

    def overlay(self) -> Image.Image:
        """The image, ever redder towards the threshold, or towards the map's highest value.

        The latter without a threshold, and where the score does not come from the map. Red, too, where the
        map is no number. The fourth power leaves good surface as it is: PatchCore's map of it lies at .6 of
        the threshold.
        """
        threshold = None if self.score_apart else self.threshold
        scale = threshold or float(self.pixel.nan_to_num(0).max()) or 1.0
        heat = 0.8 * np.nan_to_num(np.clip(np.asarray(self.full_map()) / scale, 0, 1), nan=1) ** 4
        red = Image.new("RGB", self.image.size, (255, 0, 0))
        return Image.composite(red, self.image, Image.fromarray((255 * heat).astype(np.uint8)))


def listed(places: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The images that `places` name, files or folders, each once, and what was left out, in words.

    Raises FileNotFoundError for a place that is not there, and DatasetError for a folder without images or
    one that this user may not read.
    """
    files: list[Path] = []
    notes: list[str] = []
    for place in dict.fromkeys(places):
        if not place.exists():
            raise FileNotFoundError(f"no such file or folder: {place}")
        if not place.is_dir():
            files.append(place)
            continue
        found, left_out = images_below(place)
        notes += [f"{place}: left out ({reason}) {named(paths)}" for reason, paths in left_out.items()]
        if not found:
            raise DatasetError(f"{place} holds no image: name another folder. {'; '.join(notes)}")
        files += found
    return list({_absolute(file): file for file in files}.values()), notes


def _absolute(path: Path) -> str:
    """The path from the root, without '..' and with links as they are: a linked folder stays where it is."""
    return os.path.normpath(path.absolute())


def require_good(places: Sequence[Path]) -> None:
    """Raise DatasetError for a folder that holds good images beside others, which would count as good too."""
    for place in filter(Path.is_dir, places):
        folders = sorted({path.parent.relative_to(place) for path in images_below(place)[0]})
        good = [folder for folder in folders if any(map(sounds_good, folder.parts))]
        if good and (others := [folder for folder in folders if folder not in good]):
            parts = good[0].parts  # a folder of a part may lie below that of the good ones
            best = Path(*parts[: next(i for i, part in enumerate(parts, 1) if sounds_good(part))])
            raise DatasetError(
                f"{place} holds good images in {best} beside others in {others[0]}, which would count as "
                f"good too: name {place / best}"
            )


def unseen(detector: Detector, files: Sequence[Path]) -> tuple[list[Path], Tensor]:
    """The images that a threshold of `detector` may be read from, each picture once, and as its input.

    Raises DatasetError for pictures of its training, and as `open_image` does.
    """
    pixels = read_images(list(files), detector.image_size)
    pictures: dict[str, int] = {}
    for index, digest in enumerate(digests(pixels)):
        pictures.setdefault(digest, index)
    if learnt := [files[pictures[digest]] for digest in detector.info.training_images if digest in pictures]:
        raise DatasetError(
            f"{learnt[0]} is one of the pictures the detector learnt from ({len(learnt)} of {len(pictures)} "
            "are): it scores them lower than any other, name good pictures that it has not seen"
        )
    once = list(pictures.values())
    return [files[index] for index in once], pixels[once]


def inspect(
    detector: Detector,
    images: Path | str | Iterable[Path | str],
    *,
    device: str | None = None,
    precision: Precision = "fp32",
    unreadable: Callable[[DatasetError], object] | None = None,
) -> Iterator[Inspected]:
    """Score photographs: what the detector says about each of them, in order, each file once.

    Files of a folder that are left out are logged as warnings.

    Args:
        detector: What `fit` or `Detector.load` returned.
        images: A file, a folder with everything below it, or several of them.
        device: Where the network runs, by default where it is, as in `Detector.maps`.
        precision: Arithmetic, as in `Detector.maps`.
        unreadable: Called with the error of every image that cannot be read; the others are scored.
            Without it such an image raises DatasetError.

    Raises FileNotFoundError for a place that is not there, DatasetError for a folder without images or one
    that this user may not read, and TypeError for an image in the place of its path.

    >>> import stlib
    >>> detector = stlib.Detector.untrained("stpm", "demo")
    >>> for found in stlib.inspect(detector, stlib.make_demo() / "brick" / "test" / "good"):
    ...     print(found.path.name, found.score, found.anomalous)
    000.png ... None
    001.png ... None
    ...
    """
    places = [images] if isinstance(images, str | Path | Image.Image) else list(images)
    if not all(isinstance(place, str | Path) for place in places):
        raise TypeError(
            f"images are a {type(images).__name__}, and files or folders are named here: "
            "`detector.maps(stlib.data.images.as_input(image, detector.image_size)[None])` scores a PIL image"
        )
    files, notes = listed([Path(place) for place in places])
    for note in notes:
        logger.warning(note)
    return _scored(detector, files, device, precision, unreadable)


def _scored(
    detector: Detector,
    files: Sequence[Path],
    device: str | None,
    precision: Precision,
    unreadable: Callable[[DatasetError], object] | None,
) -> Iterator[Inspected]:
    detector = detector.on(device)
    limit = detector.info.threshold.value if detector.info.threshold else None
    apart = get_method(detector.info.method).score_apart
    for start in range(0, len(files), BATCH):
        opened = {}
        for path in files[start : start + BATCH]:
            try:
                opened[path] = open_image(path)
            except DatasetError as error:
                if unreadable is None:
                    raise
                unreadable(error)
        if not opened:
            continue
        pixels = torch.stack([as_input(image, detector.image_size) for image in opened.values()])
        maps = detector.maps(pixels, precision=precision)
        for (path, image), pixel, score in zip(opened.items(), maps.pixel, maps.image.tolist(), strict=True):
            yield Inspected(path, image, pixel, score, limit, apart)


def map_paths(places: Sequence[Path], files: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where under `folder` the map of each of `files` goes: a path of its own, as below all `places`.

    Raises ValueError for a folder inside one of `places`, where the next inspection would take the maps for
    images, and when a map, or the picture beside it, would replace an image.
    """
    for place in filter(Path.is_dir, places):
        if folder.resolve().is_relative_to(place.resolve()):
            raise ValueError(
                f"the maps in {folder} would be images of {place} the next time: name a folder outside, such "
                f"as {Path(_absolute(place)).parent / 'maps'}"
            )
    base = os.path.commonpath([_absolute(place if place.is_dir() else place.parent) for place in places])
    paths = {file: folder / f"{os.path.relpath(file, base)}.tiff" for file in files}
    images = {file.resolve() for file in files}
    for path in paths.values():
        if images & {path.resolve(), path.with_suffix(".png").resolve()}:
            raise ValueError(f"the map {path} would replace one of the images: name another folder")
    return paths


def write_map(found: Inspected, path: Path) -> None:
    """Write the map as float32 TIFF to `path`, and as a PNG to look at beside it. Raises OSError."""
    for image, kind in ((found.full_map(), "tiff"), (found.overlay(), "png")):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        write_atomic(path.with_suffix(f".{kind}"), buffer.getvalue())

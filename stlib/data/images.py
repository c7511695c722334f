"""Reading images by one set of rules, for training, test, masks, textures and detection alike.

What is read: PNG, JPEG, BMP, TIFF and WebP by the ending of the name, in any case; below a folder, in its
sub-folders and linked folders too; turned as the camera says. What could not be shown to a network as a
person sees it is refused by name: transparency, more than 8 bits per channel, several frames, other colour
models. Hidden files and those of operating systems are left out, and whatever is left out is told.
"""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, ImageOps, TiffImagePlugin
from torch import Tensor

from stlib.files import in_order

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""The decoders that files may reach, whatever their names, and the endings by which images are known."""
SUFFIXES = {suffix for suffixes in FORMATS.values() for suffix in suffixes}
MAX_PIXELS = 1 << 26
"""Of one image; MVTec AD has about a million. A file of a few kilobytes may claim to hold billions."""

MASK_ENDINGS = ("_mask", "_label", "_gt")
"""An image whose stem is that of another one beside it and such an ending, in any case, is the mask of it."""
MASKS = "masks beside their images"
"""Why masks are left out where images are looked for."""
TRUTH = "folder of masks"
"""Why a folder `ground_truth` is, below a place that is looked through."""
HIDDEN = "hidden, or of the system"
"""Why other files are."""

_SOUNDS_GOOD = {
    *("good", "goodparts", "goodimages", "ok", "okay", "normal", "nominal", "pass", "passed", "nodefect"),
    *("nodefects", "defectfree", "nondefective", "noanomaly", "anomalyfree", "nonanomalous", "flawless"),
    *("gut", "gutteil", "gutteile", "io", "inordnung", "fehlerfrei", "goed", "bra", "god", "dobry", "dobre"),
    *("bon", "bonne", "bons", "bonnes", "conforme", "conformes", "buono", "buona", "buoni", "buone"),
    *("bueno", "buena", "buenos", "buenas", "bien", "bom", "boa", "boas"),
}
"""Names of folders that hold good images in other layouts, letters and digits only, in one case; in this one
only 'good' does. Other languages are left to a person: `stlib data check` names the folders there are."""

ACROSS = (5, 6, 7, 8)
"""What a camera writes for a turn that changes width and height."""
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_OF_SYSTEMS = ("thumbs.db", "desktop.ini", "__macosx")
_SMALLER = "make it smaller, or cut it"


class DatasetError(ValueError):
    """A dataset that cannot be used as it is; the message names the file and the remedy."""


def images_below(folder: Path | str) -> tuple[list[Path], dict[str, list[Path]]]:
    """Every image below `folder`, sorted, and by its reason whatever was left out.

    Links are followed, each folder once. An ending makes an image: what it holds shows when it is opened.
    Raises DatasetError for a folder that this user may not read.
    """
    images: list[Path] = []
    left_out: dict[str, list[Path]] = defaultdict(list)
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=_closed, followlinks=True):
        here, real = Path(place), os.path.realpath(place)
        if real in seen:  # a link may lead back to a folder above it
            folders.clear()
            continue
        seen.add(real)
        reasons = {name: reason for name in (*folders, *files) if (reason := _left_out(name))}
        for name, reason in reasons.items():
            left_out[reason].append(here / name)
        truth = [name for name in folders if name.lower() == "ground_truth"]
        left_out[TRUTH] += [here / name for name in truth]
        folders[:] = sorted(name for name in folders if name not in {*reasons, *truth})
        for path in [here / name for name in files if name not in reasons]:
            (images if path.suffix.lower() in SUFFIXES else left_out["no image by its ending"]).append(path)
    stems = {path.with_suffix("") for path in images}
    left_out[MASKS] = [
        path for path in images if (owner := mask_owner(path)).name != path.stem and owner in stems
    ]
    masks = set(left_out[MASKS])
    left_out = {reason: in_order(paths) for reason, paths in left_out.items() if paths}
    return in_order(path for path in images if path not in masks), left_out


def _left_out(name: str) -> str:
    """Why a file or folder is left out by its name; '' for most."""
    if name[0] == "." or name.lower() in _OF_SYSTEMS:
        return HIDDEN
    return "" if is_utf8(name) else "name is not UTF-8: rename it"


def is_utf8(name: str) -> bool:
    r"""Whether records and tables can hold the name of a file; an archive of another system may bring others.

    >>> is_utf8("Gr\u00fcn.png"), is_utf8("Gr\udcfcn.png")
    (True, False)
    """
    return name.encode(errors="ignore").decode() == name


def _closed(error: OSError) -> None:
    """Raise DatasetError for a folder that cannot be listed; one that is not there holds nothing."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise DatasetError(
            f"cannot read the folder {error.filename} ({error.strerror}): let this user read it, or "
            "move it away"
        ) from error


def mask_owner(path: Path) -> Path:
    """The path, without ending, of the image that a mask of this name belongs to."""
    return path.with_name(re.sub(rf"(?is)(?<=.)({'|'.join(MASK_ENDINGS)})\Z", "", path.stem))


def sounds_good(name: str) -> bool:
    """Whether a folder of that name holds good images in some layout.

    >>> sounds_good("i.O."), sounds_good("Good parts"), sounds_good("not good")
    (True, True, False)
    """
    return re.sub(r"[\W_]", "", name.casefold()) in _SOUNDS_GOOD


def named(paths: list[Path]) -> str:
    """How many files there are, and the names of the first three."""
    names = ", ".join(f"{path.parent.name}/{path.name}" for path in paths[:3])
    return f"{len(paths)}: {names}{', ...' if len(paths) > 3 else ''}"


def open_image(path: Path | str) -> Image.Image:
    """The image as a person sees it, in RGB with 8 bits per channel.

    Raises DatasetError, naming file, value and remedy, for one that is not there, broken, no plain file, too
    big, or of a kind that has no such reading.
    """
    return decoded(Path(path)).convert("RGB")


def as_input(image: Image.Image, size: int) -> Tensor:
    """(3, size, size) uint8: the whole image, turned as the camera says, squeezed by PIL's bilinear filter.

    Raises ValueError for one that is neither grey nor RGB with 8 bits per channel.
    """
    if image.mode not in ("L", "RGB"):
        raise ValueError(f"an image of mode {image.mode}: make it grey (L) or RGB, 8 bits per channel")
    shown = ImageOps.exif_transpose(image)  # what `open_image` gives has been turned, and says so
    pixels = np.array(shown.resize((size, size), Image.Resampling.BILINEAR).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_images(paths: Sequence[Path | str], size: int) -> Tensor:
    """(N, 3, size, size) uint8 RGB in the order of `paths`. Raises what `open_image` does."""
    images = torch.empty(len(paths), 3, size, size, dtype=torch.uint8)
    for index, path in enumerate(paths):
        images[index] = as_input(open_image(path), size)
    return images


def pixel_size(path: Path | str) -> tuple[int, int]:
    """Width and height of an image as it is shown, from its header. Raises what `open_image` does."""
    return header(Path(path))[0]


def header(path: Path) -> tuple[tuple[int, int], int]:
    """Width and height of an image as it is shown, and how the camera says it is turned; 1: not at all."""
    try:
        _require_file(path)
        with Image.open(path, formats=tuple(FORMATS)) as image:
            size = image.size
            if isinstance(image, TiffImagePlugin.TiffImageFile):  # whose size Pillow 11 and newer have turned
                size = image.tag_v2[256], image.tag_v2[257]
            turn = image.getexif().get(ExifTags.Base.Orientation, 1)
            return (size[::-1] if turn in ACROSS else size), (turn if turn in range(2, 9) else 1)
    except DatasetError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def decoded(path: Path) -> Image.Image:
    """The decoded image, turned, opaque and of 8 bits. Raises DatasetError as `open_image` does."""
    try:
        _require_file(path)
        # a file, not its name: Pillow 11 to 13 map a plain TIFF into memory by its turned size, scrambled
        with path.open("rb") as file, Image.open(file, formats=tuple(FORMATS)) as image:
            _require_one_reading(path, image)
            image.load()
            shown = ImageOps.exif_transpose(image)
            shown.format = image.format
            if shown.has_transparency_data and shown.convert("RGBA").getchannel("A").getextrema()[0] != 255:
                raise _unreadable(path, "transparent pixels", "lay it on the background that belongs to it")
    except DatasetError:
        raise
    except Exception as error:  # damage shows in any way, from OSError to struct.error
        raise _unreadable(path, error) from error
    return shown


def _require_file(path: Path) -> None:
    """Raise DatasetError for what is not there, and for what is no file."""
    if not path.exists():
        told = (
            "is a link to nothing: mend the link" if path.is_symlink() else "does not exist: check its name"
        )
        raise DatasetError(f"{path} {told}")
    if not path.is_file():  # opening a pipe would wait for a writer
        raise _unreadable(path, "no plain file", "name a file")


def _require_one_reading(path: Path, image: ImageFile.ImageFile) -> None:
    """Raise DatasetError for an image that is whole, and that a network would not see as a person does."""
    if image.width * image.height > MAX_PIXELS:
        told = f"{image.width} x {image.height} pixels, at most {MAX_PIXELS} are read"
        raise _unreadable(path, told, _SMALLER)
    # PIL would clip them to white; of colours it would keep the upper half
    if image.mode.startswith(("I", "F")) or re.search(r";16[BLN]", str(image.tile)):
        raise _unreadable(path, f"mode {image.mode}, 16 or 32 bits", "convert it to 8 bits per channel")
    if image.mode not in _MODES:
        raise _unreadable(path, f"mode {image.mode}", "convert it to grey or RGB")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO: a camera's extra previews
        raise _unreadable(path, "several frames", "save the one that counts")


def _unreadable(path: Path, reason: str | Exception, remedy: str = "") -> DatasetError:
    """What a decoder's error asks for follows from its kind; without another one the file is damaged."""
    known: dict[type, str] = {
        Image.DecompressionBombError: _SMALLER,
        PermissionError: "let this user read it",
    }
    told = remedy or known.get(type(reason), "mend it, or fetch or extract it again")
    return DatasetError(f"{path} is not a readable image ({reason}): {told}")

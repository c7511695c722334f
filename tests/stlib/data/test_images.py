"""Every image is read by one set of rules; whatever could be misread is refused by name."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stlib.data.images import DatasetError, images_below, open_image, pixel_size, read_images
from stlib.data.masks import read_mask

SHADES = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def read_image(path: Path, size: int) -> np.ndarray:
    """(size, size, 3): one image as every caller reads it."""
    return read_images([path], size)[0].permute(1, 2, 0).numpy()


def test_every_format_is_found_by_its_ending_in_any_case_and_read(tmp_path: Path):
    names = ("a.png", "b.PNG", "c.Jpg", "d.jpeg", "e.jfif", "f.bmp", "g.tif", "h.TIFF", "i.webp")
    for name in names:
        Image.fromarray(SHADES).save(tmp_path / name, {".jfif": "JPEG"}.get(Path(name).suffix))
    found, left_out = images_below(tmp_path)
    assert [path.name for path in found] == list(names)
    assert left_out == {}
    whole = read_images(found, 8).float()
    assert (whole - whole[0]).abs().max() < 30  # JPEG and WebP lose a little


def test_what_is_left_out_is_named_and_links_are_followed_once(tmp_path: Path):
    folder, elsewhere = tmp_path / "good", tmp_path / "elsewhere"
    for path in (folder / "sub" / "a.png", elsewhere / "b.png", folder / ".ipynb_checkpoints" / "c.png"):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    for name in ("._a.png", "Thumbs.db", "notes.txt", "photo.heic"):
        (folder / name).write_bytes(b"")
    (folder / "link").symlink_to(elsewhere)
    (folder / "loop").symlink_to(folder)
    found, left_out = images_below(folder)
    assert [path.relative_to(folder).as_posix() for path in found] == ["link/b.png", "sub/a.png"]
    told = {reason: [path.name for path in paths] for reason, paths in left_out.items()}
    assert sorted(told["hidden, or of the system"]) == ["._a.png", ".ipynb_checkpoints", "Thumbs.db"]
    assert told["no image by its ending"] == ["notes.txt", "photo.heic"]


@pytest.mark.parametrize("ending", ["_mask", "_label", "_Label", "_MASK", "_GT", "_gt"])
def test_a_mask_beside_its_image_is_no_photograph_whatever_the_case_of_its_ending(
    tmp_path: Path, ending: str
):
    for name in ("Part0.jpg", f"Part0{ending}.bmp", f"alone{ending}.png", f"{ending}.png"):
        (tmp_path / name).write_bytes(b"")
    found, left_out = images_below(tmp_path)
    assert {path.name for path in found} == {"Part0.jpg", f"alone{ending}.png", f"{ending}.png"}
    assert [path.name for path in left_out["masks beside their images"]] == [f"Part0{ending}.bmp"]


def test_names_that_no_record_can_hold_are_left_out(tmp_path: Path):
    for name in (b"caf\xe9.png", b"\xfc/a.png", "Gr\u00fcn.png".encode()):
        path = tmp_path / os.fsdecode(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    found, left_out = images_below(tmp_path)
    assert [path.name for path in found] == ["Gr\u00fcn.png"]
    assert [os.fsencode(path.name) for path in left_out["name is not UTF-8: rename it"]] == [
        b"caf\xe9.png",
        b"\xfc",
    ]


def test_a_folder_that_may_not_be_read_is_named_and_does_not_vanish(tmp_path: Path, monkeypatch):
    closed, scandir = tmp_path / "good" / "closed", os.scandir
    closed.mkdir(parents=True)

    def refuse(place: str) -> object:  # tests may run as root, who reads every folder
        if Path(place) == closed:
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetError, match=rf"folder {closed} \(Permission denied\): let this user read it"):
        images_below(tmp_path / "good")
    assert images_below(tmp_path / "absent") == ([], {})


def turned(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = turn
    return exif


@pytest.mark.parametrize(
    ("turn", "back"),
    [
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_270),
        (8, Image.Transpose.ROTATE_90),
    ],
)
def test_a_photograph_is_read_as_the_camera_was_held(tmp_path: Path, turn: int, back: Image.Transpose):
    stored = Image.fromarray(SHADES)
    stored.save(tmp_path / "a.png", exif=turned(turn))
    stored.transpose(back).save(tmp_path / "b.png")
    assert np.array_equal(read_image(tmp_path / "a.png", 16), read_image(tmp_path / "b.png", 16))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_the_size_in_the_header_is_that_of_the_image_as_it_is_opened(tmp_path: Path, name: str, turn: int):
    Image.fromarray(SHADES).save(tmp_path / name, exif=turned(turn))
    shown = (8, 6) if turn < 5 else (6, 8)
    assert pixel_size(tmp_path / name) == open_image(tmp_path / name).size == shown


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_tiff_is_turned_as_a_png_and_not_scrambled(
    tmp_path: Path, turn: int, compression: str | None, mode: str
):
    stored = Image.fromarray(SHADES).convert(mode)
    stored.save(tmp_path / "a.png", exif=turned(turn))
    stored.save(tmp_path / "a.tif", exif=turned(turn), compression=compression)
    assert open_image(tmp_path / "a.tif").tobytes() == open_image(tmp_path / "a.png").tobytes()


def hostile(path: Path, width: int, height: int, depth: int = 8, colour: int = 0) -> Path:
    """A PNG of a few bytes that claims this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b""))
    return path


PLAIN, OTHER = Image.new("RGB", (8, 8), (9, 99, 199)), Image.new("RGB", (8, 8))
PALETTE = PLAIN.convert("P")
REFUSED = {
    "transparent": lambda path: Image.new("RGBA", (8, 8), (9, 99, 199, 9)).save(path),
    "a transparent colour": lambda path: PALETTE.save(path, transparency=PALETTE.getpixel((0, 0))),
    "frames": lambda path: PLAIN.save(path, save_all=True, append_images=[OTHER]),
    "CMYK": lambda path: PLAIN.convert("CMYK").save(path, "TIFF"),
    "EPS": lambda path: PLAIN.save(path, "EPS"),
    "16 bits": lambda path: Image.fromarray(np.full((8, 8), 3000, np.uint16)).save(path),
    "RGB of 16 bits": lambda path: hostile(path, 8, 8, depth=16, colour=2),  # PIL reads such and writes none
    "pipe": os.mkfifo,
}
"""What writes an image of a kind that has no single reading."""


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("transparent", r"\(transparent pixels\): lay it on the background that belongs to it"),
        ("a transparent colour", r"\(transparent pixels\): lay it on the background that belongs to it"),
        ("frames", r"\(several frames\): save the one that counts"),
        ("CMYK", r"\(mode CMYK\): convert it to grey or RGB"),
        ("EPS", r"\(cannot identify .*\): mend it, or fetch or extract it again"),
        ("16 bits", r"\(mode I;16, 16 or 32 bits\): convert it to 8 bits per channel"),
        ("RGB of 16 bits", r"\(mode RGB, 16 or 32 bits\): convert it to 8 bits per channel"),
        ("pipe", r"\(no plain file\): name a file"),
    ],
)
def test_what_has_no_single_reading_is_refused_by_name_with_its_own_remedy(
    tmp_path: Path, read, kind: str, told: str
):
    REFUSED[kind](tmp_path / "a.png")
    with pytest.raises(DatasetError, match=rf"a\.png is not a readable image {told}$"):
        read(tmp_path / "a.png", 8)


@pytest.mark.parametrize("read", [read_image, read_mask, lambda path, _: pixel_size(path)])
def test_a_file_that_is_not_there_is_not_called_unreadable(tmp_path: Path, read):
    with pytest.raises(DatasetError, match=r"a\.png does not exist: check its name$"):
        read(tmp_path / "a.png", 8)
    (tmp_path / "a.png").symlink_to("b.png")
    with pytest.raises(DatasetError, match=r"a\.png is a link to nothing: mend the link$"):
        read(tmp_path / "a.png", 8)


def test_colour_images_keep_their_channel_order(tmp_path: Path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., 0], pixels[..., 2] = 200, 10
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 4)[0, 0].tolist() == [200, 0, 10]


def test_a_wide_image_is_resized_whole_and_not_cropped(tmp_path: Path):
    # Left third dark, right third bright: both must survive, each as a third of the square.
    pixels = np.full((300, 900), 100, np.uint8)
    pixels[:, :300], pixels[:, 600:] = 0, 250
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    image = read_image(tmp_path / "wide.png", 256)
    assert image.shape == (256, 256, 3)
    assert (image[:, :80] == 0).all()
    assert (image[:, 180:] == 250).all()
    assert (image[:, 90:165] == 100).all()


@pytest.mark.parametrize(
    ("mode", "value"), [("1", 1), ("L", 77), ("LA", (77, 255)), ("RGBA", (77, 77, 77, 255))]
)
def test_opaque_modes_of_eight_bits_are_read(tmp_path: Path, mode: str, value: object):
    Image.new(mode, (8, 8), value).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png", 4) == (255 if mode == "1" else 77)).all()


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (0, 5, "cannot identify"),
        (8193, 8193, "8193 x 8193 pixels, at most 67108864 are read"),
        (100_000, 100_000, "decompression bomb"),
    ],
)
def test_an_image_without_pixels_or_with_too_many_is_refused_by_name(
    tmp_path: Path, width: int, height: int, reason: str
):
    path = hostile(tmp_path / "a.png", width, height)
    remedy = "mend it" if reason == "cannot identify" else "make it smaller, or cut it$"
    with pytest.raises(DatasetError, match=rf"a\.png is not a readable image \(.*{reason}.*\): {remedy}"):
        read_image(path, 8)

"""The MVTec AD reader on hand-made folders."""

import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stlib.data import mvtec
from stlib.data.mvtec import (
    MASK_RULES,
    DatasetError,
    fingerprint,
    load_category,
    read_image,
    read_mask,
    scan,
    with_mask_rule,
)
from stlib.protocol import CATEGORIES


@pytest.fixture
def root(tmp_path: Path, make_category) -> Path:
    """A dataset with one category, 'plate': 3 + (2 good, 2 turned, 1 a_first) images."""
    return make_category(tmp_path, train=3, good=2, defects={"turned": 2, "a_first": 1})


def test_a_category_comes_back_in_file_order_with_shapes_and_types(root: Path):
    category = load_category(root, "plate", image_size=32)
    assert (category.train.shape, category.train.dtype) == ((3, 3, 32, 32), torch.uint8)
    assert (category.test.shape, category.test.dtype) == ((5, 3, 32, 32), torch.uint8)
    assert (category.masks.shape, category.masks.dtype) == ((5, 32, 32), torch.bool)
    assert [item.defect for item in category.layout.test] == ["a_first", "good", "good", "turned", "turned"]
    assert category.labels.tolist() == [True, False, False, True, True]
    assert category.masks.flatten(1).any(1).tolist() == category.labels.tolist()


def test_images_without_resizing_are_the_pixels_of_the_files(root: Path):
    category = load_category(root, "plate", image_size=64)
    for tensor, path in zip(category.train, category.layout.train, strict=True):
        grey = np.asarray(Image.open(path))
        assert grey.ndim == 2  # stored grey, as grid, screw and zipper are
        assert all(np.array_equal(channel, grey) for channel in tensor.numpy())
    for mask, item in zip(category.masks, category.layout.test, strict=True):
        expected = np.zeros((64, 64), bool) if item.mask is None else np.asarray(Image.open(item.mask)) > 0
        assert np.array_equal(mask.numpy(), expected)


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


def save_mask(path: Path, mask: np.ndarray) -> Path:
    Image.fromarray((mask * 255).astype(np.uint8)).save(path)
    return path


def test_mask_rules_on_a_hand_made_mask(tmp_path: Path):
    # 8x8 -> 4x4: every output pixel covers 2x2 inputs. Columns of defective pixels: 0, 1, 2 of row block 0.
    # Bilinear without antialias at half size is the mean of the 2x2 block: 1, 1/2, 0, 0.
    mask = np.zeros((8, 8), bool)
    mask[:2, :3] = True
    mask[6, 6] = True  # a quarter of the last block
    path = save_mask(tmp_path / "m.png", mask)
    read = {rule: read_mask(path, 4, rule) for rule in MASK_RULES}
    assert np.argwhere(read["any"]).tolist() == [[0, 0], [0, 1], [3, 3]]
    assert np.argwhere(read["full"]).tolist() == [[0, 0]]
    # PIL's filter is a triangle of the double width: block 1 gets 1/2 of column 2 and 3 and some of 0, 1:
    # (3/8 of 2 + 1/8 of 1) per row, and rows lose as much at the border as they gain.
    assert read["half"][0, 0]
    assert not read["half"][3, 3]
    assert not read["half"][1:3].any()


def test_a_pixel_of_a_mask_counts_from_grey_value_128(tmp_path: Path):
    Image.fromarray(np.array([[127, 128], [0, 255]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", 2).tolist() == [[False, True], [False, True]]


def test_rules_are_nested_and_half_equals_torchvisions_antialiased_resize(tmp_path: Path):
    rng = np.random.default_rng(0)
    mask = np.zeros((300, 421), bool)
    for _ in range(12):
        row, column, high, wide = rng.integers((0, 0, 1, 1), (280, 400, 60, 60))
        mask[row : row + high, column : column + wide] = True
    path = save_mask(tmp_path / "m.png", mask)
    read = {rule: read_mask(path, 128, rule) for rule in MASK_RULES}
    assert all(array.shape == (128, 128) and array.dtype == bool for array in read.values())
    assert not (read["full"] & ~read["any"]).any()
    assert read["full"].sum() < read["half"].sum() < read["80/255"].sum() < read["any"].sum()
    pixels = torch.from_numpy(mask).float()[None, None]
    antialiased = torch.nn.functional.interpolate(
        pixels, (128, 128), mode="bilinear", align_corners=False, antialias=True
    )
    # PIL rounds to whole grey values between its two passes: at most a few border pixels may differ.
    assert (read["half"] != (antialiased[0, 0] >= 0.5).numpy()).mean() < 2e-3


def test_of_a_mask_that_was_resized_before_80_of_255_is_the_official_rule_and_any_is_not(tmp_path: Path):
    rows, columns = np.mgrid[:1000, :1000]
    discs = [(200, 300, 40), (600, 500, 12), (800, 200, 90), (400, 800, 25)]
    mask = np.any([(rows - y) ** 2 + (columns - x) ** 2 < r**2 for y, x, r in discs], axis=0)
    path = save_mask(tmp_path / "m.png", mask)
    official = read_mask(path, 256, "any")
    Image.open(path).resize((256, 256), Image.Resampling.BILINEAR).save(tmp_path / "small.png")
    near, wide = (read_mask(tmp_path / "small.png", 256, rule) for rule in ("80/255", "any"))
    assert np.array_equal(near, read_mask(path, 256, "80/255"))  # the same on both kinds of files
    assert (near & official).sum() / (near | official).sum() > 0.9
    assert wide.sum() - official.sum() > 4 * abs(near.sum() - official.sum())


@pytest.mark.parametrize("rule", MASK_RULES)
@pytest.mark.parametrize("side", [64, 700, 1023])
def test_a_full_mask_stays_full_and_an_empty_one_empty(tmp_path: Path, rule: mvtec.MaskRule, side: int):
    assert read_mask(save_mask(tmp_path / "f.png", np.ones((side, side), bool)), 64, rule).all()
    assert not read_mask(save_mask(tmp_path / "e.png", np.zeros((side, side), bool)), 64, rule).any()


def test_another_rule_applies_to_the_same_files(tmp_path: Path, make_category):
    root = make_category(tmp_path, train=1, good=1, defects={"turned": 3}, size=90)
    category = load_category(root, "plate", image_size=64)
    wide, narrow = with_mask_rule(category, "any"), with_mask_rule(category, "full")
    assert torch.equal(with_mask_rule(category, "half"), category.masks)
    assert narrow.sum() < category.masks.sum() < wide.sum()
    assert not (narrow & ~wide).any()


def test_an_absent_category_names_the_folder_and_the_remedy(tmp_path: Path):
    with pytest.raises(
        DatasetError, match=r"no category 'plate' under .*plate/train/good.*stlib data download"
    ):
        scan(tmp_path, "plate")


@pytest.mark.parametrize("part", ["train/good", "test"])
def test_an_empty_part_names_the_folder(root: Path, part: str):
    shutil.rmtree(root / "plate" / part)
    with pytest.raises(
        DatasetError, match=rf"plate/{part} holds no \.png image: is the dataset fully extracted"
    ):
        load_category(root, "plate")


def test_a_missing_mask_names_the_image_and_the_mask(root: Path):
    (root / "plate/ground_truth/turned/001_mask.png").unlink()
    with pytest.raises(DatasetError, match=r"test/turned/001\.png has no mask .*turned/001_mask\.png: run"):
        load_category(root, "plate")


@pytest.mark.parametrize(
    "name", ["train/good/001.png", "test/turned/000.png", "ground_truth/turned/000_mask.png"]
)
@pytest.mark.parametrize("content", [b"", b"no image", "half", "header"])
def test_an_unreadable_file_is_named(root: Path, name: str, content: bytes | str):
    path = root / "plate" / name
    good = path.read_bytes()
    path.write_bytes(
        content if isinstance(content, bytes) else good[: len(good) // 2] if content == "half" else good[:18]
    )
    with pytest.raises(DatasetError, match=rf"{name} is not a readable image .*again"):
        load_category(root, "plate")


def hostile(path: Path, width: int, height: int) -> Path:
    """A PNG of a few bytes that claims this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(
    ("width", "height", "reason"),
    [
        (0, 5, "cannot identify"),
        (0, 0, "cannot identify"),
        (8193, 8193, "8193 x 8193 pixels, at most 67108864 are read"),
        (100_000, 100_000, "decompression bomb"),
    ],
)
def test_an_image_without_pixels_or_with_too_many_is_refused_by_name(
    tmp_path: Path, width: int, height: int, reason: str
):
    path = hostile(tmp_path / "a.png", width, height)
    with pytest.raises(DatasetError, match=rf"a\.png is not a readable image \(.*{reason}"):
        read_image(path, 8)


@pytest.mark.parametrize(("mode", "value"), [("1", 1), ("L", 77), ("LA", (77, 9)), ("RGBA", (77, 77, 77, 9))])
def test_modes_of_eight_bits_are_read(tmp_path: Path, mode: str, value: object):
    Image.new(mode, (8, 8), value).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png", 4) == (255 if mode == "1" else 77)).all()


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_an_image_of_sixteen_bits_is_refused_and_not_clipped_to_white(tmp_path: Path, read):
    Image.fromarray(np.full((8, 8), 3000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"a\.png is not .*mode I;16, convert it to 8 bits per channel"):
        read(tmp_path / "a.png", 4)


def test_gaps_are_differences_from_the_official_counts(tmp_path: Path, make_category):
    make_category(tmp_path, "bottle", train=3, good=20, defects={"broken": 2}, size=16)
    assert scan(tmp_path, "bottle").missing_images() == [
        "train/good: 3 of 209 images",
        "test defects: 2 of 63 images",
    ]


def test_a_category_of_another_dataset_has_no_gaps(root: Path):
    assert scan(root, "plate").missing_images() == []


def test_the_official_counts_add_up():
    counts = CATEGORIES.values()
    assert sum(c.train_good for c in counts) == 3629
    assert sum(c.test_good for c in counts) == 467
    assert sum(c.test_defect for c in counts) == 1258


def test_the_dataset_is_known_by_category_or_marker(root: Path, make_category):
    assert scan(root, "plate").dataset == "other"
    (root / mvtec.DEMO_MARKER).write_text("{}")
    assert scan(root, "plate").dataset == "demo"
    make_category(root, "bottle", train=1, good=1, size=16)
    assert scan(root, "bottle").dataset == "MVTec AD"


def test_the_fingerprint_follows_content_and_names_only(root: Path, tmp_path_factory: pytest.TempPathFactory):
    original = fingerprint(scan(root, "plate"))
    copy = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(root / "plate", copy / "plate")
    assert fingerprint(scan(copy, "plate")) == original
    for path in (copy / "plate").rglob("*.png"):
        os.utime(path, (1, 1))
    assert fingerprint(scan(copy, "plate")) == original

    seen = {original}
    mask = copy / "plate/ground_truth/turned/000_mask.png"
    mask.write_bytes(mask.read_bytes() + b"\0")
    seen.add(fingerprint(scan(copy, "plate")))
    (copy / "plate/train/good/002.png").rename(copy / "plate/train/good/003.png")
    seen.add(fingerprint(scan(copy, "plate")))
    (copy / "plate/train/good/003.png").unlink()
    seen.add(fingerprint(scan(copy, "plate")))
    assert len(seen) == 4

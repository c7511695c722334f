"""A mask says which pixels are defective, or is refused by name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from stlib.data.images import DatasetError
from stlib.data.masks import MASK_RULES, MaskRule, fits_unturned, read_mask


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


@pytest.mark.parametrize(("rule", "lowest"), [("half", 128), ("80/255", 80)])
def test_a_pixel_of_a_mask_counts_from_the_grey_value_of_its_rule(
    tmp_path: Path, rule: MaskRule, lowest: int
):
    Image.fromarray(np.array([[lowest - 1, lowest], [0, 255]], np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", 2, rule).tolist() == [[False, True], [False, True]]


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


@pytest.mark.parametrize("rule", MASK_RULES)
@pytest.mark.parametrize("side", [64, 700, 1023])
def test_a_full_mask_stays_full_and_an_empty_one_empty(tmp_path: Path, rule: MaskRule, side: int):
    assert read_mask(save_mask(tmp_path / "f.png", np.ones((side, side), bool)), 64, rule).all()
    assert not read_mask(save_mask(tmp_path / "e.png", np.zeros((side, side), bool)), 64, rule).any()


AREA = np.s_[10:20, 10:30]


def encoded(path: Path, kind: str) -> Path:
    """A mask of AREA in 40 x 40 pixels, as another tool would write it."""
    inside = np.zeros((40, 40), np.uint8)
    inside[AREA] = 1
    if kind == "1 bit":
        image = Image.fromarray(inside * 255).convert("1")
    elif kind in ("palette", "colours"):
        image = Image.fromarray(inside, "P")
        image.putpalette([0, 0, 0, 255, 255, 255] if kind == "palette" else [0, 0, 0, 200, 30, 30])
    elif kind == "smoothed":
        image = Image.fromarray(inside * 255).resize((400, 400), Image.Resampling.BILINEAR).resize((40, 40))
    else:
        image = Image.fromarray(inside * int(kind))
    image.save(path)
    return path


@pytest.mark.parametrize("kind", ["255", "1", "77", "1 bit", "palette", "colours", "smoothed"])
def test_a_mask_may_mark_by_any_second_value(tmp_path: Path, kind: str):
    expected = np.zeros((40, 40), bool)
    expected[AREA] = True
    assert np.array_equal(read_mask(encoded(tmp_path / "m.png", kind), 40), expected)


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ([0, 1, 2], "values 0, 1, 2"),
        ([0, 100, 200], "area of the value 100 among the values 0, 100, 200"),
        ([0, 20, 255], "area of the value 20 among the values 0, 20, 255"),
        ([77, 77, 77], "values 77"),
        ([[0, 0, 0], [200, 0, 0], [0, 200, 0]], "several colours"),
    ],
)
def test_a_mask_that_does_not_say_what_is_defective_is_refused(tmp_path: Path, classes: list, told: str):
    values = np.zeros((40, 40), np.uint8)
    values[AREA], values[30:] = 1, 2
    Image.fromarray(np.array(classes, np.uint8)[values]).save(tmp_path / "m.png")
    with pytest.raises(DatasetError, match=rf"m\.png has .*{told}.*by two values"):
        read_mask(tmp_path / "m.png", 40)


def test_only_where_a_format_loses_a_little_dark_grey_is_black(tmp_path: Path):
    values = np.zeros((40, 40), np.uint8)
    values[AREA], values[30:] = 255, 20
    Image.fromarray(values).save(tmp_path / "m.jpg")
    read = read_mask(tmp_path / "m.jpg", 40)
    assert (read[15, 20], read[30:].any()) == (True, False)
    values[30:], values[:5] = 0, 248  # LOCO's masks, merged
    Image.fromarray(values).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", 40)[[2, 15], 20].all()


@pytest.mark.parametrize("smooth", [1, 3, 5])
def test_a_blurred_mask_is_no_mask_of_classes(tmp_path: Path, smooth: int):
    inside = np.zeros((200, 200), np.uint8)
    inside[60:130, 50:160] = 255
    Image.fromarray(inside).filter(ImageFilter.GaussianBlur(smooth)).save(tmp_path / "m.png")
    assert (read_mask(tmp_path / "m.png", 200) == (inside > 0)).mean() > 0.99


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("square", [True, False])
def test_a_size_tells_on_which_pixels_a_mask_was_made_or_leaves_it_open(
    tmp_path: Path, turn: int, square: bool
):
    exif = Image.Exif()
    exif[0x0112] = turn
    photo = Image.new("L", (40, 40) if square else (60, 40))
    photo.save(tmp_path / "a.jpg", exif=exif)
    photo.save(tmp_path / "m.png")
    photo.save(tmp_path / "turned.png", exif=exif)
    assert fits_unturned(tmp_path / "a.jpg", tmp_path / "m.png") == (turn > 1 and (square or turn < 5))
    assert not fits_unturned(tmp_path / "a.jpg", tmp_path / "turned.png")


def test_a_mask_has_the_size_of_its_image_as_it_is_shown(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (60, 40)).save(tmp_path / "turned.jpg", exif=exif)
    mask = encoded(tmp_path / "m.png", "255")
    with pytest.raises(DatasetError, match=r"m\.png has 40 x 40 pixels and its image 40 x 60"):
        read_mask(mask, 40, of=tmp_path / "turned.jpg")
    Image.new("L", (40, 60), 255).save(mask)
    assert read_mask(mask, 40, of=tmp_path / "turned.jpg").any()


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

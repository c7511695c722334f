"""Foreign textures: read from DTD's folder, or drawn."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from stlib.data import textures
from stlib.data.images import DatasetError
from stlib.data.textures import DRAWN, load_textures


@pytest.fixture
def dtd(tmp_path: Path) -> Path:
    """Two textures in two classes; the second is redder."""
    for index, name in enumerate(("banded/a.jpg", "dotted/b.jpg")):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True)
        Image.new("RGB", (40, 20), (100 * index, 0, 0)).save(path)
    return tmp_path


def test_textures_are_read_whole_and_in_order(dtd: Path):
    read, info = load_textures(dtd, 16)
    assert read.shape == (2, 3, 16, 16)
    assert read[1, 0].float().mean() > read[0, 0].float().mean() + 80
    assert (info.source, info.images) == ("DTD", 2)


def test_the_fingerprint_knows_contents_and_names_but_not_the_place_or_size(dtd: Path, tmp_path: Path):
    before = load_textures(dtd, 16)[1].fingerprint
    assert load_textures(str(dtd), 8)[1].fingerprint == before
    (dtd / "images/banded/a.jpg").rename(dtd / "images/banded/c.jpg")
    renamed = load_textures(dtd, 16)[1].fingerprint
    Image.new("RGB", (40, 20), (1, 2, 3)).save(dtd / "images/banded/c.jpg")
    assert len({before, renamed, load_textures(dtd, 16)[1].fingerprint}) == 3


def test_a_folder_without_textures_is_refused(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"images holds no image: name DTD's folder by --textures"):
        load_textures(tmp_path, 16)


def test_drawn_textures_are_the_same_in_every_run_and_differ_from_each_other(monkeypatch):
    drawn, info = load_textures("demo", 32)
    assert (info.source, info.images, drawn.dtype) == ("demo", DRAWN, torch.uint8)
    assert drawn.shape == (DRAWN, 3, 32, 32)
    assert len(drawn.flatten(1).unique(dim=0)) == DRAWN
    # flat grey patches would teach nothing
    assert (drawn.float().std(dim=(2, 3)).amax(1) > 2).float().mean() > 0.95
    monkeypatch.setattr(textures, "DRAWN", 9)
    assert torch.equal(textures._drawn.__wrapped__(32)[0], drawn[:9])

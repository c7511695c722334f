"""Maps that runs leave behind: which images, kept exactly, and never two kinds of data side by side."""

from dataclasses import replace

import numpy as np
import pytest

from study.figures import images
from study.figures.images import KeptMaps, first_of_each


@pytest.fixture
def kept():
    """Two images of side 8, the first with a defect."""
    masks = np.zeros((2, 8, 8), bool)
    masks[0, 2:4, 2:4] = True
    rates = np.linspace(0, 1, 128, dtype=np.float32).reshape(2, 8, 8)
    images = np.full((2, 8, 8, 3), 120, np.uint8)
    layers = np.stack([rates] * 4, axis=1)
    return KeptMaps("stpm", "f" * 64, ("bent/000.png", "good/000.png"), images, masks, rates, layers)


def test_the_first_of_every_kind_whatever_the_order():
    names = ["good/001.png", "scratch/002.png", "bent/000.png", "good/000.png", "scratch/000.png"]
    assert first_of_each(names) == [2, 4, 3]


def test_what_is_kept_comes_back_bit_for_bit(kept, tmp_path, make_record):
    path = images.path_of(make_record("bottle", 0), tmp_path)
    images.write(kept, path)
    again = images.read(path)
    assert (again.method, again.fingerprint, again.names) == (kept.method, kept.fingerprint, kept.names)
    for name in ("images", "masks", "rates", "layers"):
        assert np.array_equal(getattr(again, name), getattr(kept, name))
    found = images.load_maps(tmp_path, "bottle", profile="paper")
    assert [one.method for one in found] == ["stpm"]  # the other methods left nothing
    assert images.load_maps(tmp_path, "bottle", profile="demo") == []


def test_a_map_is_kept_as_the_share_of_normal_pixels_that_score_as_high(make_record):
    masks = np.zeros((2, 2, 2), bool)
    masks[0, 0, 0] = True
    maps = np.array([[[9, 4], [3, 3]], [[2, 1], [1, 0]]], np.float32)
    names = ["bent/000.png", "good/000.png"]
    layers = np.stack([maps, maps.max() - maps], axis=1)
    kept = images.choose(
        make_record(), names, np.zeros((2, 2, 2, 3), np.uint8), masks, maps=maps, layers=layers
    )
    assert kept.rates[0].ravel().tolist() == pytest.approx([0, 1 / 7, 3 / 7, 3 / 7])
    assert kept.rates[1].ravel().tolist() == pytest.approx([4 / 7, 6 / 7, 6 / 7, 1])
    assert np.array_equal(kept.layers[:, 0], kept.rates)
    assert kept.layers[0, 1].ravel().tolist() == pytest.approx([1, 1, 6 / 7, 6 / 7])  # the other way round
    assert kept.layers.shape == (2, 3, 2, 2)  # two levels and their product


def test_a_level_is_a_column_and_only_a_segmentation_net_adds_one(kept):
    assert len(images.levels(kept, rows=1).axes) == 2 + 4 + 1
    titles = [axis.get_title() for axis in images.levels(replace(kept, method="pfadseg"), rows=1).axes]
    assert titles[-2] == "segmentation net"


def test_a_region_is_found_from_more_than_half_of_it_on(kept):
    figure = images.found(kept, shares=(0.2, 0.5, 0.75))
    assert [axis.get_title() for axis in figure.axes] == [
        "25% marked: not found",
        "50% marked: not found",
        "75% marked: found",
    ]


def test_a_region_joins_diagonal_neighbours_as_the_metric_does(kept):
    diagonal = replace(kept, masks=np.stack([np.eye(8, dtype=bool)] * 2))
    (outline,) = images.found(diagonal).axes[0].collections
    assert len(outline.get_paths()[0].vertices) > 4 * 8  # around all eight pixels, not around one


def test_methods_of_other_sides_share_a_picture_on_one_scale(kept):
    coarse = replace(kept, method="destseg", images=kept.images[:, ::2, ::2], rates=kept.rates[:, ::2, ::2])
    figure = images.side_by_side([coarse, kept])
    panels = np.array(figure.axes[:8]).reshape(2, 4)
    assert [axis.get_title() for axis in panels[0]] == ["image", "true defect", "DeSTSeg", "STPM"]
    assert [axis.get_ylabel() for axis in panels[:, 0]] == ["bent/000", "good/000"]
    scales = {(axis.images[0].norm.vmin, axis.images[0].norm.vmax) for axis in panels[:, 2:].ravel()}
    assert scales == {(images.RAREST, 1)}
    assert panels[0, 0].images[0].get_array().shape == (8, 8, 3)  # the finest images are shown
    assert [bool(axis.collections) for axis in panels[:, 1]] == [True, False]


def test_other_data_or_nothing_is_refused(kept):
    with pytest.raises(ValueError, match="same images"):
        images.side_by_side([kept, replace(kept, fingerprint="0" * 64)])
    with pytest.raises(ValueError, match="none were kept"):
        images.side_by_side([])

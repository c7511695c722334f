"""Pictures of the maps that runs leave behind: one scale, and never two kinds of data side by side."""

from dataclasses import replace

import numpy as np
import pytest

from study.figures import images


def test_a_level_is_a_column_and_only_a_segmentation_net_adds_one(kept):
    assert len(images.levels(kept, rows=1).axes) == 2 + 4 + 1
    titles = [axis.get_title() for axis in images.levels(replace(kept, method="pfadseg"), rows=1).axes]
    assert titles[-2] == "segmentation net"
    assert len(images.levels(replace(kept, method="patchcore"), rows=1).axes) == 2 + 4 + 1


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


def test_without_masks_no_column_says_that_there_is_no_defect(kept):
    bare = replace(kept, masks=np.zeros_like(kept.masks))
    of_maps = images.side_by_side([bare])
    maps = np.ones((2, 8, 8))
    of_run = images.gallery(bare.images, bare.masks, maps, kept.names, rows=kept.names)
    for figure in (of_maps, of_run):
        assert figure.axes[1].get_title() == "no mask"
    assert of_maps.axes[-1].get_xlabel() == "share of all pixels that score at least as high"


def test_other_data_or_nothing_is_refused(kept):
    with pytest.raises(ValueError, match="same images"):
        images.side_by_side([kept, replace(kept, fingerprint="0" * 64)])
    with pytest.raises(ValueError, match="none were kept"):
        images.side_by_side([])

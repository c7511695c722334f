"""Maps that runs leave behind: which images, and kept exactly."""

import numpy as np
import pytest

from study.maps import choose_maps, demo_maps, first_of_each, path_of_maps, read_maps, write_maps


def test_the_first_of_every_kind_whatever_the_order():
    names = ["good/001.png", "scratch/002.png", "bent/000.png", "good/000.png", "scratch/000.png"]
    assert first_of_each(names) == [2, 4, 3]


def test_what_is_kept_comes_back_bit_for_bit(kept, tmp_path, make_record, monkeypatch):
    monkeypatch.setattr("study.maps.BUILD", tmp_path)
    path = path_of_maps(make_record("washer", profile="demo").path, tmp_path / "runs")
    write_maps(kept, path)
    again = read_maps(path)
    assert (again.method, again.fingerprint, again.names) == (kept.method, kept.fingerprint, kept.names)
    for name in ("images", "masks", "rates", "layers"):
        assert np.array_equal(getattr(again, name), getattr(kept, name))
    assert [one.method for one in demo_maps()] == ["stpm"]  # the other methods left nothing
    assert demo_maps("pfadseg") == []


def test_a_map_is_kept_as_the_share_of_normal_pixels_that_score_as_high(make_record):
    masks = np.zeros((2, 2, 2), bool)
    masks[0, 0, 0] = True
    maps = np.array([[[9, 4], [3, 3]], [[2, 1], [1, 0]]], np.float32)
    names = ["bent/000.png", "good/000.png"]
    layers = np.stack([maps, maps.max() - maps], axis=1)
    kept = choose_maps(
        make_record(), names, np.zeros((2, 2, 2, 3), np.uint8), masks, maps=maps, layers=layers
    )
    assert kept.rates[0].ravel().tolist() == pytest.approx([0, 1 / 7, 3 / 7, 3 / 7])
    assert kept.rates[1].ravel().tolist() == pytest.approx([4 / 7, 6 / 7, 6 / 7, 1])
    assert np.array_equal(kept.layers[:, 0], kept.rates)
    assert kept.layers[0, 1].ravel().tolist() == pytest.approx([1, 1, 6 / 7, 6 / 7])  # the other way round
    assert kept.layers.shape == (2, 3, 2, 2)  # two levels and their product

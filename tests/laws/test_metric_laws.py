"""What must hold for the metrics of every test set."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from stlib.metrics import PixelRanking, label_regions, pixel_metrics
from stlib.protocol import Metric

SHAPE = (2, 5, 5)
LEVELS = arrays(np.int64, SHAPE, elements=st.integers(-8, 8))
MASKS = arrays(np.bool_, SHAPE).filter(lambda mask: bool(mask.any()) and not mask.all())


def metrics(scores: np.ndarray, masks: np.ndarray) -> dict[Metric, float]:
    return pixel_metrics(PixelRanking(torch.from_numpy(scores), label_regions(torch.from_numpy(masks))))


def ranks(scores: np.ndarray) -> np.ndarray:
    return np.asarray(scores, dtype=np.float64)


@given(LEVELS, MASKS)
def test_metrics_are_fractions(scores: np.ndarray, masks: np.ndarray):
    assert all(0 <= value <= 1 for value in metrics(ranks(scores), masks).values())


@given(LEVELS, MASKS)
def test_rising_transforms_change_nothing(scores: np.ndarray, masks: np.ndarray):
    positive = ranks(scores) + 9
    expected = metrics(positive, masks)
    assert metrics(positive**6, masks) == expected
    assert metrics(np.exp(positive), masks) == expected
    assert metrics(3 * positive - 40, masks) == expected


@given(LEVELS, MASKS)
def test_a_map_that_separates_all_pixels_is_perfect(scores: np.ndarray, masks: np.ndarray):
    separated = ranks(scores) + 100 * masks
    assert metrics(separated, masks) == pytest.approx(dict.fromkeys(metrics(separated, masks), 1.0))


@given(LEVELS, MASKS)
def test_order_and_orientation_of_images_do_not_matter(scores: np.ndarray, masks: np.ndarray):
    expected = metrics(ranks(scores), masks)
    for change in (lambda a: a[::-1], lambda a: a[:, ::-1], lambda a: a.transpose(0, 2, 1)):
        moved = metrics(change(ranks(scores)).copy(), change(masks).copy())
        assert moved == pytest.approx(expected, abs=1e-12)


@given(LEVELS, MASKS)
def test_seeing_every_image_twice_changes_nothing(scores: np.ndarray, masks: np.ndarray):
    twice = metrics(np.concatenate([ranks(scores)] * 2), np.concatenate([masks] * 2))
    assert twice == pytest.approx(metrics(ranks(scores), masks), abs=1e-12)


@given(LEVELS, MASKS)
def test_an_easy_good_image_hurts_no_metric(scores: np.ndarray, masks: np.ndarray):
    before = metrics(ranks(scores), masks)
    easy = np.full((1, *SHAPE[1:]), -1000.0)
    after = metrics(np.concatenate([ranks(scores), easy]), np.concatenate([masks, np.zeros_like(masks[:1])]))
    assert all(after[name] >= before[name] - 1e-12 for name in before)
    for name in ("pixel_ap", "pixel_f1", "iap", "iap90"):  # they never look below the lowest defective pixel
        assert after[name] == pytest.approx(before[name], abs=1e-12)

"""Metrics on cases small enough to work out by hand."""

import math

import pytest
import torch

from stlib.metrics import PixelRanking, image_metrics, label_regions, pixel_metrics
from stlib.protocol import METRICS, Metric


def undefined(metrics: dict[Metric, float]) -> list[Metric]:
    """Names of the metrics that have no value."""
    return [name for name, value in metrics.items() if math.isnan(value)]


def row(scores: list[float], mask: list[int]) -> PixelRanking:
    """A test set of one image that is one row of pixels."""
    masks = torch.tensor(mask, dtype=torch.bool)[None, None]
    return PixelRanking(torch.tensor(scores)[None, None], label_regions(masks))


def test_iap_of_three_instances_by_hand():
    # A = {.9 .7 .2}: found with its 2nd pixel, at .7. B = {.5}: at .5. C = {.8 .6 .3 .1}: 3rd pixel, at .3.
    # In falling order: .9A .85 .8C .7A .65 .6C .5B .4 .3C .2A .1C .05, so precision is 3/4 at .7, 5/7 at .5,
    # 6/9 at .3, at recalls 1/3, 2/3 and 1.
    scores = [0.9, 0.7, 0.2, 0.85, 0.5, 0.65, 0.8, 0.6, 0.3, 0.1, 0.4, 0.05]
    mask = [1, 1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 0]
    ranking = row(scores, mask)
    assert ranking.instance_precisions().tolist() == pytest.approx([6 / 9, 5 / 7, 3 / 4])
    assert ranking.iap() == pytest.approx((6 / 9 + 5 / 7 + 3 / 4) / 3)
    assert ranking.iap90() == pytest.approx(6 / 9)


def test_recall_of_nine_in_ten_instances_counts_as_90_percent():
    # Ten instances of one pixel with scores 1..10 and normal pixels at 1.5 and 0: dropping the lowest leaves
    # recall .9 and precision 9/9; keeping it gives 10/11.
    scores, mask = [0.0], [0]
    for score in range(1, 11):
        scores += [float(score), 0.0]
        mask += [1, 0]
    scores[0] = 1.5
    ranking = row(scores, mask)
    assert ranking.iap90() == 1.0


def test_exactly_half_of_an_instance_does_not_find_it():
    # Four pixels: two accepted are half, three are more than half.
    ranking = row([0.9, 0.8, 0.7, 0.6, 0.1], [1, 1, 1, 1, 0])
    assert ranking.instance_thresholds().tolist() == pytest.approx([0.7])


def test_aupro_by_hand():
    # Regions A (2 pixels) and B (1 pixel), 4 normal pixels. Falling: A .9, n .8, B .7, A .6, n .5 ...
    # Curve (FPR, overlap): (0, 0) (0, 1/4) (1/4, 1/4) (1/4, 3/4) (1/4, 1) (1/2, 1) ...
    # Up to .3: 1/4 * 1/4 + .05 * 1; divided by .3.
    ranking = row([0.9, 0.6, 0.8, 0.7, 0.5, 0.4, 0.3], [1, 1, 0, 1, 0, 0, 0])
    assert ranking.aupro() == pytest.approx((1 / 16 + 0.05) / 0.3)


def test_aupro_of_a_perfect_map_does_not_exceed_one():
    # Overlaps are sums of 1/(pixels * regions): unchecked they add up to 1 + 1e-15, which a record refuses.
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        masks = torch.rand(3, 16, 16, generator=generator) < 0.2
        scores = masks + torch.rand(masks.shape, generator=generator) * 0.9
        assert PixelRanking(scores, label_regions(masks)).aupro() == pytest.approx(1, abs=1e-12)
        assert PixelRanking(scores, label_regions(masks)).aupro() <= 1


def test_negative_and_positive_zero_are_one_score():
    ranking = row([0.0, -0.0], [1, 0])
    assert len(ranking.thresholds) == 1
    assert ranking.auroc() == 0.5


def test_every_metric_is_nan_without_defective_pixels():
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    values = pixel_metrics(PixelRanking(torch.rand(2, 4, 4), label_regions(masks)))
    assert undefined(values) == [name for name in METRICS if not name.startswith("image")]


def test_without_normal_pixels_only_the_rates_are_undefined():
    masks = torch.ones(1, 4, 4, dtype=torch.bool)
    values = pixel_metrics(PixelRanking(torch.rand(1, 4, 4), label_regions(masks)))
    assert undefined(values) == ["pixel_auroc", "aupro"]
    assert values["pixel_ap"] == values["iap"] == 1


@pytest.mark.parametrize("labels", [[True, True], [False, False]])
def test_image_metrics_need_both_classes(labels: list[bool]):
    values = image_metrics(torch.tensor([0.1, 0.2]), torch.tensor(labels))
    assert all(math.isnan(value) for value in values.values())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(value: float):
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        row([0.1, value], [0, 1])


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"scores \(1, 2, 2\) and regions \(1, 2, 3\)"):
        PixelRanking(torch.rand(1, 2, 2), torch.zeros(1, 2, 3, dtype=torch.int32))


def test_curves_run_from_the_first_threshold_to_the_last():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(2, 32, 32, generator=generator) < 0.1
    ranking = PixelRanking(torch.rand(2, 32, 32, generator=generator), label_regions(masks))
    curves = ranking.curves()
    assert len({len(series) for series in curves.values()}) == 1
    assert 150 <= len(curves["fpr"]) <= 200
    assert curves["fpr"] == sorted(curves["fpr"])
    assert curves["recall"] == sorted(curves["recall"])
    assert (curves["fpr"][-1], curves["recall"][-1]) == (1, 1)
    assert curves["precision"][-1] == pytest.approx(masks.float().mean().item())
    # The thinned curve still has nearly the exact area.
    area = torch.trapezoid(torch.tensor([0, *curves["recall"]]), torch.tensor([0, *curves["fpr"]])).item()
    assert area == pytest.approx(ranking.auroc(), abs=2e-3)


def test_no_curves_with_one_class():
    assert row([0.1, 0.2], [0, 0]).curves() == {}

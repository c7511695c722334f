"""The bootstrap against exact metrics on explicitly resampled image sets."""

import math

import pytest
import torch
from torch import Tensor

from stlib import bootstrap
from stlib.bootstrap import replicates
from stlib.metrics import PixelRanking, image_metrics, label_regions, pixel_metrics
from stlib.protocol import METRICS, Metric


def simulated(images: int, side: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixel scores (M, S, S), masks (M, S, S), image scores and labels (M,); every third image is good."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % 3 > 0
    masks = torch.zeros(images, side, side, dtype=torch.bool)
    for image in labels.nonzero()[:, 0].tolist():
        corner = torch.randint(side - side // 3, (2,), generator=generator).tolist()
        size = torch.randint(1, side // 3, (2,), generator=generator).tolist()
        masks[image, corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]] = True
        masks[image, 0, -1] = True  # a second instance of a single pixel
    ease = torch.rand(images, 1, 1, generator=generator) * 3  # images differ in difficulty
    scores = torch.randn(masks.shape, generator=generator) + ease * masks
    return scores, masks, scores.amax(dim=(1, 2)), labels


def exact(scores: Tensor, masks: Tensor, image_scores: Tensor, labels: Tensor) -> dict[Metric, float]:
    ranking = PixelRanking(scores, label_regions(masks))
    return image_metrics(image_scores, labels) | pixel_metrics(ranking)


@pytest.mark.parametrize(
    ("images", "side", "steps", "tolerance"), [(9, 20, 0, 1e-9), (9, 20, 1, 1e-9), (24, 80, 0, 1e-3)]
)
def test_every_replicate_equals_the_exact_metrics_of_the_images_drawn(
    images: int, side: int, steps: int, tolerance: float
):
    # 9 * 400 pixels fit into the bins one by one; 24 * 6400 do not; instances of one pixel are worst.
    scores, masks, image_scores, labels = simulated(images, side)
    if steps:  # ties
        scores, image_scores = scores.round(), image_scores.round()
    draws = replicates(PixelRanking(scores, label_regions(masks)), image_scores, labels, resamples=6, seed=3)
    assert list(draws) == list(METRICS)
    for draw, weights in enumerate(bootstrap._draw(labels, 6, 3)):
        index = torch.arange(images).repeat_interleave(weights.long())
        assert len(index) == images
        expected = exact(scores[index], masks[index], image_scores[index], labels[index])
        assert {name: draws[name][draw] for name in draws} == pytest.approx(expected, abs=tolerance)


def test_two_detectors_are_drawn_the_same_images():
    # The second detector differs on one image only, so all draws without that image agree, and no other does.
    scores, masks, image_scores, labels = simulated(9, 20)
    other, other_image = scores.clone(), image_scores.clone()
    other[4], other_image[4] = -scores[4], -9.0
    regions = label_regions(masks)
    first = replicates(PixelRanking(scores, regions), image_scores, labels, resamples=40)
    second = replicates(PixelRanking(other, regions), other_image, labels, resamples=40)
    without = bootstrap._draw(labels, 40, 0)[:, 4] == 0
    assert 0 < without.sum() < 40
    same = torch.tensor(first["pixel_auroc"]).isclose(torch.tensor(second["pixel_auroc"]), atol=1e-9)
    assert torch.equal(same, without)


def test_each_class_keeps_its_size_in_every_draw_of_the_seed():
    labels = torch.tensor([True, False, True, True, False])
    weights = bootstrap._draw(labels, 100, 0)
    assert (weights[:, labels].sum(1) == 3).all()
    assert (weights[:, ~labels].sum(1) == 2).all()
    assert len(weights.unique(dim=0)) > 10
    assert torch.equal(weights, bootstrap._draw(labels, 100, 0))


def test_image_auroc_is_defined_in_every_draw_even_with_two_images_per_class():
    scores, masks, image_scores, _ = simulated(4, 12)
    labels = torch.tensor([False, True, True, False])
    draws = replicates(PixelRanking(scores, label_regions(masks)), image_scores, labels)
    assert len(draws["image_auroc"]) == bootstrap.RESAMPLES
    assert not any(map(math.isnan, draws["image_auroc"]))


@pytest.mark.parametrize("labels", [[False] * 3, [True, True, False]])
def test_metrics_without_any_region_are_nan_and_no_error(labels: list[bool]):
    ranking = PixelRanking(torch.rand(3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.int32))
    draws = replicates(ranking, torch.rand(3), torch.tensor(labels), resamples=5)
    assert all(math.isnan(v) for name in METRICS if not name.startswith("image") for v in draws[name])


def test_a_draw_of_defective_images_without_a_region_is_nan_and_no_error():
    # The second defective image has an empty mask: draws that take it twice hold no instance.
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[0, 2:5, 2:5] = True
    labels = torch.tensor([True, True, False])
    ranking = PixelRanking(torch.rand(3, 8, 8), label_regions(masks))
    draws = replicates(ranking, torch.rand(3), labels, resamples=40)
    empty = bootstrap._draw(labels, 40, 0)[:, 0] == 0
    assert 0 < empty.sum() < 40
    for name in ("pixel_auroc", "pixel_ap", "pixel_f1", "aupro", "iap", "iap90"):
        assert torch.equal(torch.tensor(draws[name]).isnan(), empty), name


def test_the_interval_covers_the_true_auroc(monkeypatch: pytest.MonkeyPatch):
    # Scores N(0, 1) and N(1, 1): the true AUROC is Phi(1 / sqrt 2). Each image is one pixel.
    monkeypatch.setattr(bootstrap, "BINS", 100)
    truth = 0.5 * (1 + math.erf(0.5))
    labels = torch.arange(100) < 50
    covered = 0
    for trial in range(100):
        generator = torch.Generator().manual_seed(trial)
        scores = torch.randn(100, generator=generator) + labels.float()
        ranking = PixelRanking(scores.view(-1, 1, 1), label_regions(labels.view(-1, 1, 1)))
        draws = torch.tensor(replicates(ranking, scores, labels, seed=trial)["image_auroc"])
        low, high = draws.quantile(torch.tensor([0.025, 0.975])).tolist()
        covered += low <= truth <= high
    assert 89 <= covered <= 100


def test_thresholds_stay_inside_sets_that_float32_cannot_count():
    scores = torch.arange(20_000_004)
    chosen = bootstrap._spread(scores)
    assert (chosen[0], chosen[-1]) == (0, 20_000_003)

"""The fast metrics against slow loops written from the definitions, and against scikit-learn."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from stlib.metrics import PixelRanking, image_metrics, label_regions

Array = np.ndarray


def slow_regions(masks: Array) -> list[Array]:
    """One boolean (M, S, S) array per region: flood fill over the eight neighbours, image by image."""
    left = {tuple(index) for index in np.argwhere(masks)}
    regions = []
    while left:
        stack, region = [left.pop()], np.zeros(masks.shape, dtype=bool)
        while stack:
            image, row, column = stack.pop()
            region[image, row, column] = True
            for down, right in itertools.product((-1, 0, 1), repeat=2):
                neighbour = (image, row + down, column + right)
                if neighbour in left:
                    left.remove(neighbour)
                    stack.append(neighbour)
        regions.append(region)
    return regions


def slow_aupro(scores: Array, masks: Array) -> float:
    """Area of mean region overlap over FPR, threshold by threshold, interpolated linearly at 0.3."""
    regions = slow_regions(masks)
    points = [(0.0, 0.0)]
    for threshold in sorted(set(scores.flatten().tolist()), reverse=True):
        accepted = scores >= threshold
        overlaps = [(accepted & region).sum() / region.sum() for region in regions]
        points.append(((accepted & ~masks).sum() / (~masks).sum(), float(np.mean(overlaps))))
    area, limit = 0.0, 0.3
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def slow_iap(scores: Array, masks: Array) -> tuple[float, float]:
    """(IAP, IAP@90) by the loop over instances."""
    found = []
    for region in slow_regions(masks):
        inside = sorted(scores[region].tolist(), reverse=True)
        found.append(inside[int(0.5 * len(inside))])
    found.sort()
    best, precisions, at_recall = 0.0, [], 0.0
    for i, threshold in enumerate(found):
        accepted = scores >= threshold
        best = max(best, (accepted & masks).sum() / accepted.sum())
        precisions.append(best)
        if Fraction(len(found) - i, len(found)) >= Fraction(9, 10):
            at_recall = best
    return float(np.mean(precisions)), at_recall


def case(kind: str, seed: int, shape: tuple[int, int, int] = (3, 14, 14)) -> tuple[Array, Array]:
    """float32 scores that know a little of the masks, and masks with regions of many sizes."""
    rng = np.random.default_rng(seed)
    masks = rng.random(shape) < rng.choice([0.03, 0.15, 0.4])
    masks[0] = False  # a good image
    masks[1, 2:6, 3:9] = True
    scores = (rng.normal(0, 1, shape) + masks * rng.choice([0.3, 1.5])).astype(np.float32)
    if kind == "ties":
        scores = np.round(scores * 2) / 2
    elif kind == "float16":
        scores = (1e-3 * scores).astype(np.float16).astype(np.float32)
    elif kind == "constant":
        scores[:] = 0.25
    elif kind == "inverted":
        scores = -scores
    elif kind == "single pixels":
        masks[:] = False
        masks[1:, ::4, ::5] = True
    elif kind == "one region":
        masks[:] = False
        masks[2, :, 3] = True
    return scores, masks


KINDS = ["continuous", "ties", "float16", "constant", "inverted", "single pixels", "one region"]
CASES = pytest.mark.parametrize(("kind", "seed"), list(itertools.product(KINDS, range(4))))


def fast(scores: Array, masks: Array) -> PixelRanking:
    return PixelRanking(torch.from_numpy(scores), label_regions(torch.from_numpy(masks)))


@CASES
def test_regions_equal_flood_fill(kind: str, seed: int):
    _, masks = case(kind, seed)
    labels = label_regions(torch.from_numpy(masks)).numpy()
    ours = {(labels == number).tobytes() for number in range(1, labels.max() + 1)}
    assert ours == {region.tobytes() for region in slow_regions(masks)}


@CASES
def test_aupro_equals_the_loop_over_thresholds(kind: str, seed: int):
    scores, masks = case(kind, seed)
    assert fast(scores, masks).aupro() == pytest.approx(slow_aupro(scores, masks), abs=1e-9)


@CASES
def test_iap_equals_the_loop_over_instances(kind: str, seed: int):
    scores, masks = case(kind, seed)
    ranking = fast(scores, masks)
    assert (ranking.iap(), ranking.iap90()) == pytest.approx(slow_iap(scores, masks), abs=1e-12)


@CASES
def test_auroc_ap_and_f1_equal_scikit_learn(kind: str, seed: int):
    scores, masks = case(kind, seed)
    target, flat = masks.flatten(), scores.flatten()
    ranking = fast(scores, masks)
    assert ranking.auroc() == pytest.approx(roc_auc_score(target, flat), abs=1e-6)
    assert ranking.average_precision() == pytest.approx(average_precision_score(target, flat), abs=1e-6)
    precision, recall, _ = precision_recall_curve(target, flat)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert ranking.best_f1() == pytest.approx(f1.max(), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("step", [0.0, 0.5])
def test_image_metrics_equal_scikit_learn(seed: int, step: float):
    rng = np.random.default_rng(seed)
    labels = rng.random(40) < 0.6
    scores = rng.normal(labels, 1).astype(np.float32)
    if step:
        scores = np.round(scores / step) * step
    values = image_metrics(torch.from_numpy(scores), torch.from_numpy(labels))
    assert values["image_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
    assert values["image_ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-6)


def test_pixel_metrics_hold_at_the_size_of_a_real_map():
    # 256x256 maps whose scores span many orders of magnitude, as products of distances do.
    rng = np.random.default_rng(0)
    masks = np.zeros((4, 256, 256), dtype=bool)
    masks[2:, 40:90, 60:200] = True
    scores = np.exp(rng.normal(-12, 3, masks.shape) + 2 * masks).astype(np.float32)
    ranking = fast(scores, masks)
    assert ranking.auroc() == pytest.approx(roc_auc_score(masks.flatten(), scores.flatten()), abs=1e-6)
    expected = average_precision_score(masks.flatten(), scores.flatten())
    assert ranking.average_precision() == pytest.approx(expected, abs=1e-6)

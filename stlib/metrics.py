"""Exact metrics from one ranking of the pixel scores: no histogram, no threshold grid, ties as one step.

Definitions: pixel AUROC, AP and F1 pool all pixels of all test images of a category. AUPRO: Bergmann et al.,
"Uninformed Students", CVPR 2020, normalised to the limit 0.3. IAP and IAP@k: Zhang et al., DeSTSeg,
CVPR 2023, section 4.1, as its code computes them. Regions and instances are 8-connected.
"""

import math

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from stlib.protocol import Metric

FPR_LIMIT = 0.3
"""Upper end of the false positive rate that AUPRO integrates to."""
INSTANCE_SHARE = 0.5
"""An instance counts as found when more than this share of its pixels is positive (IAP)."""
POINTS = 200
"""Of a curve that is kept for plotting."""


def label_regions(masks: Tensor) -> Tensor:
    """(M, S, S) bool -> (M, S, S) int32: 0 on normal pixels, 1..K in the 8-connected regions."""
    labels = np.zeros(masks.shape, dtype=np.int32)
    count = 0
    for image, mask in enumerate(masks.cpu().numpy()):
        found, regions = ndimage.label(mask, structure=np.ones((3, 3)))
        labels[image] = np.where(found > 0, found + count, 0)
        count += regions
    return torch.from_numpy(labels)


class PixelRanking:
    """What every threshold would accept of a category's pixels.

    A threshold is one of the T distinct scores of defective pixels; accepting means score >= threshold.
    Between two of them only normal pixels differ, and no metric here has a value of its own there: so the
    defective pixels are ranked, and the normal ones, many times as many, are sorted without their positions
    and counted. P defective pixels, N normal ones, K regions.
    """

    def __init__(self, scores: Tensor, regions: Tensor) -> None:
        """`scores` (M, S, S) float; `regions` (M, S, S) int from `label_regions`, on any device.

        Raises ValueError for shapes that differ, FloatingPointError for scores that are not finite.
        """
        if scores.shape != regions.shape:
            raise ValueError(
                f"scores {tuple(scores.shape)} and regions {tuple(regions.shape)} differ in shape"
            )
        if not torch.isfinite(scores).all():
            raise FloatingPointError("some scores are NaN or infinite: the model has diverged")
        self.scores, self.regions = scores, regions.to(scores.device)
        defective = self.regions > 0
        self.ranked, order = scores[defective].sort(descending=True)
        """(P,) falling scores of the defective pixels."""
        self.region = self.regions[defective][order]
        """(P,) region of each ranked pixel, 1..K."""
        self.normal = sort_ascending(scores[~defective])
        """(N,) rising scores of the normal pixels."""
        self.thresholds: Tensor
        """(T,) distinct scores, falling."""
        self.gained: Tensor
        """(T,) int64 defective pixels exactly at each threshold."""
        self.thresholds, self.gained = torch.unique_consecutive(self.ranked, return_counts=True)
        self.tp = self.gained.cumsum(0)
        """(T,) int64 defective pixels at or above each threshold."""
        self.fp = self.negatives - torch.searchsorted(self.normal, self.thresholds)
        """(T,) int64 normal pixels at or above each threshold."""
        self.fp_above = self.negatives - torch.searchsorted(self.normal, self.thresholds, right=True)
        """(T,) int64 normal pixels above each threshold."""
        self.sizes = torch.bincount(self.region)[1:]
        """(K,) pixels per region."""

    @property
    def positives(self) -> int:
        """Defective pixels."""
        return len(self.ranked)

    @property
    def negatives(self) -> int:
        """Normal pixels."""
        return len(self.normal)

    def auroc(self) -> float:
        """Area under the ROC curve, ties counted half; NaN when only one class is present."""
        if not (self.positives and self.negatives):
            return math.nan
        below = (self.gained * (2 * self.negatives - self.fp - self.fp_above)).sum().item() / 2
        return below / self.positives / self.negatives

    def average_precision(self) -> float:
        """Step-wise average precision, as scikit-learn defines it; NaN without defective pixels."""
        if not self.positives:
            return math.nan
        return (self.gained.double() * self.precision()).sum().item() / self.positives

    def best_f1(self) -> float:
        """The largest F1 over all thresholds; NaN without defective pixels."""
        if not self.positives:
            return math.nan
        return (2 * self.tp.double() / (self.tp + self.fp + self.positives)).max().item()

    def aupro(self) -> float:
        """Mean region overlap, averaged over false positive rates 0..FPR_LIMIT; NaN for a single class."""
        if not (self.positives and self.negatives):
            return math.nan
        share = 1 / (self.sizes.double() * len(self.sizes))
        overlap = running_sum(share[self.region - 1])[self.tp - 1]
        fp, overlap = self._corners(overlap)
        rate = fp.double() / self.negatives
        # The curve up to the limit, with the point at the limit interpolated on its segment.
        inside = int((rate <= FPR_LIMIT).sum())
        rate, overlap = rate[: inside + 1].clone(), overlap[: inside + 1].clone()
        if rate[-1] > FPR_LIMIT:
            slope = (overlap[-1] - overlap[-2]) / (rate[-1] - rate[-2])
            overlap[-1] = overlap[-2] + slope * (FPR_LIMIT - rate[-2])
            rate[-1] = FPR_LIMIT
        return min(torch.trapezoid(overlap, rate).item() / FPR_LIMIT, 1.0)  # rounding may exceed 1 by 1e-15

    def instance_thresholds(self) -> Tensor:
        """(K,) per region, the highest score that accepts more than INSTANCE_SHARE of its pixels."""
        by_region = self.region.sort(stable=True).indices  # regions together, scores falling in each
        start = self.sizes.cumsum(0) - self.sizes
        return self.ranked[by_region][start + (self.sizes * INSTANCE_SHARE).long()]

    def instance_precisions(self) -> Tensor:
        """(K,) float64 interpolated pixel precision at the instance recalls 1, 1 - 1/K, ..., 1/K.

        Precision at a recall is the best one reachable at that recall or a higher one.
        """
        needed = self.instance_thresholds().sort().values
        index = torch.searchsorted(-self.thresholds, -needed)
        return self.precision()[index].cummax(0).values

    def iap(self) -> float:
        """Instance average precision: mean of the interpolated precisions; NaN without instances."""
        return self.instance_precisions().mean().item() if len(self.sizes) else math.nan

    def iap90(self) -> float:
        """Interpolated precision at the smallest instance recall >= 0.9; NaN without instances."""
        missed = len(self.sizes) // 10  # in whole numbers, as 1 - 1/10 is rounded
        return self.instance_precisions()[missed].item() if len(self.sizes) else math.nan

    def curves(self) -> dict[str, list[float]]:
        """ROC and precision-recall curves thinned to about POINTS thresholds, for plotting."""
        if not (self.positives and self.negatives):
            return {}
        fp, tp = (corner[1:] for corner in self._corners(self.tp))
        seen = tp + fp > 0  # precision has no value where nothing is accepted
        fp, tp = fp[seen], tp[seen]
        # Even steps along the longer way through the ROC plane keep the steep start.
        way = tp.double() / self.positives + fp.double() / self.negatives
        wanted = torch.linspace(0, 2, POINTS, dtype=torch.float64, device=way.device)
        index = torch.unique(torch.searchsorted(way, wanted).clamp(max=len(way) - 1))
        fp, tp = fp[index].double(), tp[index].double()
        curves = {"fpr": fp / self.negatives, "recall": tp / self.positives, "precision": tp / (tp + fp)}
        return {name: curve.tolist() for name, curve in curves.items()}

    def precision(self) -> Tensor:
        """(T,) float64 share of defective pixels among those accepted at each threshold."""
        return self.tp.double() / (self.tp + self.fp)

    def _corners(self, height: Tensor) -> tuple[Tensor, Tensor]:
        """(2T + 2,) false positives, and `height` (T,) at them: the whole curve as a polygon from zero.

        Normal pixels between two thresholds move it to the right, the ties at a threshold move it slantwise.
        """
        zero, end = self.fp.new_zeros(1), self.fp.new_tensor([self.negatives])
        fp = torch.cat([zero, torch.stack([self.fp_above, self.fp], dim=1).flatten(), end])
        before = torch.cat([height.new_zeros(1), height[:-1]])
        curve = torch.cat([before[:1], torch.stack([before, height], dim=1).flatten(), height[-1:]])
        return fp, curve


def sort_ascending(scores: Tensor) -> Tensor:
    """Sorted along the last axis. On the CPU by NumPy, whose vectorised sort is many times faster."""
    if scores.device.type == "cpu":
        return torch.from_numpy(np.sort(scores.numpy()))
    ordered: Tensor = torch.sort(scores).values
    return ordered


def running_sum(values: Tensor) -> Tensor:
    """Cumulative sum of float64 along the last axis, on the device of `values`, by the CPU.

    On a GPU PyTorch's own adds floating-point numbers in an order that changes from call to call: a run made
    twice would not give the same record. Sums of integers are exact in any order and need no such care.
    """
    return values.cpu().cumsum(-1).to(values.device)


def pixel_metrics(ranking: PixelRanking) -> dict[Metric, float]:
    """All pixel and instance metrics of one category; NaN where one is undefined."""
    return {
        "pixel_auroc": ranking.auroc(),
        "pixel_ap": ranking.average_precision(),
        "pixel_f1": ranking.best_f1(),
        "aupro": ranking.aupro(),
        "iap": ranking.iap(),
        "iap90": ranking.iap90(),
    }


def image_ranking(scores: Tensor, labels: Tensor) -> PixelRanking:
    """Images ranked like pixels: `scores` (M,) float, `labels` (M,) bool, a region per defective image."""
    regions = torch.where(labels, labels.cumsum(0), 0).int()
    return PixelRanking(scores, regions.to(scores.device))


def image_metrics(scores: Tensor, labels: Tensor) -> dict[Metric, float]:
    """Image AUROC and AP from (M,) scores and (M,) bool labels; NaN when one class is missing."""
    ranking = image_ranking(scores, labels)
    both = ranking.positives > 0 and ranking.negatives > 0
    # Without normal images AP would be a meaningless 1.0.
    return {"image_auroc": ranking.auroc(), "image_ap": ranking.average_precision() if both else math.nan}

"""Exact metrics from one global sort of the pixel scores: no histogram, no threshold grid, ties as one step.

Definitions: pixel AUROC, AP and F1 pool all pixels of all test images of a category. AUPRO: Bergmann et al.,
"Uninformed Students", CVPR 2020, normalised to the limit 0.3. IAP and IAP@k: Zhang et al., DeSTSeg,
CVPR 2023, section 4.1, as its code computes them. Regions and instances are 8-connected.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from stlib.protocol import Metric

FPR_LIMIT = 0.3
"""Upper end of the false positive rate that AUPRO integrates to."""
INSTANCE_SHARE = 0.5
"""An instance counts as found when more than this share of its pixels is positive (IAP)."""


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
    """The pixels of a category in order of falling score, and what every threshold would accept.

    A threshold is one of the T distinct scores; accepting means score >= threshold.
    P pixels in all, K regions.
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
        flat = scores.flatten()
        region = regions.flatten().to(flat.device)
        ordered, self.order = flat.sort(descending=True, stable=True)
        self.region = region[self.order]
        """(P,) region of each ranked pixel, 0 for normal ones."""
        step = torch.ones_like(ordered, dtype=torch.bool)
        step[:-1] = ordered[1:] != ordered[:-1]
        last = step.nonzero()[:, 0]
        self.thresholds = ordered[last]
        """(T,) distinct scores, falling."""
        accepted = last + 1
        self.tp = (self.region > 0).cumsum(0)[last]
        """(T,) int64 defective pixels at or above each threshold."""
        self.fp = accepted - self.tp
        """(T,) int64 normal pixels at or above each threshold."""
        self.last = last
        self.sizes = torch.bincount(region)[1:]
        """(K,) pixels per region."""
        self.scores, self.flat_region = flat, region

    @property
    def positives(self) -> int:
        """Defective pixels."""
        return int(self.tp[-1])

    @property
    def negatives(self) -> int:
        """Normal pixels."""
        return int(self.fp[-1])

    def auroc(self) -> float:
        """Area under the ROC curve; NaN when only one class is present."""
        if not (self.positives and self.negatives):
            return math.nan
        tp, fp = _from_zero(self.tp), _from_zero(self.fp)
        area = ((fp[1:] - fp[:-1]) * (tp[1:] + tp[:-1])).sum().item() / 2
        return area / self.positives / self.negatives

    def average_precision(self) -> float:
        """Step-wise average precision, as scikit-learn defines it; NaN without defective pixels."""
        if not self.positives:
            return math.nan
        gained = (_from_zero(self.tp).diff()).double()
        return (gained * self.precision()).sum().item() / self.positives

    def best_f1(self) -> tuple[float, float]:
        """(F1, threshold) with the largest F1 over all thresholds; NaN without defective pixels."""
        if not self.positives:
            return math.nan, math.nan
        f1 = 2 * self.tp.double() / (self.tp + self.fp + self.positives)
        best = int(f1.argmax())
        return f1[best].item(), self.thresholds[best].item()

    def aupro(self, limit: float = FPR_LIMIT) -> float:
        """Mean region overlap, averaged over false positive rates 0..`limit`; NaN for a single class."""
        if not (self.positives and self.negatives):
            return math.nan
        share = torch.zeros(len(self.sizes) + 1, dtype=torch.float64, device=self.sizes.device)
        share[1:] = 1 / (self.sizes.double() * len(self.sizes))
        overlap = _from_zero(share[self.region].cumsum(0)[self.last])
        rate = _from_zero(self.fp).double() / self.negatives
        # The curve up to the limit, with the point at the limit interpolated on its segment.
        inside = int((rate <= limit).sum())
        rate, overlap = rate[: inside + 1].clone(), overlap[: inside + 1].clone()
        if inside < len(rate):
            slope = (overlap[-1] - overlap[-2]) / (rate[-1] - rate[-2])
            overlap[-1] = overlap[-2] + slope * (limit - rate[-2])
            rate[-1] = limit
        return min(torch.trapezoid(overlap, rate).item() / limit, 1.0)  # rounding may exceed 1 by 1e-15

    def instance_thresholds(self) -> Tensor:
        """(K,) per region, the highest score that accepts more than INSTANCE_SHARE of its pixels."""
        inside = self.flat_region > 0
        region, score = self.flat_region[inside], self.scores[inside]
        by_score = score.sort(descending=True, stable=True).indices
        by_region = region[by_score].sort(stable=True).indices  # regions together, scores falling in each
        start = self.sizes.cumsum(0) - self.sizes
        return score[by_score][by_region][start + (self.sizes * INSTANCE_SHARE).long()]

    def instance_precisions(self) -> tuple[Tensor, Tensor]:
        """Recall and interpolated pixel precision at which each instance is found: (K,) float64 each.

        Ordered by rising threshold, so recall falls from 1 to 1/K. Precision at a recall is the best one
        reachable at that recall or a higher one.
        """
        needed = self.instance_thresholds().sort().values
        index = torch.searchsorted(-self.thresholds, -needed)
        precision = self.precision()[index].cummax(0).values
        count = len(needed)
        recall = 1 - torch.arange(count, dtype=torch.float64, device=needed.device) / count
        return recall, precision

    def iap(self) -> float:
        """Instance average precision: mean of the interpolated precisions; NaN without instances."""
        return self.instance_precisions()[1].mean().item() if len(self.sizes) else math.nan

    def iap_at(self, recall: float = 0.9) -> float:
        """Interpolated precision at the smallest instance recall >= `recall`; NaN without instances."""
        if not len(self.sizes):
            return math.nan
        recalls, precisions = self.instance_precisions()
        # A recall such as 1 - 1/10 must count as 0.9 in spite of rounding.
        return precisions[int((recalls >= recall - 1e-9).sum()) - 1].item()

    def curves(self, points: int = 200) -> dict[str, list[float]]:
        """ROC and precision-recall curves thinned to about `points` thresholds, for plotting."""
        if not (self.positives and self.negatives):
            return {}
        # Even steps along the longer way through the ROC plane keep the steep start.
        way = self.tp.double() / self.positives + self.fp.double() / self.negatives
        wanted = torch.linspace(0, 2, points, dtype=torch.float64, device=way.device)
        index = torch.unique(torch.searchsorted(way, wanted).clamp(max=len(way) - 1))
        recall = (self.tp[index].double() / self.positives).tolist()
        fpr = (self.fp[index].double() / self.negatives).tolist()
        return {"fpr": fpr, "recall": recall, "precision": self.precision()[index].tolist()}

    def precision(self) -> Tensor:
        """(T,) float64 share of defective pixels among those accepted at each threshold."""
        return self.tp.double() / (self.tp + self.fp)


def _from_zero(counts: Tensor) -> Tensor:
    """Prepend the point where nothing is accepted."""
    return torch.cat([counts.new_zeros(1), counts])


def pixel_metrics(ranking: PixelRanking) -> dict[Metric, float]:
    """All pixel and instance metrics of one category; NaN where one is undefined."""
    return {
        "pixel_auroc": ranking.auroc(),
        "pixel_ap": ranking.average_precision(),
        "pixel_f1": ranking.best_f1()[0],
        "aupro": ranking.aupro(),
        "iap": ranking.iap(),
        "iap90": ranking.iap_at(0.9),
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


def undefined(metrics: Mapping[Metric, float]) -> list[Metric]:
    """Names of the metrics that have no value."""
    return [name for name, value in metrics.items() if math.isnan(value)]

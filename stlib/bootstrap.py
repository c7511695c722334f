"""Bootstrap over test images: how far a metric would move with another draw of the test set.

Good and defective images are resampled separately, with replacement. The draw depends on the number of images
and the seed alone, so the replicates of two detectors on one test set are paired.
"""

import torch
from torch import Tensor

from stlib.metrics import FPR_LIMIT, PixelRanking, image_ranking
from stlib.protocol import Metric

RESAMPLES = 200
BINS = 20_000
"""Rank bins of equal size that pixel scores are grouped into. Only the replicates use them: pixels of one bin
count as tied, which lowers AP and IAP by some 1e-4, and by up to .004 where defects are tiny; the others move
less. Reported metrics are exact."""


def replicates(
    ranking: PixelRanking, image_scores: Tensor, labels: Tensor, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[Metric, list[float]]:
    """Every metric on `resamples` draws of the test images; NaN where a draw leaves it undefined.

    `ranking`: all pixels of M images; `image_scores` (M,) float; `labels` (M,) bool.
    """
    weights = _draw(labels, resamples, seed)
    images = _Histograms(image_ranking(image_scores, labels), len(labels), bins=len(labels))
    pixels = _Histograms(ranking, len(labels), bins=BINS)
    tp, fp = images.cumulated(weights)
    values: dict[Metric, Tensor] = {"image_auroc": _auroc(tp, fp)}
    values["image_ap"] = torch.where(fp[:, -1] > 0, _average_precision(tp, fp), torch.nan)
    tp, fp = pixels.cumulated(weights)
    values |= {"pixel_auroc": _auroc(tp, fp), "pixel_ap": _average_precision(tp, fp)}
    f1 = (2 * tp / (tp + fp + tp[:, -1:])).amax(1)
    values["pixel_f1"] = torch.where(tp[:, -1] > 0, f1, torch.nan)
    values["aupro"] = _aupro(pixels.overlap(weights), fp)
    values["iap"], values["iap90"] = _instance_precision(pixels, weights, tp, fp)
    return {name: value.tolist() for name, value in values.items()}


def _draw(labels: Tensor, resamples: int, seed: int) -> Tensor:
    """(R, M) float64: how often each image is drawn."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(resamples, len(labels), dtype=torch.float64)
    for stratum in (labels.nonzero()[:, 0], (~labels).nonzero()[:, 0]):
        if len(stratum):
            picks = stratum[torch.randint(len(stratum), (resamples, len(stratum)), generator=generator)]
            weights.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.float64))
    return weights


class _Histograms:
    """Pixels per image and rank bin, so that a resample is one matrix product."""

    def __init__(self, ranking: PixelRanking, images: int, bins: int) -> None:
        pixels = len(ranking.order)
        group_bin = ranking.last * bins // pixels  # a tie group is never split
        sizes = torch.diff(ranking.last, prepend=ranking.last.new_tensor([-1]))
        rank_bin = group_bin.repeat_interleave(sizes)
        image = ranking.order * images // pixels
        cell = (image * bins + rank_bin).cpu()
        region = ranking.region.cpu().long()
        positive = region > 0

        def count(of: Tensor, weight: Tensor | None = None) -> Tensor:
            return torch.bincount(of, weight, minlength=images * bins).double().view(images, bins)

        share = 1 / ranking.sizes.cpu().double()
        self.positive = count(cell[positive])
        self.negative = count(cell[~positive])
        self.share = count(cell[positive], share[region[positive] - 1])
        thresholds = ranking.instance_thresholds()
        group = torch.searchsorted(-ranking.thresholds, -thresholds)
        self.instance_bin = group_bin[group].cpu()
        self.instance_image = torch.zeros(len(share), dtype=torch.long)
        self.instance_image[region[positive] - 1] = image.cpu()[positive]

    def cumulated(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(R, B) defective and normal pixels accepted down to each bin."""
        return (weights @ self.positive).cumsum(1), (weights @ self.negative).cumsum(1)

    def overlap(self, weights: Tensor) -> Tensor:
        """(R, B) mean region overlap down to each bin."""
        regions = weights[:, self.instance_image].sum(1, keepdim=True)
        return (weights @ self.share).cumsum(1) / regions


def _from_zero(curve: Tensor) -> Tensor:
    return torch.cat([curve.new_zeros(len(curve), 1), curve], dim=1)


def _auroc(tp: Tensor, fp: Tensor) -> Tensor:
    return torch.trapezoid(_from_zero(tp), _from_zero(fp), dim=1) / tp[:, -1] / fp[:, -1]


def _average_precision(tp: Tensor, fp: Tensor) -> Tensor:
    precision = torch.nan_to_num(tp / (tp + fp))  # leading bins may hold none of the drawn images
    return (_from_zero(tp).diff(dim=1) * precision).sum(1) / tp[:, -1]


def _aupro(overlap: Tensor, fp: Tensor) -> Tensor:
    """Area of the mean overlap for false positive rates up to the limit, normalised."""
    rate = _from_zero(fp) / fp[:, -1:]
    curve = _from_zero(overlap)
    width = rate.diff(dim=1)
    inside = ((FPR_LIMIT - rate[:, :-1]) / width.clamp(min=1e-300)).clamp(0, 1)
    end = curve[:, :-1] + curve.diff(dim=1) * inside
    return ((curve[:, :-1] + end) / 2 * width * inside).sum(1) / FPR_LIMIT


def _instance_precision(
    pixels: _Histograms, weights: Tensor, tp: Tensor, fp: Tensor
) -> tuple[Tensor, Tensor]:
    """IAP and IAP@90 of every resample; NaN for one without instances."""
    if not len(pixels.instance_bin):
        return torch.full((len(weights),), torch.nan), torch.full((len(weights),), torch.nan)
    rising = pixels.instance_bin.argsort(descending=True)  # a later bin is a lower threshold
    drawn = weights[:, pixels.instance_image[rising]]
    at = pixels.instance_bin[rising]
    precision = torch.where(drawn > 0, (tp / (tp + fp))[:, at], 0).cummax(1).values
    total = drawn.sum(1)
    recall = 1 - (drawn.cumsum(1) - drawn) / total[:, None]
    last = ((recall >= 0.9 - 1e-9).sum(1) - 1).clamp(min=0)
    at_recall = precision.gather(1, last[:, None])[:, 0]
    return (drawn * precision).sum(1) / total, torch.where(total > 0, at_recall, torch.nan)

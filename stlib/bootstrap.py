"""Bootstrap over test images: how far a metric would move with another draw of the test set.

Good and defective images are resampled separately, with replacement. The draw depends on the number of images
and the seed alone, so the replicates of two detectors on one test set are paired.
"""

import torch
from torch import Tensor

from stlib.metrics import FPR_LIMIT, PixelRanking, image_ranking, running_sum, sort_ascending
from stlib.protocol import Metric

RESAMPLES = 200
BINS = 20_000
"""Thresholds that the replicates are read at: half of them evenly among the ranked defective pixels, half
among the normal ones. Pixels between two of them count as tied, which moves AP and IAP by some 1e-4, the
others by less. Reported metrics are exact."""


def replicates(
    ranking: PixelRanking, image_scores: Tensor, labels: Tensor, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[Metric, list[float]]:
    """Every metric on `resamples` draws of the test images; NaN where a draw leaves it undefined.

    `ranking`: all pixels of M images, on the device that computes; `image_scores` (M,) float; `labels` (M,)
    bool.
    """
    device = ranking.scores.device
    weights = _draw(labels, resamples, seed).to(device)
    images = _Histograms(image_ranking(image_scores.to(device), labels.to(device)))
    pixels = _Histograms(ranking)
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
    """Pixels per image and bin, so that a resample is one matrix product."""

    def __init__(self, ranking: PixelRanking) -> None:
        images = len(ranking.scores)
        scores, regions = ranking.scores.reshape(images, -1), ranking.regions.reshape(images, -1)
        defective = regions > 0
        edges = torch.unique(torch.cat([_spread(ranking.ranked.flip(0)), _spread(ranking.normal)]))
        # Of every image, the pixels at or above each edge, the highest edge first.
        normal = sort_ascending(scores.masked_fill(defective, -torch.inf))
        accepted = normal.shape[1] - torch.searchsorted(normal, edges.flip(0).repeat(images, 1))
        self.negative = accepted.diff(dim=1, prepend=accepted.new_zeros(images, 1)).double()
        image, _ = defective.nonzero(as_tuple=True)
        region = regions[defective].long() - 1
        bin_ = self._bin(edges, scores[defective])
        share = 1 / ranking.sizes.double()
        self.positive = torch.zeros_like(self.negative)
        self.positive.index_put_((image, bin_), self.positive.new_ones(1), accumulate=True)
        self.share = torch.zeros_like(self.negative)
        self.share.index_put_((image, bin_), share[region], accumulate=True)
        self.instance_bin = self._bin(edges, ranking.instance_thresholds())
        self.instance_image = torch.zeros(len(share), dtype=torch.long, device=scores.device)
        self.instance_image[region] = image

    @staticmethod
    def _bin(edges: Tensor, scores: Tensor) -> Tensor:
        """The first bin, counted from the highest, that holds each score."""
        return len(edges) - torch.searchsorted(edges, scores, right=True)

    def cumulated(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """(R, B) defective and normal pixels accepted down to each bin."""
        return (weights @ self.positive).cumsum(1), (weights @ self.negative).cumsum(1)

    def overlap(self, weights: Tensor) -> Tensor:
        """(R, B) mean region overlap down to each bin."""
        regions = weights[:, self.instance_image].sum(1, keepdim=True)
        return running_sum(weights @ self.share) / regions


def _spread(scores: Tensor) -> Tensor:
    """At most BINS / 2 of the rising `scores`, evenly by rank, the lowest and the highest among them."""
    count = min(len(scores), BINS // 2)
    places = torch.linspace(0, len(scores) - 1, count, dtype=torch.float64, device=scores.device)
    return scores[places.long()]


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
    lowest_first = pixels.instance_bin.argsort(descending=True)  # a later bin is a lower threshold
    drawn = weights[:, pixels.instance_image[lowest_first]]
    at = pixels.instance_bin[lowest_first]
    precision = torch.where(drawn > 0, (tp / (tp + fp))[:, at], 0).cummax(1).values
    total = drawn.sum(1)
    recall = 1 - (drawn.cumsum(1) - drawn) / total[:, None]
    last = ((recall >= 0.9 - 1e-9).sum(1) - 1).clamp(min=0)
    at_recall = precision.gather(1, last[:, None])[:, 0]
    return (drawn * precision).sum(1) / total, torch.where(total > 0, at_recall, torch.nan)

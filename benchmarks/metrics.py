"""All pixel metrics of a category at once, against the peers' implementations of some of them.

python benchmarks/metrics.py [--maps 100] [--device cuda] [--save]        (peers: benchmarks/requirements.txt)

Ours computes pixel AUROC, AP, best F1, AUPRO@0.3, IAP and IAP@90; each line says what the other one computes.
Ends with what a strictly increasing transform of the scores does to each: nothing should change.
"""

import argparse
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from side_by_side import asked, compare, report, show, timed_options
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from stlib.metrics import PixelRanking, label_regions, pixel_metrics

Values = dict[str, float]


def made_up(maps: int, side: int = 256) -> tuple[Tensor, Tensor]:
    """Scores (M, S, S) float32 and masks (M, S, S): three quarters with one to three rectangles each."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    masks = torch.zeros(maps, side, side, dtype=torch.bool)
    for image in range(maps * 3 // 4):
        for _ in range(rng.integers(1, 4)):
            row, column = rng.integers(0, side - 40, 2)
            height, width = rng.integers(3, 40, 2)
            masks[image, row : row + height, column : column + width] = True
    coarse = torch.nn.functional.interpolate(torch.rand(maps, 1, 32, 32), size=side, mode="bilinear")[:, 0]
    return coarse + 0.3 * masks + 0.2 * torch.rand(maps, side, side), masks


def ours(scores: Tensor, masks: Tensor) -> Values:
    return dict(pixel_metrics(PixelRanking(scores, label_regions(masks))).items())


def scikit_learn(scores: Tensor, masks: Tensor) -> Values:
    target, flat = masks.flatten().cpu().numpy(), scores.flatten().cpu().numpy()
    return {
        "pixel_auroc": roc_auc_score(target, flat),
        "pixel_ap": average_precision_score(target, flat),
    }


def torchmetrics_exact(scores: Tensor, masks: Tensor) -> Values:
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    flat, target = scores.flatten(), masks.flatten().to(scores.device).long()
    return {
        "pixel_auroc": binary_auroc(flat, target).item(),
        "pixel_ap": binary_average_precision(flat, target).item(),
    }


def anomalib_aupro(scores: Tensor, masks: Tensor) -> Values:
    from anomalib.metrics.aupro import _AUPRO

    metric = _AUPRO().to(scores.device)
    metric.update(scores, masks.to(scores.device).int())
    return {"aupro": metric.compute().item()}


def adeval_bins(bins: int) -> Callable[[Tensor, Tensor], Values]:
    def work(scores: Tensor, masks: Tensor) -> Values:
        vars(np)["trapz"] = np.trapezoid  # adeval 1.1.0 asks for it, NumPy 2.4 has removed it
        from adeval import EvalAccumulator

        low, high = scores.min().item(), scores.max().item()
        metric = EvalAccumulator(low, high, low, high, nstrips=bins)
        metric.add_anomap_batch(scores.cpu().numpy(), masks.numpy().astype(np.uint8))
        metric.add_image(0.0, 0)
        metric.add_image(1.0, 1)
        with np.errstate(invalid="ignore"):
            found = metric.summary()
        names = {"pixel_auroc": "p_auroc", "pixel_ap": "p_aupr", "aupro": "p_aupro"}
        return {name: found[theirs] for name, theirs in names.items()}

    return work


def candidates() -> dict[str, Callable[[Tensor, Tensor], Values]]:
    found: dict[str, Callable[[Tensor, Tensor], Values]] = {
        "ours: all six, exact": ours,
        "scikit-learn: AUROC, AP": scikit_learn,
    }
    if find_spec("torchmetrics"):
        found["torchmetrics, exact: AUROC, AP"] = torchmetrics_exact
    if find_spec("anomalib"):
        found["anomalib: AUPRO"] = anomalib_aupro
    if find_spec("adeval"):
        found["adeval, 1000 bins: AUROC, AP, AUPRO"] = adeval_bins(1000)
        found["adeval, 50 bins: AUROC, AP, AUPRO"] = adeval_bins(50)
    return found


def invariance(scores: Tensor, masks: Tensor) -> dict[str, dict[str, Values]]:
    """Every candidate's values on the scores, and on their sixth power (same order of pixels)."""
    positive = (scores - scores.min()) / (scores.max() - scores.min())
    return {
        name: {"s": work(positive, masks), "s^6": work(positive.double() ** 6, masks)}
        for name, work in candidates().items()
    }


def main(arguments: argparse.Namespace) -> None:
    device = torch.device(arguments.device)
    scores, masks = made_up(arguments.maps)
    scores = scores.to(device)
    works = {name: (lambda work=work: work(scores, masks)) for name, work in candidates().items()}
    rows = compare(works, turns=arguments.turns, device=device)
    print("\nscores to the sixth power instead: change of each metric")
    table = invariance(scores[:20], masks[:20])
    show({name: {k: row["s^6"][k] - value for k, value in row["s"].items()} for name, row in table.items()})
    report("metrics", arguments, {"maps": arguments.maps, "time": rows, "invariance": table})


if __name__ == "__main__":
    parser = timed_options(__doc__ or "", turns=5)
    parser.add_argument("--maps", type=int, default=100)
    main(asked(parser))

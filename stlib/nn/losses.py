"""Losses as pure functions; every docstring states the scale."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""(teacher's levels, student's levels), one (B, C, H, W) tensor each -> scalar."""


def l2_normalize(features: Tensor) -> Tensor:
    """(B, C, H, W) in any float dtype -> float32, L2-normalised over channels (STPM, eq. 1)."""
    return F.normalize(features.float(), dim=1)


def feature_distances(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Squared L2 distance of the normalised features per position and level: (B, H, W) each, in [0, 4].

    `teacher` holds features that `l2_normalize` has seen already (once per image), `student` raw
    ones. For unit vectors this is 2 (1 - cosine); the STPM paper's eq. 1 halves it, its code does not.
    """
    return tuple((t - l2_normalize(s)).square().sum(1) for t, s in zip(teacher, student, strict=True))


def feature_pyramid_loss(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
    """STPM's loss, scaled as in the official code: sum over levels of the mean over batch and positions.

    Scalar in [0, 12]. The factor 1/2 of the paper's eq. 1 is absent there, and so it is here: together with
    the learning rate 0.4 it decides the step size.
    """
    distances = feature_distances(teacher, student)
    return distances[0].mean() + distances[1].mean() + distances[2].mean()


def l1_cosine_loss(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
    """ET-STPM's sentence on its loss, section III-C, taken at its word: L1 plus cosine distance per position.

    Sum over levels of the mean over batch and positions of (mean over channels of |t - s|) + (1 - cos), on
    normalised features; `teacher` is normalised already, as in `feature_pyramid_loss`.
    """
    total = torch.zeros((), device=teacher[0].device)
    for t, s in zip(teacher, map(l2_normalize, student), strict=True):
        total = total + (t - s).abs().mean() + (1 - (t * s).sum(1)).mean()
    return total


def cosine_distances(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """1 - cosine similarity per position and level: (B, H, W) each, in [0, 2] (DeSTSeg, eqs. 2-3)."""
    return tuple(
        1 - (l2_normalize(t) * l2_normalize(s)).sum(1) for t, s in zip(teacher, student, strict=True)
    )


def denoising_loss(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> Tensor:
    """DeSTSeg's distillation loss: per level the mean over positions, SUMMED over the batch and the levels.

    The paper's eq. 4 has no batch; the code sums over it, so the step grows with the batch size.
    """
    distances = cosine_distances(teacher, student)
    return torch.stack([d.mean(dim=(1, 2)).sum() for d in distances]).sum()


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 4.0) -> Tensor:
    """Mean over pixels and batch of (1 - p_t)^gamma * cross entropy, without class weights (DeSTSeg, eq. 7).

    `logits` and `target` (B, H, W), target in {0, 1}. From logits: exact where p rounds to 0 or 1.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((1 - torch.exp(-entropy)) ** gamma * entropy).mean()


def l1_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of probability and mask, (B, H, W) each (DeSTSeg, eq. 8)."""
    return (torch.sigmoid(logits) - target).abs().mean()


def flat_cosine_loss(taught: Sequence[Tensor], rebuilt: Sequence[Tensor]) -> Tensor:
    """RD4AD's loss: sum over levels of the mean over images of the cosine distance of whole levels.

    Scalar in [0, 6]. A level is one vector, as in the official code; the paper's eq. 2 compares positions.
    """
    pairs = zip(taught, rebuilt, strict=True)
    distances = [1 - F.cosine_similarity(t.flatten(1), r.float().flatten(1)) for t, r in pairs]
    return torch.stack([d.mean() for d in distances]).sum()


def gate_loss(gate: Tensor, target: Tensor) -> Tensor:
    """Focal loss of AAND's gate: gamma 2, weight .8 for anomalies, mean over positions and batch.

    `gate` and `target` (B, H, W), probabilities and bool.
    """
    p = gate.clamp(1e-6, 1 - 1e-6)
    of_target, of_rest = -0.8 * (1 - p) ** 2 * p.log(), -0.2 * p**2 * (1 - p).log()
    return torch.where(target, of_target, of_rest).mean()

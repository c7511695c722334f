"""The losses: their values and above all their scale."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stlib.nn.losses import (
    Loss,
    denoising_loss,
    feature_distances,
    feature_pyramid_loss,
    flat_cosine_loss,
    focal_loss,
    gate_loss,
    l1_cosine_loss,
    l1_loss,
    l2_normalize,
)


def pyramid(seed: int, batch: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, c, s, s, generator=generator) for c, s in ((4, 8), (6, 4), (8, 2))]


def loss(teacher: list[Tensor], student: list[Tensor]) -> float:
    return feature_pyramid_loss([l2_normalize(level) for level in teacher], student).item()


def test_the_loss_is_twice_the_mean_cosine_distance_summed_over_levels():
    teacher, student = pyramid(0), pyramid(1)
    expected = sum(
        2 * (1 - F.cosine_similarity(t, s, dim=1)).mean() for t, s in zip(teacher, student, strict=True)
    )
    assert loss(teacher, student) == pytest.approx(float(expected), rel=1e-5)


def test_orthogonal_features_cost_two_per_level_and_opposite_ones_four():
    # With the paper's factor 1/2 these would be 3 and 6.
    teacher = [torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(2, 2, s, s) for s in (8, 4, 2)]
    assert loss(teacher, [t.flip(1) for t in teacher]) == pytest.approx(6)
    assert loss(teacher, [-t for t in teacher]) == pytest.approx(12)


def test_distances_are_per_position():
    teacher, student = pyramid(0), pyramid(0)
    student[1][2, :, 3, 0] *= -1
    distances = feature_distances([l2_normalize(level) for level in teacher], student)
    assert [tuple(d.shape) for d in distances] == [(3, 8, 8), (3, 4, 4), (3, 2, 2)]
    assert distances[1][2, 3, 0].item() == pytest.approx(4, rel=1e-5)
    assert sum(d.sum() for d in distances).item() == pytest.approx(4, rel=1e-4)


def test_features_in_bfloat16_are_normalised_in_float32():
    half = pyramid(0)[0].bfloat16()
    assert l2_normalize(half).dtype == torch.float32
    assert l2_normalize(half).norm(dim=1).allclose(torch.ones(()), atol=1e-6)


@pytest.mark.parametrize("function", [feature_pyramid_loss, l1_cosine_loss])
def test_a_zero_feature_vector_gives_no_nan_in_value_or_gradient(function: Loss):
    teacher = [l2_normalize(level) for level in pyramid(0)]
    student = [torch.zeros_like(level, requires_grad=True) for level in teacher]
    value = function(teacher, student)
    torch.autograd.backward(value)
    assert value.isfinite()
    assert all(level.grad is not None and level.grad.isfinite().all() for level in student)


def test_l1_and_cosine_by_hand():
    # one position: teacher (1, 0), student (3, 4) -> (.6, .8): L1 (.4 + .8) / 2, cosine .6
    teacher, student = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    assert l1_cosine_loss([teacher], [student]).item() == pytest.approx(0.6 + 0.4)
    # levels are added, positions and images averaged: a second image that agrees halves the loss
    both = torch.cat([teacher, teacher]), torch.cat([student, 5 * teacher])
    assert l1_cosine_loss([both[0]] * 3, [both[1]] * 3).item() == pytest.approx(3 * (0.6 + 0.4) / 2)


def test_the_l1_loss_is_the_mean_distance_of_probability_and_mask():
    logits = torch.tensor([[0.9, 0.2]]).logit()
    assert l1_loss(logits, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0.15)


def test_the_focal_loss_by_hand():
    probability, target = torch.tensor([[[0.9, 0.2]]]), torch.tensor([[[1.0, 1.0]]])
    expected = (-(0.1**4) * torch.log(torch.tensor(0.9)) - (0.8**4) * torch.log(torch.tensor(0.2))) / 2
    torch.testing.assert_close(focal_loss(torch.logit(probability), target), expected)


def test_the_denoising_loss_averages_positions_and_sums_images_and_levels():
    teacher = [torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(2, 2, s, s) for s in (4, 2, 1)]
    orthogonal = [level.flip(1) for level in teacher]
    assert denoising_loss(teacher, orthogonal).item() == pytest.approx(6)  # 2 images, 3 levels, distance 1


def test_rd4ads_loss_is_over_whole_levels():
    random = torch.Generator().manual_seed(0)
    taught, rebuilt = ([torch.rand(2, c, s, s, generator=random) for c, s in ((3, 4), (5, 2))] for _ in "ab")
    expected = 0.0
    for t, r in zip(taught, rebuilt, strict=True):
        for image in range(2):
            a, b = t[image].flatten(), r[image].flatten()
            expected += (1 - a @ b / (a.norm() * b.norm())).item() / 2
    assert flat_cosine_loss(taught, rebuilt).item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_aands_gate_weighs_anomalies_and_what_is_hard():
    gate, target = torch.tensor([[[0.9, 0.3]]]), torch.tensor([[[True, False]]])
    expected = (-0.8 * 0.1**2 * torch.tensor(0.9).log() - 0.2 * 0.3**2 * torch.tensor(0.7).log()) / 2
    assert gate_loss(gate, target).item() == pytest.approx(expected.item())

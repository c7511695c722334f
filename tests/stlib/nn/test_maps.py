"""From distances per level to maps and scores."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from stlib.nn.maps import Maps, fuse, in_batches, max_score, resize, smooth, stack_levels, top_score


def levels() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(2, side, side, generator=generator) for side in (16, 8, 4))


def test_levels_are_resized_to_the_finest_which_stays_as_it_is():
    fine, middle, coarse = levels()
    stacked = stack_levels((fine, middle, coarse))
    assert stacked.shape == (2, 3, 16, 16)
    assert torch.equal(stacked[:, 0], fine)
    assert torch.equal(stacked[:, 2], resize(coarse[:, None], 16)[:, 0])


def test_the_product_is_taken_at_the_finest_level_and_resized_afterwards():
    stacked = stack_levels(levels())
    expected = F.interpolate(
        stacked.prod(1, keepdim=True), size=(64, 64), mode="bilinear", align_corners=False
    )
    fused = fuse(stacked, 64)
    assert fused.shape == (2, 64, 64)
    torch.testing.assert_close(fused, expected[:, 0])
    resized_first = resize(stacked, 64).prod(1)
    assert not torch.allclose(fused, resized_first, atol=1e-3)


def test_product_and_sum_differ_where_one_level_sees_nothing():
    stacked = torch.ones(1, 3, 4, 4)
    stacked[0, 1] = 0
    assert fuse(stacked, 8).abs().max() == 0
    torch.testing.assert_close(fuse(stacked, 8, rule="sum"), torch.full((1, 8, 8), 2.0))


def test_corners_are_not_aligned():
    # Doubling a row 0, 1 with aligned corners would give 0, 1/3, 2/3, 1.
    row = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]
    assert resize(row, 4)[0, 0, 0].tolist() == pytest.approx([0, 0.25, 0.75, 1])


def test_scores_of_images():
    pixel = torch.zeros(2, 16, 16)
    pixel[0, 3, 4] = 5
    pixel[1, :10, :10] = 2
    assert max_score(pixel).tolist() == [5, 2]
    assert top_score(pixel).tolist() == pytest.approx([0.05, 2])
    assert top_score(pixel, top=1).tolist() == [5, 2]


@pytest.mark.parametrize("tf32", [False, True])
def test_maps_are_reproducible_and_exact_unless_tf32_is_asked_for_whatever_the_training_left_on(tf32: bool):
    class Spy(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> Maps:
            seen.append([torch.backends.cudnn.deterministic, *(s.allow_tf32 for s in switches)])
            x = images.float()
            return Maps(x, x[:, 0], x[:, 0, 0, 0])

    seen: list[list[bool]] = []
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    deterministic, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, False
    for switch in switches:
        switch.allow_tf32 = not tf32
    try:
        in_batches(Spy(), torch.zeros(3, 3, 4, 4).byte(), 2, torch.device("cpu"), tf32=tf32)
        assert seen == [[True, tf32, tf32]] * 2
        assert [switch.allow_tf32 for switch in switches] == [not tf32, not tf32]  # the training goes on
    finally:
        torch.backends.cudnn.deterministic = deterministic
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


@pytest.mark.parametrize(
    ("part", "wrong", "told"),
    [
        ("image", torch.zeros(2, 1), r"image is \(2, 1\) torch.float32: return \(B,\) torch.float32"),
        (
            "pixel",
            torch.zeros(2, 1, 8, 8),
            r"pixel is \(2, 1, 8, 8\) .*: return \(B, S, S\) .* B = 2 and S = 8",
        ),
        ("layers", torch.zeros(2, 4, 4), r"layers is \(2, 4, 4\) .*: return \(B, L, h, w\)"),
        ("image", torch.zeros(2).double(), r"image is \(2,\) torch.float64"),
    ],
)
def test_maps_of_another_shape_or_type_are_told_by_name_before_a_metric_stumbles(part, wrong, told):
    right = Maps(torch.zeros(2, 3, 4, 4), torch.zeros(2, 8, 8), torch.zeros(2))

    class Network(torch.nn.Module):
        def forward(self, _images: torch.Tensor) -> Maps:
            return right._replace(**{part: wrong})

    with pytest.raises(ValueError, match=rf"the network's Maps\.{told}"):
        in_batches(Network(), torch.zeros(2, 3, 8, 8).byte(), 2, torch.device("cpu"))


def test_smoothing_is_scipys_inside_the_image():
    pixel = torch.rand(2, 96, 96, generator=torch.Generator().manual_seed(0))
    expected = np.stack([gaussian_filter(one, sigma=4) for one in pixel.numpy()])
    inside = np.s_[:, 16:-16, 16:-16]  # the borders reflect with and without the outermost pixel
    assert smooth(pixel).numpy()[inside] == pytest.approx(expected[inside], abs=1e-5)
    assert smooth(pixel[:, :8, :8]).shape == (2, 8, 8)

"""DeSTSeg's and PFADSeg's blocks: sizes, neutral settings, and what each switch replaces."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlib.methods import METHODS
from stlib.methods.pfadseg import ROWS
from stlib.nn import blocks
from stlib.nn.blocks import AFF, ASPP, PCAR, RCM, SPR, Design, Recalibration, average
from stlib.nn.denoising import DenoisingStudent, SegmentationNet, similarity_features


def parameters(*networks: nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())


# Trainable parameters by hand, C = channels of a block:
#   row 1: encoder 11 176 512 (ResNet-18 without fc), decoder 13 488 512, residual 2 918 912, head 4 787 457.
#   RCM for ASPP at C = 256: 272 640 - 4 196 608 = -3 923 968.
#   AFF per block: 2 (C^2/4 + C/4 + C^2/4 + C) + 4 (C/4 + C): 18 blocks, +1 556 352.
#   PCAR per block: 2 more 3x3 convolutions 18 C^2, three BatchNorms 6 C, SPR (5 C^2 + C) / 16 + C^2 / 16 + C.
COUNTS = {
    "": 58_032_721,
    "none": 32_371_393,
    "RCM": 28_447_425,
    "AFF": 33_927_745,
    "PCAR": 60_400_337,
    "RCM+PCAR": 56_476_369,
    "AFF+PCAR": 61_956_689,
    "RCM+AFF": 30_003_777,
    "control": 59_824_321,
}


@pytest.mark.parametrize("row", ["", *ROWS])
def test_trainable_parameters_of_every_ablation_row(row: str):
    design = METHODS["pfadseg"].recipe("paper", row)
    with torch.device("meta"):
        assert parameters(DenoisingStudent(design), SegmentationNet(design)) == COUNTS[row]


SHAPES = [
    ((8, 8), (1, 1)),
    ((8, 8), (2, 2)),
    ((7, 5), (2, 2)),
    ((5, 7), (3, 2)),
    ((7, 5), (7, 1)),
    ((7, 5), (1, 5)),
]


@pytest.mark.parametrize(("size", "cells"), SHAPES)
def test_average_is_adaptive_pooling_with_a_gradient_that_is_channels_last(size, cells):
    features = torch.randn(2, 6, *size).contiguous(memory_format=torch.channels_last).requires_grad_()
    weights = torch.randn(2, 6, *cells)
    averages, expected = average(features, *cells), F.adaptive_avg_pool2d(features, cells)
    torch.testing.assert_close(averages, expected)
    (gradient,) = torch.autograd.grad((averages * weights).sum(), features)
    (plain,) = torch.autograd.grad((expected * weights).sum(), features)
    torch.testing.assert_close(gradient, plain)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def require_same_training(output: Tensor, plain: Tensor, wanted: list[Tensor]) -> None:
    """Equal values, and equal gradients of `wanted`, of a loss that weighs every number differently."""
    torch.testing.assert_close(output, plain)
    weights = torch.randn(output.shape)
    assert output.is_contiguous(memory_format=torch.channels_last)
    found = torch.autograd.grad((output * weights).sum(), wanted)
    for gradient, expected in zip(found, torch.autograd.grad((plain * weights).sum(), wanted), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_an_export_leaves_no_stand_in_among_the_constants_that_are_kept():
    """The next maps of the process would be stand-ins too."""
    blocks._made.cache_clear()
    pair = torch.rand(2, 8, 4, 4), torch.rand(2, 8, 4, 4)
    torch.export.export(AFF(8).eval(), pair)
    assert type(average(pair[0], 1, 1)) is Tensor


def test_a_compiled_average_holds_its_constant():
    """Made anew in every step, it would stop a GPU for a copy."""
    traced = []

    def keep(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        traced.append(graph)
        return graph.forward

    features = torch.rand(2, 3, 8, 8)
    compiled = torch.compile(lambda maps: average(maps, 2, 2), backend=keep, fullgraph=True)
    assert torch.equal(compiled(features), average(features, 2, 2))
    assert not [node for node in traced[0].graph.nodes if node.target in (torch.eye, torch.kron)]


def test_aff_takes_what_autocast_leaves_on_a_gpu():
    aff = AFF(16).eval()
    residual, shortcut = torch.rand(2, 16, 4, 4), torch.rand(2, 16, 4, 4)
    mixed = aff(residual, shortcut.bfloat16())
    torch.testing.assert_close(mixed, aff(residual, shortcut), atol=0.02, rtol=0.02)


def test_aff_is_its_formula_in_value_and_gradient():
    fusion = AFF(16, factor=1.5).double()  # BatchNorm over three numbers makes more of the last bits
    maps = torch.randn(2, 3, 16, 8, 8).double()
    residual, shortcut = (m.contiguous(memory_format=torch.channels_last).requires_grad_() for m in maps)
    total = residual + shortcut
    context = fusion.local_context(total) + fusion.global_context(total.mean((2, 3), keepdim=True))
    weight = context.sigmoid()
    plain = 1.5 * (weight * residual + (1 - weight) * shortcut)
    require_same_training(fusion(residual, shortcut), plain, [residual, shortcut, *fusion.parameters()])


@pytest.mark.parametrize("form", ["pcar", "maps", "channels", "control"])
def test_pcar_is_its_formula_in_value_and_gradient(form: Recalibration):
    pcar = PCAR(16, form=form, dilations=(1, 2, 3)).double().to(memory_format=torch.channels_last)
    x = torch.randn(3, 16, 8, 8).double().contiguous(memory_format=torch.channels_last).requires_grad_()
    maps = torch.stack([branch(x) for branch in pcar.branches])
    attention = torch.stack([spr(pcar.spr or SPR(16).double(), branch) for branch in maps])
    # equations 6 to 9: recalibrated maps, their softmax, the product of both, the sum of the branches
    literal = attention * maps
    whole = literal.transpose(0, 1).flatten(1, 2).softmax(1).unflatten(1, (3, 16)).transpose(0, 1)
    plain = {
        "pcar": attention.softmax(0) * maps,
        "maps": literal.softmax(0) * literal,
        "channels": whole * literal,
        "control": maps,
    }
    require_same_training(pcar(x), plain[form].sum(0), [x, *pcar.parameters()])


def spr(module: SPR, features: Tensor) -> Tensor:
    """Attention as in MSPANet: PyTorch's own pooling to one cell and to four, two 1x1 convolutions."""
    pooled = [F.adaptive_avg_pool2d(features, side).flatten(1) for side in (1, 2)]
    hidden = module.squeeze(torch.cat(pooled, 1)[:, :, None, None]).relu()
    return module.excite(hidden).sigmoid()


def test_rcm_is_its_formula():
    rcm = RCM(8, layer_scale=0.5).double()  # in training, where BatchNorm is no identity yet
    x = torch.randn(2, 8, 12, 6).double()
    gate = rcm.rectangle(x.mean(3, keepdim=True) + x.mean(2, keepdim=True)).sigmoid()
    torch.testing.assert_close(rcm(x), x + 0.5 * rcm.mlp(rcm.norm(gate * rcm.local(x))))


def test_aspp_has_destsegs_dilations():
    aspp = ASPP(16)
    assert [branch[0].dilation for branch in aspp.atrous] == [(6, 6), (12, 12), (18, 18)]


@pytest.mark.parametrize(
    "design", [Design(), Design(width=0.25), Design(aff=True, pcar="pcar", dilations=(1, 2, 3))]
)
def test_student_features_have_the_teachers_shapes(design: Design):
    student = DenoisingStudent(design).eval()
    with torch.no_grad():
        features = student(torch.randn(1, 3, 64, 64))
    assert [tuple(f.shape[1:]) for f in features] == [(64, 16, 16), (128, 8, 8), (256, 4, 4)]


def test_the_similarity_is_the_cosine_before_the_sum_over_channels_coarse_levels_resized_bilinearly():
    teacher = [torch.randn(2, c, s, s) for c, s in ((64, 16), (128, 8), (256, 4))]
    student = [torch.randn_like(level) for level in teacher]
    joined = similarity_features(teacher, student)
    torch.testing.assert_close(joined[:, :64].sum(1), F.cosine_similarity(teacher[0], student[0]))
    coarse = F.normalize(teacher[2], dim=1) * F.normalize(student[2], dim=1)
    torch.testing.assert_close(joined[:, -256:], F.interpolate(coarse, (16, 16), mode="bilinear"))

"""The classifier that ET-STPM fine-tunes, and the two measures of how far its backbone has moved."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18

from stlib.nn.backbone import ResNet18Pyramid, load_teacher, pyramid_hash
from stlib.nn.classifier import feature_cosine, load_classifier, pyramid_of, weight_change


@pytest.mark.parametrize("source", ["demo", "random"])
def test_the_classifiers_backbone_is_the_teacher_bit_for_bit(source: str):
    network = load_classifier(source, 3, seed=4)
    assert network.fc.weight.shape == (3, 512)
    assert pyramid_hash(pyramid_of(network)) == load_teacher(source)[1].pyramid_sha256


def test_layer4_comes_from_the_file_where_it_is_and_the_head_never(tmp_path: Path):
    with torch.random.fork_rng():
        torch.manual_seed(11)
        state = resnet18(weights=None).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "w.safetensors")
    network = load_classifier(str(tmp_path / "w.safetensors"), 1000, seed=0)
    assert torch.equal(network.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert not torch.equal(network.fc.weight, state["fc.weight"])


def test_the_seed_decides_what_the_source_lacks():
    torch.manual_seed(99)  # the caller's random state must not matter
    one, again, other = (load_classifier("demo", 2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.fc.weight, again.fc.weight)
    assert torch.equal(one.layer4[0].conv1.weight, again.layer4[0].conv1.weight)
    assert not torch.equal(one.fc.weight, other.fc.weight)
    assert torch.equal(one.layer3[0].conv1.weight, other.layer3[0].conv1.weight)


def test_the_pyramid_is_a_frozen_copy():
    network = load_classifier("random", 2, seed=0)
    pyramid = pyramid_of(network)
    assert not pyramid.training
    assert not any(p.requires_grad for p in pyramid.parameters())
    before = pyramid_hash(pyramid)
    nn.init.zeros_(network.layer2[0].conv1.weight)
    assert pyramid_hash(pyramid) == before != pyramid_hash(pyramid_of(network))


@pytest.mark.parametrize(("factor", "change"), [(1.5, 0.5), (1.0, 0.0), (-1.0, 2.0)])
def test_weight_change_is_that_of_the_convolutions_alone(
    random_teacher: ResNet18Pyramid, factor: float, change: float
):
    scaled = deepcopy(random_teacher)
    for name, tensor in scaled.state_dict().items():
        if name.startswith("layer2"):
            tensor.mul_(factor if tensor.dim() == 4 else 3)  # and BatchNorm, which does not count
    expected = {"layer1": 0.0, "layer2": pytest.approx(change, rel=1e-6), "layer3": 0.0}
    assert weight_change(random_teacher, scaled) == expected


class _Features(nn.Module):
    """The same three levels whatever the image."""

    def __init__(self, *levels: Tensor) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, _: Tensor) -> tuple[Tensor, ...]:
        return self.levels


def test_feature_cosine_by_hand():
    right, up = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1), torch.tensor([0.0, 5.0]).view(1, 2, 1, 1)
    slant = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    half = torch.cat([right, up], dim=3)  # two positions: one agrees, one is orthogonal
    before = _Features(right, right, right.expand(1, 2, 1, 2))
    found = feature_cosine(before, _Features(up, slant, half), torch.zeros(1, 3, 8, 8))
    assert found == pytest.approx({"layer1": 0.0, "layer2": 0.6, "layer3": 0.5})

"""The whole ResNet-18 with a new head: what ET-STPM fine-tunes; layer1 to layer3 become the teacher."""

import torch
from torch import Tensor, nn
from torchvision.models import ResNet, resnet18

from stlib.nn.backbone import ResNet18Pyramid, load_state
from stlib.protocol import LAYERS


def load_classifier(source: str, classes: int, *, seed: int) -> ResNet:
    """ResNet-18 with the weights of `source` (see `load_teacher`) and a random head for `classes` classes.

    The source is one that `load_teacher` has accepted. Tensors that it lacks keep their random
    initialisation; `TeacherInfo.missing` names them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = resnet18(weights=None, num_classes=classes)
    own = network.state_dict()
    given = {n: t for n, t in load_state(source).items() if n in own and not n.startswith("fc.")}
    network.load_state_dict(own | given)
    return network


def pyramid_of(network: nn.Module) -> ResNet18Pyramid:
    """A copy of the network's conv1 to layer3 as a frozen teacher."""
    pyramid = ResNet18Pyramid()
    state = network.state_dict()
    pyramid.load_state_dict({name: state[name].detach().cpu() for name in pyramid.state_dict()})
    return pyramid.eval().requires_grad_(False)


def weight_change(before: nn.Module, after: nn.Module) -> dict[str, float]:
    """Per level ||after - before|| / ||before|| over all convolution weights (Frobenius norm)."""
    old, new = before.state_dict(), after.state_dict()
    found = {}
    for level in LAYERS:
        names = [n for n in old if n.startswith(level) and old[n].dim() == 4]
        moved = sum(float((new[n].cpu() - old[n].cpu()).double().square().sum()) for n in names)
        size = sum(float(old[n].double().square().sum()) for n in names)
        found[level] = (moved / size) ** 0.5
    return found


def feature_cosine(before: nn.Module, after: nn.Module, images: Tensor) -> dict[str, float]:
    """Per level the mean cosine similarity of both teachers' features over images and positions.

    `images`: (N, 3, S, S), normalised, on the device of both networks.
    """
    with torch.no_grad():
        pairs = zip(LAYERS, before(images), after(images), strict=True)
        return {level: float(torch.cosine_similarity(a, b, dim=1).mean()) for level, a, b in pairs}

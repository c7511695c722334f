"""STPM's training step and its inference, against anomalib's Stfpm and against ours without each speed-up.

python benchmarks/stpm.py [--batch 32] [--device cuda] [--save]        (peer: benchmarks/requirements.txt)

The same ResNet-18 pair on the same 256x256 images everywhere. Ours is what `stlib run` executes; the other
lines take one thing away.
"""

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from unittest.mock import patch

import torch
from side_by_side import asked, compare, report, timed_options
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stlib.methods import stpm
from stlib.methods.training import Execution
from stlib.nn.backbone import ResNet18Pyramid, features, prepare
from stlib.nn.losses import l2_normalize
from stlib.protocol import Precision

Step = Callable[[], object]


def ours(
    images: Tensor,
    precision: Precision,
    *,
    cached: bool = True,
    channels_last: bool = True,
    compiled: bool = False,
) -> Step:
    """One optimiser step of stlib's STPM on all `images`."""
    torch.manual_seed(0)
    execution = Execution(images.device, precision)
    method = stpm.STPM(stpm.Config(batch_size=len(images)), ResNet18Pyramid().eval(), execution)
    training = method.begin(seed=0)
    if compiled:
        method.student.compile()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for network in (method.teacher, method.student):
        network.to(memory_format=layout)

    def teach() -> list[Tensor]:
        taught = features(method.teacher, images, len(images))
        return [l2_normalize(level).contiguous(memory_format=layout) for level in taught]

    targets = teach()
    order = torch.arange(len(images))

    def step() -> None:
        with patch.object(stpm, "prepare", lambda x: prepare(x).contiguous(memory_format=layout)):
            training.run_epoch(images, targets if cached else teach(), order)

    return step


def peer(images: Tensor, *, bf16: bool = False, train: bool = True) -> Step:
    """The model, loss and map of anomalib; its weights would be downloaded, and cost the same when random."""
    from anomalib.models.image.stfpm import torch_model
    from anomalib.models.image.stfpm.loss import STFPMLoss

    extractor = torch_model.TimmFeatureExtractor
    with patch.object(
        torch_model, "TimmFeatureExtractor", lambda **given: extractor(**given | {"pre_trained": False})
    ):
        model = torch_model.STFPMModel(layers=["layer1", "layer2", "layer3"]).to(images.device)
    loss = STFPMLoss()
    optimiser = torch.optim.SGD(model.student_model.parameters(), lr=0.4, momentum=0.9, weight_decay=1e-4)
    x = prepare(images).contiguous()
    model.train(train)

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            if not train:
                with torch.no_grad():
                    model(x)
                return
            value = loss(*model(x))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()

    return step


def inference(
    images: Tensor, *, bf16: bool = False, channels_last: bool = True, folded: bool = False
) -> Step:
    """The deployed network on all `images`."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = stpm.empty_network(stpm.Config()).eval()
    if folded:
        fold(network)
    network.to(images.device).to(memory_format=layout)

    def step() -> None:
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            network(images)

    return step


def fold(network: nn.Module) -> None:
    """Put every BatchNorm into the convolution before it, as exporters do."""
    for module in list(network.modules()):
        layers = list(module.named_children())
        for (before, convolution), (after, norm) in pairwise(layers):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, before, fuse_conv_bn_eval(convolution, norm))
                setattr(module, after, nn.Identity())


def main(arguments: argparse.Namespace) -> None:
    device = torch.device(arguments.device)
    images = torch.randint(256, (arguments.batch, 3, 256, 256)).byte().to(device)
    training = {
        "ours, bf16": ours(images, "bf16"),
        "ours, fp32": ours(images, "fp32"),
        "ours, bf16, teacher in every step": ours(images, "bf16", cached=False),
        "ours, bf16, not channels-last": ours(images, "bf16", channels_last=False),
        "ours, fp32, not channels-last": ours(images, "fp32", channels_last=False),
    }
    scoring = {
        "ours, fp32": inference(images),
        "ours, bf16": inference(images, bf16=True),
        "ours, fp32, not channels-last": inference(images, channels_last=False),
        "ours, fp32, BatchNorm folded": inference(images, folded=True),
        "ours, bf16, BatchNorm folded": inference(images, bf16=True, folded=True),
    }
    if arguments.compile:
        training["ours, bf16, torch.compile"] = ours(images, "bf16", compiled=True)
    if find_spec("anomalib"):
        training["anomalib Stfpm, fp32"] = peer(images)
        training["anomalib Stfpm, bf16"] = peer(images, bf16=True)
        scoring["anomalib Stfpm, fp32"] = peer(images, train=False)
        scoring["anomalib Stfpm, bf16"] = peer(images, bf16=True, train=False)
    print(f"training step, {arguments.batch} images")
    steps = compare(training, turns=arguments.turns, device=device, items=arguments.batch)
    print(f"\nmaps and scores of {arguments.batch} images")
    maps = compare(scoring, turns=arguments.turns, device=device, items=arguments.batch)
    report("stpm", arguments, {"batch": arguments.batch, "training": steps, "inference": maps})


if __name__ == "__main__":
    parser = timed_options(__doc__ or "", turns=5)
    parser.add_argument("--batch", type=int, default=32, help="images per step")
    parser.add_argument("--compile", action="store_true", help="torch.compile too: minutes of compilation")
    main(asked(parser))

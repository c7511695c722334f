"""The authors' code: modules imported from clones, and their networks' names beside ours."""

import argparse
import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import MagicMock, patch

import numpy as np
import torch
from side_by_side import options
from torch import Tensor, nn

from stlib.data.mvtec import Category
from stlib.data.synthesis import Synthetic
from stlib.metrics import label_regions

COMMITS = {
    "STFPM": "gdwang08/STFPM @2598a5e",
    "ml-destseg": "apple/ml-destseg @f6ea31f",
    "open-aff": "YimianDai/open-aff @0bcfd8a",
    "CGRSeg": "nizhenliang/CGRSeg @b6c70fa",
    "MSPANet": "ndsclark/MSPANet @d804689",
    "DRAEM": "VitjanZ/DRAEM @2dbf673",
}
SURROUNDINGS = (
    "tensorboardX", "mmcv", "mmcv.cnn", "anomalib", "anomalib.utils", "anomalib.utils.metrics",
    "anomalib.utils.metrics.plotting_utils", "anomalib.utils.metrics.pro", "torchmetrics",
    "torchmetrics.functional", "torchmetrics.utilities", "torchmetrics.utilities.data", "utils.vis",
)  # fmt: skip
"""Of logs, metrics and pictures, imported by their code: stand-ins, so that one environment serves all."""


Rows = dict[str, dict[str, float]]
"""By what is compared: `theirs` and `ours`, `difference`, or some of them."""


def options_with_clones(description: str) -> argparse.ArgumentParser:
    """The command line of scripts that run the authors' code."""
    parser = options(description)
    parser.add_argument("clones", type=Path, help="folder of the clones")
    parser.add_argument("--data", type=Path, help="dataset root; the demo's without")
    parser.add_argument("--category", default="brick")
    parser.add_argument("--teacher", default="demo", help="demo, torchvision or a weight file")
    return parser


class Metric:
    """In the place of torchmetrics': keeps what `update` appends."""

    def __init__(self, **_: object) -> None:
        pass

    def add_state(self, name: str, default: list[Tensor], **_: object) -> None:
        setattr(self, name, default)


@contextlib.contextmanager
def their_code(folder: Path) -> Iterator[Callable[[str], ModuleType]]:
    """Imports modules of a clone; the clones share names such as `model`, so each is forgotten afterwards."""
    stand_ins = {name: MagicMock() for name in SURROUNDINGS}
    stand_ins["torchmetrics"].Metric = Metric
    stand_ins["torchmetrics.utilities.data"].dim_zero_cat = torch.cat
    stand_ins["anomalib.utils.metrics.pro"].connected_components_cpu = lambda masks: label_regions(
        masks[:, 0]
    )
    numbers = {
        kind: [getattr(np, f"{kind}{bits}") for bits in (16, 32, 64)] for kind in ("int", "uint", "float")
    }
    with (
        patch.dict(sys.modules, stand_ins),
        patch.object(sys, "path", [str(folder), *sys.path]),
        patch.object(np, "sctypes", numbers, create=True),  # imgaug was written for NumPy 1
        patch.object(Tensor, "cuda", lambda tensor: tensor),
        patch.object(nn.Module, "cuda", lambda module: module),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        yield import_module


@contextlib.contextmanager
def arithmetic(dtype: torch.dtype) -> Iterator[str]:
    """`.float()` gives `dtype`, so that nothing rounds to float32 on the way; the name of the precision."""
    with patch.object(Tensor, "float", lambda tensor: tensor.to(dtype)):
        yield str(dtype).removeprefix("torch.")


def gap(theirs: Any, ours: Any) -> float:  # noqa: ANN401 - tensors, arrays, numbers
    """The largest difference over the largest value of theirs."""
    a, b = (torch.as_tensor(np.asarray(value), dtype=torch.float64) for value in (theirs, ours))
    largest = a.abs().max().item()
    return (a - b).abs().max().item() / (largest or 1)


def both(theirs: float, ours: float) -> dict[str, float]:
    """A row of two numbers."""
    return {"theirs": float(theirs), "ours": float(ours), "difference": gap(theirs, ours)}


def flat(state: Mapping[str, Tensor]) -> Tensor:
    """All tensors but counters as one vector."""
    kept = [tensor for name, tensor in sorted(state.items()) if not name.endswith("num_batches_tracked")]
    return torch.cat([tensor.detach().double().flatten() for tensor in kept])


def step_gap(before: Tensor, theirs: Tensor, ours: Tensor) -> dict[str, float]:
    """How far apart two networks are after a step from the same one: a share of the step, in L2."""
    return {"difference": ((theirs - ours).norm() / (theirs - before).norm()).item()}


class Batch(NamedTuple):
    """What both sides are given."""

    category: Category
    images: Tensor
    """(B, 3, 256, 256) uint8."""
    made: Synthetic
    """The same images with synthetic anomalies."""
    teacher: nn.Module


def same(theirs: Mapping[str, Tensor], ours: nn.Module, rename: Callable[[str], str]) -> dict[str, Tensor]:
    """Their tensors under our names."""
    found = {rename(name): tensor for name, tensor in theirs.items()}
    return {name: found[name].view_as(tensor).clone() for name, tensor in ours.state_dict().items()}


def stpm_name(name: str) -> str:
    """Of the official STPM student: children of torchvision's ResNet by number."""
    children = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    number, _, rest = name.removeprefix("model.").partition(".")
    return f"{children[int(number)]}.{rest}"


def destseg_name(name: str) -> str:
    """Of the official DeSTSeg's student and segmentation net."""
    name = name.replace("downsample", "shortcut")
    name = re.sub(r"^encoder\.(conv1|bn1)", lambda m: f"stem.{0 if m[1] == 'conv1' else 1}", name)
    name = re.sub(r"^encoder\.layer(\d)", lambda m: f"encoder.{int(m[1]) - 1}", name)
    name = re.sub(r"^decoder_layer(\d)", lambda m: f"decoder.{4 - int(m[1])}", name)
    name = name.replace("aspp_feature_extractors.0.1.", "pooled.").replace("aspp_fusion_layer.", "project.")
    name = re.sub(r"aspp_feature_extractors\.(\d)", lambda m: f"atrous.{int(m[1]) - 1}", name)
    name = re.sub(r"(pooled|project|atrous\.\d)\.conv", r"\1.0", name)
    name = re.sub(r"(pooled|project|atrous\.\d)\.norm", r"\1.1", name)
    return re.sub(r"^res\.", "residual.", name)


def segmentation_state(theirs: Mapping[str, Tensor], ours: nn.Module) -> dict[str, Tensor]:
    """`same` for the segmentation net: the official one reads the negative products, ours the products."""
    state = same(theirs, ours, destseg_name)
    first = ("residual.0.conv1.weight", "residual.0.shortcut.0.weight")
    return {name: -tensor if name in first else tensor for name, tensor in state.items()}

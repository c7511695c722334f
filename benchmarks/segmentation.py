"""A training step of PFADSeg and of its ablation's first row, in either stage: as it was and as it is.

python benchmarks/segmentation.py [--batch 16] [--compile] [--save]

As it was: PCAR's branches stacked, AFF's sum written out, PyTorch's pooling, an optimiser of one operator
after another, the teacher in every step of stage 1, memory handed back after every operator. Beside it stand
the processor's own limits: a large matrix product, and a convolution forward and backward.
"""

import argparse
import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from cost import operations
from side_by_side import asked, compare, report, timed_options
from torch import Tensor
from torchvision.models.resnet import conv3x3

from stlib.data.synthesis import AnomalySynthesis
from stlib.data.textures import load_textures
from stlib.methods import destseg, get_method
from stlib.methods.training import Execution, release_memory, reuse_memory
from stlib.nn import blocks
from stlib.nn.backbone import ResNet18Pyramid

Step = Callable[[], object]
ROWS = {"row 1": "none", "row 7": ""}
STAGES = ("student", "segmentation")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def stacked(pcar: blocks.PCAR, features: Tensor) -> Tensor:
    """PCAR as it was."""
    maps = torch.stack([branch(features) for branch in pcar.branches], dim=1)
    if pcar.spr is None:
        return maps.sum(dim=1)
    attention = torch.stack([pcar.spr(branch) for branch in maps.unbind(1)], dim=1)
    return (maps * attention.softmax(dim=1)).sum(dim=1)


def written_out(aff: blocks.AFF, residual: Tensor, shortcut: Tensor) -> Tensor:
    """AFF as it was."""
    total = residual + shortcut
    weight = torch.sigmoid(aff.local_context(total) + aff.global_context(blocks.average(total, 1, 1)))
    return aff.factor * (weight * residual + (1 - weight) * shortcut)


def pooled(features: Tensor, rows: int, columns: int) -> Tensor:
    """Average pooling as it was."""
    if rows == columns:
        return F.adaptive_avg_pool2d(features, rows)
    return features.mean(dim=3 if columns == 1 else 2, keepdim=True)


@contextmanager
def as_it_was() -> Iterator[None]:
    """The earlier forms, and glibc's own way with memory."""
    with (
        patch.object(blocks.PCAR, "forward", stacked),
        patch.object(blocks.AFF, "forward", written_out),
        patch.object(blocks, "average", pooled),
    ):
        with suppress(OSError, AttributeError):  # only glibc has it
            for option in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD: where glibc starts
                ctypes.CDLL(None).mallopt(option, 128 * 1024)
        release_memory()
        yield
        reuse_memory()


def training(
    variant: str, images: Tensor, execution: Execution, synthesis: AnomalySynthesis
) -> destseg.Training:
    """A training of PFADSeg on `images`, before its first step."""
    config = get_method("pfadseg").recipe("paper", variant).model_copy(update={"batch_size": len(images)})
    assert isinstance(config, destseg.Config)
    teacher = ResNet18Pyramid().eval().requires_grad_(False)
    return destseg.DeSTSeg(config, teacher, execution, synthesis).begin(images, seed=0)


def earlier(current: destseg.Training) -> destseg.Training:
    """The same training with the optimiser and the teacher as they were."""
    current.taught = None
    for optimiser in (current.student_optimiser, current.segmentation_optimiser):
        for group in optimiser.param_groups:
            group["fused"] = False
    return current


def steps(made: destseg.Training, *, before: bool = False) -> dict[str, Step]:
    """A step of each stage."""
    picks = made._picks()
    for gradients in (made.denoising, made.segmenting):
        gradients.warm = 1 << 30  # a recorded step would not know its earlier form
    found = {"student": partial(made._denoise, picks), "segmentation": partial(made._segment, picks)}
    return {stage: as_it_was()(step) if before else step for stage, step in found.items()}


def product_limit(device: torch.device, dtype: torch.dtype, side: int = 2048) -> float:
    """Floating-point operations per second of a square matrix product: what a GPU, or one core, can do."""
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    rows = compare({f"matrix product {side}, {dtype}": lambda: a @ b}, turns=5, device=device)
    return 2 * side**3 / busy(next(iter(rows.values())), device)


def busy(row: Mapping[str, float], device: torch.device) -> float:
    """Seconds that the processor worked: on a CPU those of all its cores, without waiting for other work."""
    return row["cpu_seconds"] if device.type == "cpu" else row["seconds"]


def convolution_limit(device: torch.device, dtype: torch.dtype, batch: int) -> float:
    """Operations per second of a 3x3 convolution, 256 channels, 64 x 64 positions, forward and backward."""
    layer = conv3x3(256, 256).to(device, dtype).to(memory_format=torch.channels_last)
    x = torch.randn(batch, 256, 64, 64, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    x.requires_grad_()
    gradient = torch.ones_like(layer(x))

    def both() -> None:
        layer(x).backward(gradient)

    rows = compare({f"3x3 convolution, {dtype}": both}, turns=5, device=device)
    return 3 * 2 * 9 * 256**2 * 64**2 * batch / busy(next(iter(rows.values())), device)


def main(arguments: argparse.Namespace) -> None:
    device = torch.device(arguments.device)
    reuse_memory()
    images = torch.randint(256, (arguments.batch, 3, 256, 256)).byte().to(device)
    synthesis = AnomalySynthesis(load_textures("demo", 256)[0].to(device), "pill")
    execution = Execution(device, arguments.precision)
    dtype = DTYPES[arguments.precision]
    limits = {
        "matrix product": product_limit(device, dtype),
        "convolution": convolution_limit(device, dtype, arguments.batch),
    }
    measured: dict[str, object] = {}
    for row, variant in ROWS.items():
        now, before, compiled = (training(variant, images, execution, synthesis) for _ in range(3))
        forms = {"now": steps(now), "before": steps(earlier(before), before=True)}
        if arguments.compile:
            for network in (compiled.student, compiled.segmentation):
                network.compile(dynamic=False)
            forms["now, torch.compile"] = steps(compiled)
        for stage in STAGES:
            print(f"\n{row}, {stage}, {arguments.batch} images, {arguments.precision}")
            work = operations(forms["now"][stage])
            timed = compare(
                {name: form[stage] for name, form in forms.items()}, turns=arguments.turns, device=device
            )
            measured[f"{row}, {stage}"] = {"operations": work, "times": timed}
    settings = {"batch": arguments.batch, "precision": arguments.precision, "limits": limits}
    report("segmentation", arguments, settings | {"steps": measured})


if __name__ == "__main__":
    parser = timed_options(__doc__ or "", turns=3)
    parser.add_argument("--batch", type=int, default=16, help="images per step")
    parser.add_argument("--precision", default="bf16", choices=list(DTYPES))
    parser.add_argument("--compile", action="store_true", help="torch.compile too: minutes of compilation")
    main(asked(parser))

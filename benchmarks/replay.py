"""A training step on a GPU, launched kernel by kernel and as one CUDA graph: its speed, and the same numbers.

python benchmarks/replay.py --device cuda [--save]
"""

import argparse
from functools import partial

import torch
from side_by_side import asked, compare, report, timed_options
from torch import Tensor

from stlib.data.synthesis import AnomalySynthesis
from stlib.methods import destseg, pfadseg, replay
from stlib.methods.training import Execution
from stlib.nn.backbone import ResNet18Pyramid
from stlib.protocol import Precision

STEPS = 6
"""Of one stage in a timed turn."""
NETWORKS = {
    "PFADSeg": pfadseg.PAPER,
    "row 1": pfadseg.PAPER.model_copy(update=pfadseg.ROWS["none"]),
    "DeSTSeg": destseg.Config(),
}


def noise(count: int) -> Tensor:
    """(count, 3, 256, 256) uint8: the time of a step does not depend on what the images show."""
    return torch.randint(256, (count, 3, 256, 256), generator=torch.Generator().manual_seed(0)).byte()


def training(
    config: destseg.Config, precision: Precision, device: torch.device, *, replayed: bool
) -> destseg.Training:
    """Before its first step; the recording is left out by an end of the warming up that never comes."""
    torch.manual_seed(0)
    teacher = ResNet18Pyramid().eval().requires_grad_(False)
    synthesis = AnomalySynthesis(noise(50).to(device), "pill")
    begun = destseg.DeSTSeg(config, teacher, Execution(device, precision), synthesis).begin(noise(64), 0)
    for gradients in (begun.denoising, begun.segmenting):
        gradients.warm = replay.WARM if replayed else 1 << 30
    return begun


def losses(device: torch.device, *, replayed: bool) -> list[float]:
    """Eight steps of either stage of a narrow PFADSeg."""
    config = pfadseg.PAPER.model_copy(update={"width": 0.25, "batch_size": 4})
    steps = training(config, "fp32", device, replayed=replayed)
    first = [steps._denoise(steps._picks())["distillation_loss"].item() for _ in range(8)]
    return first + [steps._segment(steps._picks())["focal_loss"].item() for _ in range(8)]


def spread(ones: list[float], others: list[float]) -> float:
    """The largest difference of two trainings' losses, relative."""
    return max(abs(one - other) / other for one, other in zip(ones, others, strict=True))


def main(arguments: argparse.Namespace) -> None:
    device, same = torch.device(arguments.device), {}
    for name, exact in (("reproducible kernels", True), ("usual kernels", False)):
        torch.use_deterministic_algorithms(exact, warn_only=True)
        stepped = losses(device, replayed=False)
        same[name] = {
            "replayed against stepped": spread(losses(device, replayed=True), stepped),
            "stepped again": spread(losses(device, replayed=False), stepped),
        }
        print(name, same[name])
    torch.use_deterministic_algorithms(False)
    steps = {}
    for network, config in NETWORKS.items():
        for precision in ("tf32", "bf16"):
            forms = ("replayed", "stepped")
            both = {form: training(config, precision, device, replayed=form == "replayed") for form in forms}
            for stage in ("student", "segmentation"):

                def work(made: destseg.Training, stage: str = stage) -> None:
                    learn = made._denoise if stage == "student" else made._segment
                    for _ in range(STEPS):
                        learn(made._picks())

                print(f"\n{network}, {stage}, {precision}: {STEPS} steps")
                steps[f"{network}, {stage}, {precision}"] = compare(
                    {form: partial(work, made) for form, made in both.items()},
                    turns=arguments.turns, device=device, items=STEPS,
                )  # fmt: skip
    report("replay", arguments, {"losses": same, "steps": steps})


if __name__ == "__main__":
    parser = timed_options(__doc__ or "", turns=5)
    arguments = asked(parser)
    if not arguments.device.startswith("cuda"):
        parser.error("only a GPU replays: --device cuda")
    main(arguments)

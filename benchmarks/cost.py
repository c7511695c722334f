"""What each method and each row of the ablation costs: parameters, operations, seconds of a training step.

python benchmarks/cost.py [--batch 2] [--device cuda] [--precision bf16] [--save]
"""

import argparse
from collections.abc import Callable
from typing import NotRequired, TypedDict, get_args

import torch
from side_by_side import asked, compare, report, show, timed_options
from stpm import ours as stpm_step
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stlib.data.synthesis import AnomalySynthesis
from stlib.data.textures import load_textures
from stlib.methods import destseg, get_method
from stlib.methods.training import Execution
from stlib.nn.backbone import ResNet18Pyramid
from stlib.protocol import ABLATION_ROWS, Precision

Step = Callable[[], object]


class Cost(TypedDict):
    """A method's size, operations per image, and once timed seconds per image of a step of each stage."""

    parameters: int
    image_flops: float
    step_flops: dict[str, float]
    seconds: NotRequired[dict[str, float]]


def destseg_steps(
    name: str, variant: str, images: Tensor, execution: Execution, synthesis: AnomalySynthesis
) -> tuple[nn.Module, Step, Step]:
    """The network that is deployed, and a step of either stage; anomalies are made anew in each."""
    config = get_method(name).recipe("paper", variant).model_copy(update={"batch_size": len(images)})
    assert isinstance(config, destseg.Config)
    method = destseg.DeSTSeg(config, ResNet18Pyramid().eval(), execution, synthesis)
    training = method.begin(images, seed=0)
    return (
        method.network,
        lambda: training._denoise(training._picks()),
        lambda: training._segment(training._picks()),
    )


def operations(step: Step) -> float:
    """Floating-point operations of convolutions and products in one call."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def description(network: nn.Module, steps: dict[str, Step], images: Tensor) -> Cost:
    with torch.no_grad():
        forward = operations(lambda: network.eval()(images))
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "image_flops": forward / len(images),
        "step_flops": {stage: operations(step) / len(images) for stage, step in steps.items()},
    }


def main(arguments: argparse.Namespace) -> None:
    device = torch.device(arguments.device)
    execution = Execution(device, arguments.precision)
    images = torch.randint(256, (arguments.batch, 3, 256, 256)).byte().to(device)
    network = get_method("stpm").empty_network(get_method("stpm").recipe("paper")).to(device)
    step = stpm_step(images, execution.precision)
    methods = {"STPM": description(network, {"student": step}, images)}
    works = {"STPM: student": step}
    synthesis = AnomalySynthesis(load_textures("demo", 256)[0].to(device), "bottle")
    rows = {"DeSTSeg": ("destseg", "")} | {
        f"PFADSeg, {row}": ("pfadseg", v) for row, v in ABLATION_ROWS.items()
    }
    for title, (name, variant) in rows.items():
        network, first, second = destseg_steps(name, variant, images, execution, synthesis)
        methods[title] = description(network, {"student": first, "segmentation": second}, images)
        works |= {f"{title}: student": first, f"{title}: segmentation": second}
    print(f"training steps on {arguments.batch} images, {arguments.precision}")
    times = compare(works, turns=arguments.turns, device=device, items=arguments.batch)
    for title, about in methods.items():
        about["seconds"] = {
            stage: times[f"{title}: {stage}"]["seconds"] / arguments.batch for stage in about["step_flops"]
        }
    show({t: {"parameters": m["parameters"], "image_flops": m["image_flops"]} for t, m in methods.items()})
    settings = {"batch": arguments.batch, "precision": arguments.precision}
    report("cost", arguments, settings | {"methods": methods})


if __name__ == "__main__":
    parser = timed_options(__doc__ or "", turns=3)
    parser.add_argument("--batch", type=int, default=2, help="images per step of the methods")
    parser.add_argument("--precision", default="bf16", choices=get_args(Precision))
    main(asked(parser))

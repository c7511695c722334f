"""Does a training step wait for Python or for data? Shares of a step's time, from PyTorch's profiler.

python benchmarks/waiting.py [--batch 8] [--device cuda] [--save]

Working is the share of the step in which the device runs an operator (on a GPU: a kernel); the rest is Python
and PyTorch's own bookkeeping between two. Data is the share spent making the step's images.
"""

import argparse
from collections.abc import Callable, Iterable
from statistics import median
from typing import get_args

import torch
from cost import destseg_steps
from side_by_side import options, report
from stpm import ours as stpm_step
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from stlib.data.synthesis import AnomalySynthesis, Synthetic
from stlib.data.textures import load_textures
from stlib.methods.training import Execution
from stlib.protocol import Precision

STEP, DATA = "one step", "its data"


class Marked(AnomalySynthesis):
    """Synthesis whose time is told apart in the profile."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Synthetic:
        with record_function(DATA):
            return super().__call__(images, generator)


def shares(step: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Of one step: the share that the device works, and the share that its data take."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, acc_events=True) as measured, record_function(STEP):
        step()
        if on_gpu:
            torch.cuda.synchronize(device)
    events = list(measured.events())
    (whole,) = (e.time_range for e in events if e.name == STEP and e.device_type == DeviceType.CPU)
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    # on a GPU the marks STEP and DATA appear as well: they are no work
    done = [e for e in events if e.device_type == kind and not e.is_user_annotation]
    work = [e.time_range for e in done if on_gpu or e.name.startswith("aten::")]
    data = [e.time_range for e in events if e.name == DATA and e.device_type == DeviceType.CPU]
    length = whole.end - whole.start
    return {
        "working": covered((span.start, span.end) for span in work) / length,
        "data": covered((span.start, span.end) for span in data) / length,
    }


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def main(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    execution = Execution(device, arguments.precision)
    images = torch.randint(256, (arguments.batch, 3, 256, 256)).byte().to(device)
    synthesis = Marked(load_textures("demo", 256)[0].to(device), "bottle")
    steps = {"STPM": stpm_step(images, execution.precision)}
    for title, name in (("DeSTSeg", "destseg"), ("PFADSeg", "pfadseg")):
        _, first, second = destseg_steps(name, "", images, execution, synthesis)
        steps |= {f"{title}, student": first, f"{title}, segmentation": second}
    found = {}
    print(f"{'one step on ' + str(arguments.batch) + ' images':30} working     data")
    for name, step in steps.items():
        step()  # allocates, fills caches
        turns = [shares(step, device) for _ in range(arguments.turns)]
        found[name] = {key: round(median(turn[key] for turn in turns), 4) for key in turns[0]}
        print(f"{name:30} {found[name]['working']:7.1%} {found[name]['data']:8.1%}")
    report("waiting", arguments, {"batch": arguments.batch, "precision": arguments.precision, "steps": found})


if __name__ == "__main__":
    parser = options(__doc__ or "", turns=3)
    parser.add_argument("--batch", type=int, default=8, help="images per step")
    parser.add_argument(
        "--precision", choices=get_args(Precision), default="bf16", help="of the convolutions"
    )
    main(parser.parse_args())

"""Equal weights and equal inputs through the authors' code and through ours: how far apart are they?

python benchmarks/parity.py CLONES [--data MVTEC_AD --category bottle --teacher WEIGHTS] [--time] [--save]

CLONES holds clones of STFPM, ml-destseg, open-aff, CGRSeg, MSPANet and DRAEM (COMMITS says which commits).
Their code is imported from there; none of it is here. It asks for timm, opencv, imgaug and imageio
(benchmarks/requirements.txt). STPM's `train_val` and `test` and DeSTSeg's `train` run as they are: `.cuda()`
stays on the CPU, the dataset is a fixed batch, and what only logs or evaluates is a stand-in. A difference is
the largest one over the largest value of theirs; after a step, its length over that of the step. Steps are
made in float64 and in float32. With --time training steps of DeSTSeg are timed in turn.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import against_destseg
import against_stpm
import numpy as np
import torch
from authors import COMMITS, Batch, Rows, gap, options_with_clones, their_code
from side_by_side import asked, compare, report, show
from torch import Tensor, nn

from stlib.data import synthesis
from stlib.data.mvtec import load_category
from stlib.data.textures import load_textures
from stlib.demo.dataset import make_demo
from stlib.nn.backbone import load_teacher
from stlib.nn.blocks import AFF, PCAR, RCM, SPR

CPU = torch.device("cpu")


def noise(clones: Path, count: int = 200) -> Rows:
    """DRAEM's Perlin noise with the gradients that ours draws."""
    drawn = torch.Generator().manual_seed(0)
    cells = 2 ** torch.randint(6, (2, count, 1), generator=drawn)
    turns = torch.rand(count, 33, 33, generator=drawn).numpy()
    ours = synthesis.perlin_noise(count, 256, torch.Generator().manual_seed(0), CPU)
    pairs = list(zip(*cells.squeeze(-1).tolist(), strict=True))
    with their_code(clones / "DRAEM") as code:
        made = []
        for shape, turn in zip(pairs, turns, strict=True):
            with patch.object(np.random, "rand", lambda rows, columns, turn=turn: turn[:rows, :columns]):
                made.append(code("perlin").rand_perlin_2d_np((256, 256), shape))
    return {
        f"DRAEM: Perlin noise, {len(set(pairs))} pairs of cells": {"difference": gap(np.stack(made), ours)}
    }


def in_order(theirs: nn.Module, ours: nn.Module) -> None:
    """Give `ours` their weights; both have the same tensors in the same order."""
    pairs = zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True)
    ours.load_state_dict({name: given.view_as(tensor) for (name, tensor), given in pairs})


def pcar(module: nn.Module, ours: PCAR) -> Callable[[Tensor], Tensor]:
    """MSPANet's module as PCAR has it, its branches side by side and summed; gives `ours` its weights."""
    vars(module).update(stype="stage", stride=2)  # no chain of branches; the layers are built, at stride 1
    names = {"0": "convs", "1": "bns"}
    state = module.state_dict()
    for name in ours.state_dict():
        if name.startswith("branches"):
            _, branch, part, rest = name.split(".")
            state[name] = state.pop(f"{names[part]}.{branch}.{rest}")
    own = {
        n.replace("attention.fc1", "spr.squeeze").replace("attention.fc2", "spr.excite"): t
        for n, t in state.items()
    }
    ours.load_state_dict(own)
    return lambda x: module(torch.cat([x] * 3, 1)).unflatten(1, (3, -1)).sum(1)


def modules(clones: Path) -> Rows:
    """AFF, SPR, PCAR and RCM beside the modules that PFADSeg takes them from: outputs and gradients."""
    torch.manual_seed(0)
    x, y = torch.randn(2, 4, 64, 16, 16)
    found: Rows = {}
    with their_code(clones / "open-aff" / "aff_pytorch" / "aff_net") as code:
        theirs, ours = code("fusion").AFF(64), AFF(64)
        in_order(theirs, ours)
        found |= outputs("open-aff: AFF", theirs, ours, x, y)
    with their_code(clones / "CGRSeg" / "models" / "decode_heads") as code:
        theirs, own = code("rcm").RCM(64, ls_init_value=1.0), RCM(64, layer_scale=1.0)
        in_order(theirs, own)
        found |= outputs("CGRSeg: RCM", theirs, own, x)
    with their_code(clones / "MSPANet") as code:
        theirs, spr = code("ImageNet.mspanet").SPRModule(64), SPR(64)
        in_order(theirs, spr)
        found |= outputs("MSPANet: SPR", theirs, spr, x)
        whole = PCAR(64)
        found |= outputs("MSPANet: PCAR", pcar(code("ImageNet.mspanet").MSAModule(64), whole), whole, x)
    return found


def outputs(name: str, theirs: Callable[..., Tensor], ours: Callable[..., Tensor], *inputs: Tensor) -> Rows:
    """In training mode; and the gradients of the inputs."""
    made = []
    for module in (theirs, ours):
        given = [part.clone().requires_grad_() for part in inputs]
        output = module(*given)
        weights = torch.linspace(-1, 1, output.numel()).view_as(output)
        gradients = torch.autograd.grad((output * weights).sum(), given)
        made.append((output.detach(), torch.stack(gradients)))
    (a, da), (b, db) = made
    return {f"{name}, output": {"difference": gap(a, b)}, f"{name}, gradient": {"difference": gap(da, db)}}


def timing(clones: Path, batch: Batch, turns: int, steps: int = 2) -> dict[str, Rows]:
    """Seconds of DeSTSeg's training loops in float32, theirs and ours in turn, over some steps of a stage."""
    found: dict[str, Rows] = {}
    with their_code(clones / "ml-destseg") as code:
        official = against_destseg.Official(code, batch)
        ours = against_destseg.Ours(official)
        for stage, schedule in {1: (steps, 0), 2: (0, steps)}.items():
            loops = {
                "ours": lambda stage=stage: [ours.step(stage) for _ in range(steps)],
                "the authors'": lambda schedule=schedule: official.run(*schedule),
            }
            found[f"stage {stage}"] = compare(loops, turns=turns, device=CPU, items=steps * len(batch.images))
    return found


def main(arguments: argparse.Namespace) -> None:
    teacher, _ = load_teacher(arguments.teacher)
    category = load_category(arguments.data or make_demo(), arguments.category)
    images = category.train[: arguments.batch]
    textures, _ = load_textures("demo", 256)
    made = synthesis.AnomalySynthesis(textures, category.name)(images, torch.Generator().manual_seed(0))
    batch = Batch(category, images, made, teacher)
    found = against_stpm.rows(arguments.clones, batch)
    found |= against_destseg.rows(arguments.clones, batch, arguments.draws)
    found |= modules(arguments.clones) | noise(arguments.clones)
    show(found)
    results: dict[str, object] = {
        "commits": COMMITS,
        "category": category.name,
        "batch": arguments.batch,
        "checks": found,
    }
    if arguments.time:
        results["time"] = timing(arguments.clones, batch, arguments.turns)
    report("parity", arguments, results)


if __name__ == "__main__":
    parser = options_with_clones(__doc__ or "")
    parser.add_argument("--turns", type=int, default=3, help="of --time, after one that is not counted")
    parser.add_argument("--batch", type=int, default=4, help="images; 4 take some 7 GB in float64")
    parser.add_argument("--draws", type=int, default=1500, help="synthetic masks")
    parser.add_argument("--time", action="store_true", help="time training steps of DeSTSeg, too")
    main(asked(parser))

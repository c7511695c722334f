"""What the readings of PFADSeg's text do to the first steps of its student: loss, and its own pixel AP.

python benchmarks/readings.py --data MVTEC_AD --textures DTD --teacher WEIGHTS [--save]

Only stage 1, and only its beginning: STEPS steps of BATCH images of SIDE pixels, at the rates of the recipe,
in bfloat16. All readings of one seed see the same images and the same anomalies in the same order. A run that
has ended is kept below build, and not made again with the same code and teacher. RCM
has no part in stage 1; what it does at its initial LayerScale is measured beside it, and so is how far PCAR
is from the mean of its branches.
"""

import argparse
from itertools import product
from statistics import fmean

import torch
from side_by_side import asked, each_run, given, options_with_textures, report
from torch import Tensor, nn

from stlib.data.mvtec import Category
from stlib.data.synthesis import AnomalySynthesis
from stlib.data.textures import load_textures
from stlib.methods import destseg, get_method
from stlib.methods.pfadseg import CHOICES
from stlib.methods.training import Execution
from stlib.metrics import PixelRanking, label_regions
from stlib.nn.backbone import prepare
from stlib.nn.blocks import PCAR, RCM
from stlib.nn.losses import cosine_distances
from stlib.nn.maps import fuse, stack_levels

SIDE, BATCH, STEPS, LAST = 128, 8, 60, 10
"""Fixed before the first run. The loss is the mean of the LAST steps'."""
CATEGORIES, SEEDS = ("bottle", "pill"), (0, 1, 2)
READINGS = (
    "PCAR", "control", "none", "none+zero-init", "PCAR, softmax=maps", "PCAR, softmax=channels",
    "PCAR, dilations=1-2-3", "PCAR, reduction=mean", "AFF", "AFF+PCAR",
)  # fmt: skip
"""A row of the ablation, and the choice that differs from it; the others are held against the first."""
NAME = "readings"


def recipe(reading: str) -> destseg.Config:
    """Of stage 1, shortened."""
    row, _, choice = reading.partition(", ")
    short = {"image_size": SIDE, "batch_size": BATCH, "student_steps": STEPS}
    config = get_method("pfadseg").recipe("paper", row).model_copy(update=short | CHOICES.get(choice, {}))
    assert isinstance(config, destseg.Config)
    return config


def train(
    reading: str, category: Category, teacher: nn.Module, textures: Tensor, seed: int
) -> dict[str, float]:
    """The student's `loss` per image over the LAST steps, and the `pixel_ap` of its distances."""
    synthesis = AnomalySynthesis(textures, category.name)
    method = destseg.DeSTSeg(recipe(reading), teacher, Execution(torch.device("cpu"), "bf16"), synthesis)
    training = method.begin(category.train, seed)
    losses = []
    for training.step in range(STEPS):
        losses.append(training._denoise(training._picks())["distillation_loss"].item())
    method.student.eval()
    maps = []
    for images in torch.split(category.test, BATCH):
        with torch.no_grad():
            x = prepare(images)
            maps.append(fuse(stack_levels(cosine_distances(teacher(x), method.student(x))), SIDE))
    ranking = PixelRanking(torch.cat(maps), label_regions(category.masks))
    return {"loss": fmean(losses[-LAST:]), "pixel_ap": ranking.average_precision()}


def at_start() -> dict[str, float]:
    """Untrained modules on noise: how near PCAR is to the mean of its branches, RCM to the identity."""
    torch.manual_seed(0)
    x = torch.randn(8, 256, 16, 16).relu()
    pcar, found = PCAR(256), {}
    with torch.no_grad():
        mean = torch.stack([branch(x) for branch in pcar.branches]).mean(0)
        pairs = torch.stack([pcar(x).flatten(), mean.flatten()])
        found["pcar_correlation_with_mean"] = torch.corrcoef(pairs)[0, 1].item()
    for scale in (1e-6, 1.0):
        torch.manual_seed(0)
        rcm = RCM(256, layer_scale=scale)
        output = rcm(x)
        found[f"rcm_change_gamma={scale:g}"] = ((output - x).abs().max() / x.abs().max()).item()
        output.mean().backward()
        gradients = torch.cat([p.grad.flatten() for p in rcm.mlp.parameters() if p.grad is not None])
        found[f"rcm_gradient_gamma={scale:g}"] = gradients.norm().item()
    return found


def main(arguments: argparse.Namespace) -> None:
    settings, teacher, categories = given(
        arguments, SIDE, CATEGORIES, batch=BATCH, steps=STEPS, last=LAST, precision="bf16"
    )
    start = at_start()
    textures, _ = load_textures(arguments.textures, SIDE)

    def make(reading: str, category: str, seed: int) -> dict[str, float]:
        return train(reading, categories[category], teacher, textures, seed)

    places = product(SEEDS, CATEGORIES, READINGS)
    keys = [{"reading": reading, "category": name, "seed": seed} for seed, name, reading in places]
    for runs in each_run(NAME, settings, keys, make):
        report(NAME, arguments, settings | {"start": start, "runs": runs})


if __name__ == "__main__":
    main(asked(options_with_textures(__doc__ or "")))

"""How much does the last step decide, and do runs of one seed rise and fall together? Small networks.

python benchmarks/last_steps.py --data MVTEC_AD --textures DTD --teacher WEIGHTS [--save]

PFADSeg and its row 1 with a quarter of their width, STEPS of BATCH images of SIDE pixels at the rates of the
recipe, on the CPU. From half of the segmentation net's training on, the pixel AP of every second test image
is taken every EVERY steps. A run that has ended is kept below build, and not made again with the same code
and teacher.
"""

import argparse

import torch
from side_by_side import asked, each_run, given, options_with_textures, report
from torch import Tensor, nn

from stlib.data.mvtec import Category
from stlib.data.synthesis import AnomalySynthesis
from stlib.data.textures import load_textures
from stlib.methods import destseg, get_method
from stlib.methods.training import Execution
from stlib.metrics import PixelRanking, label_regions

SIDE, BATCH, STEPS, EVERY = 128, 8, (300, 400), 10
"""Fixed before the first run."""
CATEGORIES = ("pill", "transistor", "grid")
RUNS = [
    {"row": row, "category": name, "seed": seed}
    for row, seed in (("none", 0), ("", 0), ("none", 1))
    for name in CATEGORIES
]
"""Row of the ablation, category, seed: pairs of them differ in one of the three or in more."""
NAME = "last_steps"


def train(row: str, category: Category, teacher: nn.Module, textures: Tensor, seed: int) -> list[float]:
    """Pixel AP at every evaluation."""
    student_steps, segmentation_steps = STEPS
    short = {"image_size": SIDE, "batch_size": BATCH, "width": 0.25}
    short |= {"student_steps": student_steps, "segmentation_steps": segmentation_steps}
    config = get_method("pfadseg").recipe("paper", row).model_copy(update=short)
    assert isinstance(config, destseg.Config)
    synthesis = AnomalySynthesis(textures, category.name)
    method = destseg.DeSTSeg(config, teacher, Execution(torch.device("cpu"), "fp32"), synthesis)
    training = method.begin(category.train, seed)
    seen, regions = category.test[::2], label_regions(category.masks[::2])
    total = student_steps + segmentation_steps
    evaluated = range(student_steps + segmentation_steps // 2, total + 1, EVERY)
    found = []
    for training.step in range(total):
        (training._denoise if training.step < student_steps else training._segment)(training._picks())
        if training.step + 1 in evaluated:
            found.append(PixelRanking(method.maps(seen).pixel, regions).average_precision())
    return found


def main(arguments: argparse.Namespace) -> None:
    settings, teacher, categories = given(
        arguments, SIDE, CATEGORIES, batch=BATCH, steps=list(STEPS), every=EVERY, precision="fp32"
    )
    textures, _ = load_textures(arguments.textures, SIDE)

    def make(row: str, category: str, seed: int) -> dict[str, object]:
        return {"pixel_ap": train(row, categories[category], teacher, textures, seed)}

    for runs in each_run(NAME, settings, RUNS, make):
        report(NAME, arguments, settings | {"runs": runs})


if __name__ == "__main__":
    main(asked(options_with_textures(__doc__ or "")))

"""Where do the jumps of STPM's validation error lie: in the student's weights, or in BatchNorm's statistics?

python benchmarks/jumps.py --data MVTEC_AD --teacher WEIGHTS [--save]

STPM by its paper's recipe, in bf16 on the CPU. A jump is an epoch whose validation error is more than TIMES
the lowest so far, as in the book. At every jump, and at every EVERY-th epoch to compare with, the student is
measured twice: with the running statistics of its training, and with statistics that one pass over the
training images takes anew (Precise BN: Wu and Johnson, arXiv:2105.07576); the weights are the same. The
training goes on as if nobody had looked. A run that has ended is kept below build, and not made again with
the same code and teacher.
"""

import argparse
import copy

import torch
from side_by_side import asked, each_run, given, options_with_data, report
from torch import nn

from stlib.data.mvtec import Category
from stlib.methods import stpm
from stlib.methods.training import Execution
from stlib.metrics import PixelRanking, image_metrics, label_regions
from stlib.nn.backbone import features
from stlib.nn.losses import l2_normalize

TIMES, EVERY = 3, 10
"""Fixed before the first run, and so are the categories: where the book's runs of seed 0 jump most."""
RUNS = [{"category": name, "seed": 0} for name in ("grid", "capsule", "pill")]
NAME = "jumps"


def train(category: Category, teacher: nn.Module, seed: int) -> list[dict[str, float]]:
    """Of every epoch its loss and validation error; of those that are looked at, what both students reach."""
    method = stpm.STPM(stpm.Config(), teacher, Execution(torch.device("cpu"), "bf16"))
    images, regions = category.train, label_regions(category.masks)
    learn, hold = stpm._split(method.config, len(images))
    targets = [l2_normalize(level) for level in features(method.teacher, images, method.config.batch_size)]
    training = method.begin(seed)
    epochs: list[dict[str, float]] = []

    def reached(when: str) -> dict[str, float]:
        maps = method.maps(category.test)
        ranking = PixelRanking(maps.pixel, regions)
        scores = {"pixel_auroc": ranking.auroc(), "pixel_ap": ranking.average_precision()}
        scores |= {"image_auroc": image_metrics(maps.image, category.labels)["image_auroc"]}
        return {name + when: value for name, value in scores.items()}

    for epoch in range(method.config.epochs):
        loss = training.run_epoch(images, targets, stpm._shuffled(learn, seed, epoch))
        error = method._mean_fused(images, targets, hold)
        found = {"loss": loss, "validation": error}
        lowest = min((one["validation"] for one in epochs), default=error)
        if error > TIMES * lowest or (epoch + 1) % EVERY == 0:
            kept = copy.deepcopy(method.student.state_dict())
            found |= reached("")
            method.renew_statistics(images[learn])
            found["validation_anew"] = method._mean_fused(images, targets, hold)
            found |= reached("_anew")
            method.student.load_state_dict(kept)
        epochs.append(found)
        print(epoch + 1, *(f"{name} {value:.3g}" for name, value in found.items()), flush=True)
    return epochs


def main(arguments: argparse.Namespace) -> None:
    settings, teacher, categories = given(
        arguments, 256, [str(run["category"]) for run in RUNS], times=TIMES, every=EVERY, precision="bf16"
    )

    def make(category: str, seed: int) -> dict[str, object]:
        return {"epochs": train(categories[category], teacher, seed)}

    for runs in each_run(NAME, settings, RUNS, make):
        report(NAME, arguments, settings | {"runs": runs})


if __name__ == "__main__":
    main(asked(options_with_data(__doc__ or "")))

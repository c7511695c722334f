"""What ET-STPM's teacher learns from: the images of every category, each with its category as the label."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from stlib.data.images import DatasetError, read_images
from stlib.data.layout import Layout, categories_in, scan
from stlib.data.splits import seen_anomalies, split_train
from stlib.methods.finetuning import ClassifierData, Tuning
from stlib.protocol import CATEGORIES


def categories_of(root: Path) -> list[Layout]:
    """Every category under `root`, MVTec AD's names first in the papers' order.

    Beside images of MVTec AD no other names are taken: what else lies there belongs to no paper's teacher.
    Raises DatasetError for a folder with `train/good` that cannot be used.
    """
    found = [name for name in categories_in(root) if (root / name / "train" / "good").exists()]
    named = [scan(root, name) for name in found if name in CATEGORIES]
    if any(layout.dataset == "MVTec AD" for layout in named):  # own parts, too, may be called 'screw'
        return named
    return [*named, *(scan(root, name) for name in found if name not in CATEGORIES)]


def require_classes(root: Path) -> list[Layout]:
    """What `categories_of` finds, where there are categories to tell apart.

    Of a single one every answer is right: the loss is 0, and nothing is learnt but BatchNorm's statistics.
    Raises DatasetError for fewer than two.
    """
    with learning_from(root):
        layouts = categories_of(root)
    if len(layouts) < 2:
        found = f"only {layouts[0].category}" if layouts else "none"
        raise DatasetError(
            f"ET-STPM fine-tunes its teacher to tell categories apart and needs at least two under {root}, "
            f"which holds {found}: use STPM, or add categories"
        )
    return layouts


@contextmanager
def learning_from(root: Path) -> Iterator[None]:
    """Say of an image that cannot be used why it was read: it may be of another category than the run's."""
    try:
        yield
    except DatasetError as error:
        raise DatasetError(f"the teacher learns from all categories under {root}: {error}") from error


def classifier_data(layouts: Sequence[Layout], tuning: Tuning) -> ClassifierData:
    """Images and category labels to learn from; the held-out ones are normal images of every category."""
    paths: list[list[Path]] = [[], []]
    labels: list[list[int]] = [[], []]
    for label, layout in enumerate(layouts):
        good = layout.folder / "train" / "good"
        learn, hold = split_train(len(layout.train), fraction=tuning.held_out, seed=tuning.seed, folder=good)
        extra = [item.image for item in seen_anomalies(layout, tuning.data)]
        parts = ([*(layout.train[i] for i in learn), *extra], [layout.train[i] for i in hold])
        for place, part in enumerate(parts):
            paths[place] += part
            labels[place] += [label] * len(part)
    images = [read_images(part, tuning.image_size) for part in paths]
    return ClassifierData(images[0], torch.tensor(labels[0]), images[1], torch.tensor(labels[1]))

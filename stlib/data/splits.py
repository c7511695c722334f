"""Which images of a category are used for what."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from stlib.data.layout import Layout, TestItem


def split_train(
    count: int, *, fraction: float = 0.2, seed: int = 0, folder: Path | str = "train/good"
) -> tuple[list[int], list[int]]:
    """Indices of the training and validation images, as the official STPM code splits the sorted list.

    That code calls scikit-learn's `train_test_split` with `random_state=seed`: the head of one permutation is
    held out. The very same images are held out here. Raises ValueError for fewer than two images,
    naming their `folder`.
    """
    if count < 2:
        raise ValueError(f"{folder} holds {count} image: one to learn from and one to hold out are needed")
    order = np.random.RandomState(seed).permutation(count).tolist()  # the generator that scikit-learn uses
    held = math.ceil(fraction * count)
    return order[held:], order[:held]


def seen_anomalies(layout: Layout, data: Literal["A", "B", "C"]) -> list[TestItem]:
    """The anomalous test images that fine-tuning sees: none (A), a fixed random half (B), all (C)."""
    anomalous = layout.defective
    if data == "A":
        return []
    if data == "C":
        return anomalous
    order = torch.randperm(len(anomalous), generator=torch.Generator().manual_seed(0)).tolist()
    return [anomalous[i] for i in sorted(order[: (len(anomalous) + 1) // 2])]


def unseen_indices(layout: Layout) -> list[int]:
    """Indices of the test images that variant B does not see: all good ones and the other half."""
    seen = {item.image for item in seen_anomalies(layout, "B")}
    return [index for index, item in enumerate(layout.test) if item.image not in seen]

"""Which images of a category are used for what."""

from typing import Literal

import torch
from sklearn.model_selection import train_test_split

from stlib.data.mvtec import Layout, TestItem


def split_train(count: int, *, fraction: float = 0.2, seed: int = 0) -> tuple[list[int], list[int]]:
    """Indices of the training and validation images, as the official STPM code splits the sorted list.

    scikit-learn's `train_test_split` with `random_state=seed`, so that the very same images are held out.
    Raises ValueError for fewer than two images.
    """
    if count < 2:
        raise ValueError(f"train/good holds {count} image: one to learn from and one to hold out are needed")
    train, validation = train_test_split(range(count), test_size=fraction, random_state=seed)
    return list(train), list(validation)


def seen_anomalies(layout: Layout, data: Literal["A", "B", "C"]) -> list[TestItem]:
    """The anomalous test images that fine-tuning sees: none (A), a fixed random half (B), all (C)."""
    anomalous = [item for item in layout.test if item.defect != "good"]
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

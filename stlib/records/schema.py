"""What records say of teachers, textures and trainings. Imports no torch."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class TuningInfo(BaseModel):
    """How a fine-tuned teacher (ET-STPM) was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Of its record, `results/teachers/<profile>/<name>.json`."""
    epochs: int
    """Full epochs, after the one that trained only the head."""
    data: Literal["A", "B", "C"]
    """A: train/good. B: and half of the anomalous test images. C: and all of them."""
    categories: list[str]
    """The classes."""
    source_sha256: str
    """Hash of the pyramid before fine-tuning."""


class TeacherInfo(BaseModel):
    """What the teacher's weights are; goes into every record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    """'torchvision IMAGENET1K_V1', 'demo', 'random' or the file's name."""
    file_sha256: str | None
    """Hash of the weight file, where there is one."""
    pyramid_sha256: str
    """Hash of the tensors actually used (conv1 to layer3); equal weights from different files agree."""
    missing: list[str]
    """Tensors of the full ResNet-18 that the source lacks: irrelevant unless layer4 is trained."""
    tuned: TuningInfo | None = None
    """None for a teacher that is used as it comes."""


class TextureInfo(BaseModel):
    """Where the foreign textures of synthetic anomalies come from; goes into the records that used them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["DTD", "demo"]
    fingerprint: str
    """SHA-256 over names and contents of the files, or over the drawn pixels."""
    images: int


class Training(BaseModel):
    """What was trained and tested."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    steps: int
    """Optimiser steps taken."""
    images_seen: int
    """Training images shown, repeats counted."""
    selected: dict[str, float]
    """Which checkpoint is tested and why, e.g. {'epoch': 87, 'val_score': 0.0012}."""


class History(Training):
    """What a training left to look at; goes into every record."""

    model_config = ConfigDict(extra="forbid")

    curves: dict[str, list[float]]
    """Named series, one value per epoch or per logging interval."""

from datetime import UTC, datetime

import numpy as np
import pytest

from stlib.protocol import CATEGORIES, METRICS
from stlib.records.schema import Dataset, History, ImageScore, Record, Runtime, TeacherInfo
from stlib.records.teacher import TeacherRecord
from stlib.study.curves import LEVELS


@pytest.fixture(scope="session")
def make_record():
    """A factory of valid records: complete MVTec AD, the paper's schedule, and every metric at `value`."""

    def make(
        category="bottle",
        seed=0,
        value=0.97,
        *,
        metrics=None,
        undefined=None,
        gaps=(),
        dataset="MVTec AD",
        teacher="torchvision IMAGENET1K_V1",
        status="finished",
        spread=0.01,
        **fields,
    ):
        undefined = undefined or {}
        scores = {m: value for m in METRICS if m not in undefined} | (metrics or {})
        counts = CATEGORIES.get(category, CATEGORIES["bottle"])
        noise = np.random.default_rng(1).uniform(-spread, spread, 200)
        finished = {
            "history": History(
                steps=600,
                images_seen=16_700,
                curves={"train_loss": [3.5, 1.2, 0.5], "val_score": [0.1, 0.02, 0.03]},
                selected={"epoch": 2, "val_score": 0.02},
            ),
            "metrics": scores,
            "undefined": undefined,
            "sensitivity": {
                name: {metric: score - 0.05 for metric, score in scores.items()}
                for name in ("maps=sum", "score=top100", "masks=any", "masks=full", "checkpoint=last")
            },
            "image_scores": [
                ImageScore(image="broken/000.png", score=0.9),
                ImageScore(image="broken/001.png", score=0.4),
                ImageScore(image="good/000.png", score=0.5),
                ImageScore(image="good/001.png", score=0.1),
            ],
            "pixel_curves": {"fpr": [0.0, 0.2, 1.0], "recall": [0.5, 0.9, 1.0], "precision": [1.0, 0.6, 0.1]},
            "bootstrap": {metric: list(score + noise) for metric, score in scores.items()},
        }
        return Record.model_validate(
            {
                "method": "stpm",
                "category": category,
                "seed": seed,
                "profile": "paper",
                "status": status,
                "error": "epoch 3: training loss nan" if status == "failed" else None,
                "config": {"epochs": 100},
                "precision": "bf16",
                "dataset": Dataset(
                    name=dataset,
                    fingerprint="0" * 64,
                    train_images=counts.train_good,
                    test_good=counts.test_good,
                    test_defect=counts.test_defect,
                    image_size=256,
                    mask_rule="half",
                    gaps=list(gaps),
                ),
                "teacher": TeacherInfo(source=teacher, file_sha256=None, pyramid_sha256="1" * 64, missing=[]),
                "runtime": Runtime(
                    started=datetime(2026, 1, 1, tzinfo=UTC),
                    device="CPU, test",
                    threads=1,
                    train_seconds=600,
                    evaluate_seconds=30,
                    peak_memory_mb=2048,
                    versions={"torch": "2.10"},
                    commit=None,
                    dirty=None,
                ),
            }
            | (finished if status == "finished" else {})
            | fields
        )

    return make


@pytest.fixture
def teacher(make_record):
    levels = [f"{name}_{level}" for name in ("weight_change", "feature_cosine") for level in LEVELS]
    series = {"train_loss": [1.0, 0.5], "accuracy": [0.8, 1.0]} | {name: [0.0, 0.1] for name in levels}
    record = make_record()
    return TeacherRecord(
        name="A", profile="paper", tuning={}, precision="fp32", source=record.teacher,
        categories={"bottle": "0"}, images=10, held_out=2, curves=series, pyramids=["a", "b"],
        runtime=record.runtime,
    )  # fmt: skip

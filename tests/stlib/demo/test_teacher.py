import numpy as np
import pytest
import torch

from stlib.demo import dataset
from stlib.files import sha256
from stlib.nn.backbone import DEMO_TEACHER, load_teacher, prepare


def test_the_shipped_file_is_small_and_is_the_one_described():
    assert DEMO_TEACHER.stat().st_size <= 6_000_000
    assert sha256(DEMO_TEACHER) in DEMO_TEACHER.with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.parametrize("category", dataset.DEMO_CATEGORIES)
def test_hardly_a_channel_is_constant_on_the_demo(category):
    photograph = dataset._photograph(category) if category in dataset.DEMO_TEXTURES else None
    streams = [np.random.default_rng(i) for i in range(4)]
    samples = [
        dataset._crop(photograph, dataset.TRAIN_COLUMNS, s) if photograph else dataset._washer(s)
        for s in streams
    ]
    stack = np.stack([np.broadcast_to(sample.image, (dataset.SIDE, dataset.SIDE, 3)) for sample in samples])
    images = (torch.from_numpy(stack).permute(0, 3, 1, 2) * 255).to(torch.uint8)
    with torch.no_grad():
        levels = load_teacher("demo")[0](prepare(images))
    for level in levels:
        assert torch.isfinite(level).all()
        # a channel that never changes tells the student nothing
        assert (level.std(dim=(0, 2, 3)) > 1e-6).float().mean() > 0.95

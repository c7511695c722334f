import torch

from stlib.files import sha256
from stlib.nn.backbone import DEMO_TEACHER, load_teacher


def test_the_shipped_file_is_small_and_is_the_one_described():
    assert DEMO_TEACHER.stat().st_size <= 6_000_000
    assert sha256(DEMO_TEACHER) in DEMO_TEACHER.with_suffix(".md").read_text()


def test_its_features_differ_from_place_to_place():
    teacher = load_teacher("demo")[0]
    with torch.no_grad():
        levels = teacher(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    for level in levels:
        assert torch.isfinite(level).all()
        # a channel that is zero everywhere tells the student nothing
        assert (level.std(dim=(0, 2, 3)) > 0).float().mean() > 0.9

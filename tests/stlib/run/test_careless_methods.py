"""What a run makes of a method that was written with less care than those of this study."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stlib.methods import METHODS, Method, MethodEntry
from stlib.methods.training import Execution, Recipe
from stlib.nn.backbone import prepare
from stlib.nn.maps import Maps, fuse, max_score, stack_levels
from stlib.records.schema import History
from stlib.run.evaluation import observed
from stlib.run.experiment import RunResult, run
from stlib.run.spec import RunSpec


class Config(Recipe):
    image_size: int = 64
    batch_size: int = 4


class Scaled(nn.Module):
    """The teacher's features times one number per level."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher, self.scale = teacher, nn.Parameter(torch.rand(3), requires_grad=False)

    def forward(self, images: Tensor) -> Maps:
        levels = zip(self.teacher(prepare(images)), self.scale, strict=True)
        layers = stack_levels([level.mean(1) * scale for level, scale in levels])
        pixel = fuse(layers, images.shape[-1], rule="sum")
        return Maps(layers, pixel, max_score(pixel))


class MadeUp(Method):
    """It draws its weights from PyTorch's own generator, and names no snapshot."""

    def __init__(self, config: Config, teacher: nn.Module, execution: Execution) -> None:
        super().__init__(execution, config.batch_size)
        self.teacher, self.drawn = teacher, Scaled(teacher)

    def fit(self, train: Tensor, *, seed: int) -> History:  # noqa: ARG002
        self.drawn.scale *= torch.rand(3)
        return History(steps=0, images_seen=len(train), curves={}, selected={})

    @property
    def network(self) -> Scaled:
        return self.drawn


class Shared(MadeUp):
    """Its tested snapshot is the memory of the network in use."""

    def fit(self, train: Tensor, *, seed: int) -> History:
        first = {"scale": torch.full((3,), 0.5)}
        self.snapshots = {"last": self.drawn.state_dict(), "first": first}
        return super().fit(train, seed=seed)

    def use(self, snapshot: str) -> None:
        self.drawn.load_state_dict(self.snapshots[snapshot], strict=False)


class Unused(Shared):
    use = Method.use


class Retrained(MadeUp):
    def fit(self, train: Tensor, *, seed: int) -> History:
        self.drawn.train()(train)  # and the teacher in it: its BatchNorm learns
        return super().fit(train, seed=seed)


@pytest.fixture
def finish(make_category, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunResult]:
    """Run a method on few small images."""
    data = make_category(tmp_path / "data", train=3, good=2, defects={"turned": 2})
    spec = RunSpec("made_up_here", "plate", profile="demo", data=data, teacher="random")

    def finish(method: type[Method], seed: int = 0) -> RunResult:
        monkeypatch.setitem(
            METHODS, "made_up_here", MethodEntry("Made up", {"demo": Config()}, method, lambda _: None)
        )
        return run(replace(spec, seed=seed), runs=tmp_path / "runs")

    return finish


def test_a_snapshot_that_the_network_in_use_shares_is_still_the_tested_one_after_the_evaluation(finish):
    done = finish(Shared)
    again = done.detector.maps(done.detector.category.test)
    assert torch.equal(again.pixel, done.maps.pixel)
    assert done.record.sensitivity["checkpoint=first"] != {}


def test_what_a_method_draws_from_pytorchs_own_generator_comes_from_the_runs_seed(finish):
    first, again, other = (finish(MadeUp, seed).maps.pixel for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_fit_that_changes_its_teacher_is_refused(finish):
    with pytest.raises(RuntimeError, match="Made up's fit changed the teacher"):
        finish(Retrained)


def test_several_snapshots_and_no_way_to_use_them_are_no_equal_scores_but_an_error(finish):
    with pytest.raises(NotImplementedError, match="Unused has several snapshots and no method `use`: add it"):
        finish(Unused)


def test_a_learning_curve_of_a_method_without_maps_of_distances_reads_its_map(finish):
    done = finish(MadeUp)
    category, method = done.detector.category, done.detector.method
    assert observed(category, method, -1) == observed(category, method, 1) != {}

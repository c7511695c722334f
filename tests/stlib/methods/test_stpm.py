"""STPM on a handful of small striped images: what it learns from, and that it learns."""

import pytest
import torch
from torch import Tensor, nn

from stlib.data.mvtec import Category
from stlib.data.splits import split_train
from stlib.methods.stpm import PROFILES, STPM, Config
from stlib.methods.training import Execution
from stlib.metrics import PixelRanking, image_metrics, label_regions
from stlib.nn.backbone import ResNet18Pyramid, prepare
from stlib.records.schema import History

SMALL = Config(image_size=64, epochs=4, batch_size=4)
CPU = torch.device("cpu")


def trained(
    images: Tensor,
    teacher: nn.Module,
    config: Config = SMALL,
) -> tuple[STPM, History]:
    method = STPM(config, teacher, Execution(CPU))
    return method, method.fit(images, seed=0)


def weights(state: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten().double() for tensor in state.values()])


@pytest.fixture
def few(plate: Category) -> Tensor:
    """Ten training images: eight to learn from, two to validate on."""
    return plate.train[:10]


@pytest.fixture(scope="module")
def run(plate: Category, random_teacher: ResNet18Pyramid) -> tuple[STPM, History]:
    """The reference: seed 0 on ten images."""
    return trained(plate.train[:10], random_teacher)


def test_the_default_recipe_is_the_papers():
    assert PROFILES["paper"].model_dump() == {
        "image_size": 256,
        "epochs": 100,
        "batch_size": 32,
        "learning_rate": 0.4,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "validation_fraction": 0.2,
        "split_seed": 0,
    }


def test_it_learns_to_find_defects(plate: Category, random_teacher: ResNet18Pyramid):
    # Untrained teacher, 16 images, 40 steps. Chance is .5 for both.
    config = Config(image_size=64, epochs=10, batch_size=4, learning_rate=0.1)
    method, history = trained(plate.train, random_teacher, config)
    maps = method.maps(plate.test)
    pixel = PixelRanking(maps.pixel, label_regions(plate.masks)).auroc()
    assert pixel > 0.85
    assert maps.layers.shape[1:] == (3, 16, 16)
    assert torch.equal(maps.image, maps.pixel.amax(dim=(1, 2)))
    assert image_metrics(maps.image, plate.labels)["image_auroc"] > 0.8
    losses = history.curves["train_loss"]
    assert losses[-1] < losses[0] / 3


def test_a_student_equal_to_the_teacher_gives_a_map_of_zeros(
    plate: Category, random_teacher: ResNet18Pyramid
):
    method = STPM(SMALL, random_teacher, Execution(CPU))
    method.student.load_state_dict(random_teacher.state_dict())
    maps = method.maps(plate.test[:2])
    assert maps.layers.abs().max() < 1e-10
    assert maps.pixel.abs().max() < 1e-10


def test_every_epoch_shows_each_training_image_once_in_an_order_of_its_own(
    plate: Category, random_teacher: ResNet18Pyramid, monkeypatch: pytest.MonkeyPatch
):
    # 9 of 12 to learn from: batches of 4, 4 and 1, the last small one included. Only a student in train mode
    # is spied on: one that validation left in eval mode would freeze BatchNorm's statistics silently.
    shown, settings = [], []
    step, forward = torch.optim.SGD.step, ResNet18Pyramid.forward

    def spying_step(self: torch.optim.SGD) -> None:
        settings.extend(
            (g["lr"], g["momentum"], g["weight_decay"], len(g["params"])) for g in self.param_groups
        )
        step(self)

    def spying_forward(self: ResNet18Pyramid, images: Tensor) -> object:
        if self.training and torch.is_grad_enabled():  # BatchNorm's statistics are taken anew without
            shown.append(images)
        return forward(self, images)

    monkeypatch.setattr(torch.optim.SGD, "step", spying_step)
    monkeypatch.setattr(ResNet18Pyramid, "forward", spying_forward)
    rates = {"epochs": 2, "learning_rate": 0.3, "momentum": 0.8, "weight_decay": 0.01}
    train = plate.train[:12]
    method, history = trained(train, random_teacher, SMALL.model_copy(update=rates))
    assert settings == [(0.3, 0.8, 0.01, len(list(method.student.parameters())))] * 6
    order = [(prepare(train) == image).all(3).all(2).all(1).nonzero().item() for image in torch.cat(shown)]
    first, second = order[:9], order[9:]
    assert sorted(first) == sorted(second) == sorted(split_train(12)[0])
    assert first != second
    assert (history.steps, history.images_seen) == (2 * 3, 2 * 9)
    assert {len(series) for series in history.curves.values()} == {2}


def test_the_first_lowest_validation_score_is_selected(
    few: Tensor, random_teacher: ResNet18Pyramid, monkeypatch: pytest.MonkeyPatch
):
    scores = iter([0.5, 0.2, 0.3, 0.2])
    states = []

    def score(method: STPM, *_: object) -> float:
        states.append(weights(method.student.state_dict()))
        return next(scores)

    monkeypatch.setattr(STPM, "_mean_fused", score)
    method, history = trained(few, random_teacher)
    assert history.selected == {"epoch": 2, "val_score": 0.2}
    assert history.curves["val_score"] == [0.5, 0.2, 0.3, 0.2]
    assert torch.equal(weights(method.snapshots["best"]), states[1])
    assert torch.equal(weights(method.snapshots["last"]), states[3])
    assert torch.equal(weights(method.student.state_dict()), states[1])  # and it is the one in use
    method.use("last")
    assert torch.equal(weights(method.student.state_dict()), states[3])


def test_statistics_taken_anew_are_those_of_the_weights_on_the_images_learnt_from(
    few: Tensor, run: tuple[STPM, History]
):
    method, _ = run
    learn, _ = split_train(len(few))
    for name, anew in (("best", "statistics=anew"), ("last", "statistics=anew,checkpoint=last")):
        old, new = method.snapshots[name], method.snapshots[anew]
        moved = {key for key, value in old.items() if not torch.equal(value, new[key])}
        assert {key for key in moved if "num_batches" not in key} == {key for key in old if "running" in key}
        student = ResNet18Pyramid()
        student.load_state_dict(old)
        seen = [student.conv1(prepare(part)) for part in torch.split(few[learn], SMALL.batch_size)]
        expected = torch.stack([part.mean((0, 2, 3)) for part in seen]).mean(0)
        torch.testing.assert_close(new["bn1.running_mean"], expected)


def test_the_validation_score_is_the_mean_product_map_of_the_held_out_images(
    few: Tensor, run: tuple[STPM, History]
):
    method, history = run
    _, hold = split_train(len(few))
    layers = method.maps(few[hold]).layers
    assert layers.prod(1).mean().item() == pytest.approx(history.selected["val_score"], rel=1e-4)


def test_maps_are_computed_in_float32_whatever_trained(
    few: Tensor, random_teacher: ResNet18Pyramid, run: tuple[STPM, History]
):
    method = STPM(SMALL, random_teacher, Execution(CPU, "bf16"))
    method.student.load_state_dict(run[0].snapshots["best"])
    maps = method.maps(few[:4])
    assert {part.dtype for part in maps} == {torch.float32}
    torch.testing.assert_close(maps.pixel, run[0].maps(few[:4]).pixel, rtol=1e-4, atol=1e-8)

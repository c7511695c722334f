"""AAND: its residuals, its losses, where its anomalies lie, and a training of two stages."""

import pytest
import torch

from stlib.data.mvtec import Category
from stlib.data.synthesis import AnomalySynthesis, Synthetic
from stlib.data.textures import load_textures
from stlib.methods import aand, rd4ad
from stlib.methods.aand import AAND, METHOD, AdvancedTeacher, Config, foreground
from stlib.methods.training import Execution
from stlib.nn.backbone import ResNet18Pyramid, features
from stlib.nn.losses import flat_cosine_loss
from stlib.protocol import CATEGORIES

SMALL = Config(image_size=64, epochs=2, teacher_epochs=3, batch_size=5, keys=4, hardest=3)
CPU = torch.device("cpu")


def fresh(config: Config) -> aand.Training:
    teacher = AdvancedTeacher(ResNet18Pyramid(), config)
    return aand.Training(teacher, aand.Student(), config, Execution(CPU))


def test_the_recipe_is_the_codes():
    assert METHOD.recipe("paper").model_dump() == {
        "image_size": 256, "epochs": 120, "teacher_epochs": 100, "batch_size": 16, "learning_rate": 0.005,
        "betas": (0.5, 0.999), "keys": 50, "temperature": 0.2, "margin": 0.3, "amplify": 0.1, "hardest": 10,
    }  # fmt: skip


def test_the_amplification_asks_anomalies_to_leave_the_normal_by_the_margin():
    training = fresh(SMALL)
    level = torch.zeros(1, 2, 1, 3)
    level[0, :, 0, 0] = torch.tensor([1.0, 0.0])  # normal
    level[0, :, 0, 1] = torch.tensor([1.0, 1.0])  # anomalous, cosine .707
    amplified = level.clone()
    amplified[0, :, 0, 1] = torch.tensor([1.0, 2.0])  # cosine .447
    odd = torch.tensor([[[False, True, False]]])
    normal = torch.tensor([[[True, False, False]]])
    random = torch.Generator()
    loss = training._amplification(level, amplified, odd, normal, random)
    assert loss.item() == pytest.approx(0.44721 - 0.70711 + 0.3, abs=1e-4)
    nothing = training._amplification(level, amplified, torch.zeros_like(odd), normal, random)
    assert nothing.item() == 0


def test_the_students_loss_adds_the_hardest_positions():
    training = fresh(SMALL)
    taught = [torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).repeat(1, 1, 2, 2)]
    rebuilt = [taught[0].clone()]
    rebuilt[0][0, :, 0, 0] = torch.tensor([0.0, 1.0])  # one of four positions is wrong, three are the hardest
    expected = flat_cosine_loss(taught, rebuilt) + 1 / 3
    assert training._hard_loss(taught, rebuilt).item() == pytest.approx(expected.item())


def test_the_rate_falls_to_a_fifth_twice():
    config = SMALL.model_copy(update={"epochs": 20})
    training = fresh(config)
    rates = []
    for epoch in range(20):
        training._set_rate(training.optimiser, epoch, 20)
        rates.append(training.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.005] * 16 + [0.001] * 2 + [0.0002] * 2)


def test_both_stages_step_at_the_rate_of_their_epoch_and_the_amplification_has_its_weight(
    plate: Category, random_teacher: ResNet18Pyramid, monkeypatch
):
    def noted(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        steps.append((optimiser.param_groups[0]["lr"], loss.item()))

    steps, images = [], plate.train[:5]
    for module in (aand, rd4ad):
        monkeypatch.setattr(module, "descend", noted)
    training = fresh(SMALL.model_copy(update={"epochs": 10, "teacher_epochs": 10}))
    monkeypatch.setattr(training, "_teacher_losses", lambda *_: (torch.tensor(2.0), torch.tensor(30.0)))
    front, synthesis = torch.ones(5, 64, 64, dtype=torch.bool), AnomalySynthesis(images, "")
    training.run_teacher_epoch(images, front, synthesis, 0, 9)
    training.losses = [0.0] * 9
    training.run_epoch(features(random_teacher, images, 5), torch.arange(5))
    (first, loss), (second, _) = steps
    assert (first, second) == pytest.approx((0.0002, 0.0002))
    assert loss == pytest.approx(2 + 0.1 * 30)


def test_in_stage_1_the_masks_of_the_anomalies_stand_in_for_the_gates(monkeypatch):
    given, training = [], fresh(SMALL)
    amplified = training.advanced.amplified
    monkeypatch.setattr(training.advanced, "amplified", lambda *a: given.extend(a[1]) or amplified(*a))
    mask = torch.zeros(2, 64, 64, dtype=torch.bool)
    mask[0, :32] = True
    image = torch.rand(2, 3, 64, 64)
    training._teacher_losses(Synthetic(image, image, mask, image), torch.ones_like(mask), torch.Generator())
    assert [m.shape[-1] for m in given] == [16, 8, 4]
    assert all(m[0, : m.shape[-1] // 2].all() and m.float().mean() == 0.25 for m in given)


EVERYWHERE, CIRCLE = (True, True, True), (True, True, False)  # centre, edge, corner
DARK, BRIGHT = (True, False, False), (False, True, True)
FOREGROUNDS = {
    "carpet": EVERYWHERE, "grid": EVERYWHERE, "leather": EVERYWHERE, "tile": EVERYWHERE, "wood": EVERYWHERE,
    "bottle": CIRCLE, "cable": CIRCLE, "capsule": DARK, "hazelnut": BRIGHT, "metal_nut": BRIGHT,
    "pill": BRIGHT, "screw": DARK, "toothbrush": BRIGHT, "transistor": EVERYWHERE, "zipper": DARK,
}  # fmt: skip


@pytest.mark.parametrize("category", [*CATEGORIES, "own part"])
def test_anomalies_lie_in_the_foreground_of_their_category(category: str):
    images = torch.full((1, 3, 64, 64), 200, dtype=torch.uint8)
    images[:, :, 16:48, 16:48] = 20
    front = foreground(images, category)[0]
    expected = FOREGROUNDS.get(category, EVERYWHERE)
    assert (front[32, 32], front[32, 4], front[2, 2]) == expected
    assert front.all() == (expected == EVERYWHERE)


def test_synthetic_anomalies_are_cut_to_the_foreground_and_some_images_stay_clean(plate: Category):
    textures, _ = load_textures("demo", 64)
    front = torch.zeros(20, 64, 64, dtype=torch.bool)
    front[:, :32] = True
    images, random = plate.train, torch.Generator().manual_seed(0)
    inside = aand._corrupted(images, front, AnomalySynthesis(textures, ""), random)
    assert inside.mask.any()
    assert not inside.mask[:, 32:].any()
    assert torch.equal(inside.corrupted[:, :, 32:], images[:, :, 32:].float() / 255)
    spared = sum(not mask.any() for mask in inside.mask)
    assert 1 <= spared <= 9


@pytest.mark.parametrize(("draws", "places"), [(3, [0, 1]), (20, [0])])
def test_a_shape_that_misses_the_foreground_is_drawn_again_up_to_ten_times(draws: int, places: list[int]):
    images, drawn = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), []

    def synthesis(images: torch.Tensor, random: torch.Generator) -> Synthetic:
        """The second image's shape lies in the foreground in draw number `draws` only."""
        drawn.append(len(images))
        mask = torch.zeros(len(images), 8, 8, dtype=torch.bool)
        mask[:, :4, :2] = len(images) == 2 or len(drawn) == draws
        mask[1:, :4, :2] = False
        mask[:, :4, 5:] = True
        clean = images.float()
        return Synthetic(clean, torch.where(mask[:, None], 1.0, clean), mask, clean + 1)

    front = torch.zeros(2, 8, 8, dtype=torch.bool)
    front[:, :, :2] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aand, "CLEAN", 0)
        batch = aand._corrupted(images, front, synthesis, torch.Generator())
    assert [i for i in range(2) if batch.mask[i].sum() == 8] == places
    assert drawn == [2] + [1] * (min(draws, 11) - 1)
    assert torch.equal(batch.corrupted[:, 0] == 1, batch.mask)


def test_both_stages_learn_and_the_last_epoch_is_in_use(plate: Category, random_teacher: ResNet18Pyramid):
    synthesis = AnomalySynthesis(load_textures("demo", 64)[0], "plate")
    method = AAND(SMALL, random_teacher, Execution(CPU), synthesis)
    history = method.fit(plate.train[:10], seed=0)
    assert (history.steps, history.images_seen, history.selected) == (10, 50, {"epoch": 2})
    assert {name: len(curve) for name, curve in history.curves.items()} == {
        "focal_loss": 3, "amplification_loss": 3, "train_loss": 2,
    }  # fmt: skip
    assert history.curves["focal_loss"][-1] < history.curves["focal_loss"][0]
    assert history.curves["train_loss"][-1] < history.curves["train_loss"][0]
    trunk = method.network.teacher.teacher
    assert torch.equal(trunk.conv1.weight, random_teacher.conv1.weight)  # only the residuals learnt
    teachers = random_teacher, method.network.teacher
    plain, advanced = (features(teacher, plate.test, 4) for teacher in teachers)
    assert all((a - b).abs().max() > 0 for a, b in zip(plain, advanced, strict=True))
    assert method.maps(plate.test).pixel.std() > 0

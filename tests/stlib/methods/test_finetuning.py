"""Fine-tuning: what moves in which stage, and that it learns; test_teacher_cache.py kills and resumes one."""

import pytest
import torch
from torch import Tensor

from stlib.methods.finetuning import ClassifierData, FineTuning, Tuning
from stlib.methods.training import Execution
from stlib.nn.backbone import ResNet18Pyramid, pyramid_hash
from stlib.nn.classifier import load_classifier
from stlib.protocol import LAYERS

SIDE = 32
CPU = torch.device("cpu")
TUNING = Tuning(image_size=SIDE, batch_size=4)


def striped(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three categories of grey images: stripes across, stripes along, and noise; all equally bright."""
    generator = torch.Generator().manual_seed(seed)
    phase = 6.3 * torch.rand(count, 1, 1, generator=generator)
    wave = torch.sin(torch.arange(SIDE) * 6.3 / 8 + phase).expand(count, SIDE, SIDE)
    noise = torch.randn(count, SIDE, SIDE, generator=generator)
    kinds = [wave, wave.transpose(1, 2), noise * wave.std()]
    values = 120 + 40 * torch.cat(kinds) + 4 * torch.randn(3 * count, SIDE, SIDE, generator=generator)
    pixels = values.clamp(0, 255).byte()[:, None].expand(-1, 3, -1, -1).contiguous()
    return pixels, torch.arange(3).repeat_interleave(count)


@pytest.fixture(scope="module")
def data() -> ClassifierData:
    """Four images of each category to learn from, two held out."""
    return ClassifierData(*striped(4, seed=0), *striped(2, seed=1))


def begin(data: ClassifierData, source: str = "random") -> FineTuning:
    return FineTuning(TUNING, load_classifier(source, 3, seed=0), data, Execution(CPU))


class Kept(dict[int, str]):
    """Hash of every teacher that was handed over, by epoch."""

    def __call__(self, epoch: int, teacher: ResNet18Pyramid) -> None:
        assert not teacher.training
        assert epoch not in self
        self[epoch] = pyramid_hash(teacher)


def snapshot(work: FineTuning) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in work.network.state_dict().items()}


def moved(before: dict[str, Tensor], work: FineTuning) -> set[str]:
    return {name for name, now in work.network.state_dict().items() if not torch.equal(now, before[name])}


def test_the_heads_epoch_moves_neither_weights_nor_statistics_of_the_backbone(data: ClassifierData):
    work, kept = begin(data), Kept()
    before, original = snapshot(work), pyramid_hash(work.original)
    work.run(0, kept)
    assert moved(before, work) == {"fc.weight", "fc.bias"}
    assert kept == {0: original}
    for level in LAYERS:
        assert work.curves[f"weight_change_{level}"] == [0.0]
        assert work.curves[f"feature_cosine_{level}"] == [pytest.approx(1.0, abs=1e-5)]


def test_a_full_epoch_moves_every_weight_and_every_statistic(data: ClassifierData):
    work, kept = begin(data), Kept()
    before = snapshot(work)
    work.run(1, kept)
    assert moved(before, work) == set(before)
    assert list(kept) == [0, 1]
    assert kept[0] == pyramid_hash(work.original) != kept[1]
    for level in LAYERS:
        assert work.curves[f"weight_change_{level}"][1] > 1e-4
        assert work.curves[f"feature_cosine_{level}"][1] < 1 - 1e-4


def test_sgd_steps_with_the_papers_momentum_and_weight_decay(data: ClassifierData):
    tuning = Tuning(image_size=SIDE, batch_size=6, optimiser="sgd", head_rate=0.02)
    work = FineTuning(tuning, load_classifier("random", 3, seed=0), data, Execution(CPU))
    head = work.network.fc
    weight, moment = head.weight.detach().clone(), torch.zeros_like(head.weight)
    steps: list[Tensor] = []
    work.head_optimiser.register_step_pre_hook(lambda *_: steps.append(head.weight.grad.clone()))
    work.run(0, Kept())
    for gradient in steps:
        moment = 0.9 * moment + gradient + 1e-4 * weight
        weight = weight - 0.02 * moment
    assert len(steps) == 2
    torch.testing.assert_close(head.weight.detach(), weight)


def test_the_examination_after_an_epoch_leaves_no_eval_mode_behind_and_the_curves_begin_with_the_head(data):
    work, counts = begin(data), []
    work.run(2, lambda *_: counts.append(int(work.network.bn1.num_batches_tracked)))
    assert counts == [0, 3, 6]
    names = ["train_loss", "accuracy"]
    names += [f"{kind}_{level}" for level in LAYERS for kind in ("weight_change", "feature_cosine")]
    assert list(work.curves) == names
    assert {len(values) for values in work.curves.values()} == {3}
    assert work.curves["train_loss"][0] == pytest.approx(1.1, abs=0.6)  # mean per image; ln 3 at chance


def test_it_learns_to_tell_held_out_images_apart():
    # 3 x 8 images, three full epochs; chance is 1/3 and the held-out phases and noise are new.
    data = ClassifierData(*striped(8, seed=0), *striped(8, seed=1))
    work = begin(data, source="demo")
    work.run(3, Kept())
    assert work.curves["accuracy"][-1] >= 0.75
    assert work.curves["train_loss"][-1] < work.curves["train_loss"][0] / 2


def test_a_loss_that_is_not_finite_stops_it_and_names_the_epoch(data: ClassifierData):
    work = begin(data)
    torch.nn.init.constant_(work.network.fc.weight, float("nan"))
    with pytest.raises(FloatingPointError, match="fine-tuning, epoch 1: loss nan"):
        work.run(1, Kept())

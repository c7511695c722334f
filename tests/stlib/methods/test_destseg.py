"""DeSTSeg's training, which is PFADSeg's too: what each network sees and learns, from what, and how fast."""

import gc
import weakref
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stlib.data.mvtec import Category, load_category
from stlib.data.synthesis import AnomalySynthesis, Synthetic
from stlib.data.textures import load_textures
from stlib.methods import destseg, pfadseg
from stlib.methods.checkpoint import Checkpoint
from stlib.methods.destseg import Config, DeSTSeg
from stlib.methods.training import Execution, Progress, no_progress
from stlib.metrics import PixelRanking, label_regions
from stlib.nn.backbone import ResNet18Pyramid, load_teacher, normalise, prepare, pyramid_hash
from stlib.nn.denoising import DenoisingStudent
from stlib.records.schema import History

CPU = torch.device("cpu")
SIZE = 32
TINY = Config(
    image_size=SIZE, batch_size=4, student_steps=2, segmentation_steps=2, top=10, width=0.25,
    student_rate=0.05, residual_rate=0.03, head_rate=0.02, momentum=0.8, weight_decay=0.01,
)  # fmt: skip
"""One pass over nine images in each stage; every step leaves a point of the curves."""


def images(count: int = 9, seed: int = 0) -> Tensor:
    """Grey plates with a little noise, the next one always brighter."""
    noise = torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    ramp = torch.linspace(80, 160, SIZE) + 8 * torch.arange(count).view(-1, 1, 1, 1)
    return (ramp + 6 * noise).clamp(0, 255).byte()


class Synthesis(AnomalySynthesis):
    """Keeps the batches that it makes."""

    def __init__(self, category: str = "pill") -> None:
        textures = torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(9))
        super().__init__((textures * 255).byte(), category)
        self.batches: list[Synthetic] = []

    def __call__(self, images: Tensor, generator: torch.Generator) -> Synthetic:
        self.batches.append(super().__call__(images, generator))
        return self.batches[-1]


class Turning(Synthesis):
    """Says that it rotates the images, and leaves them as they are."""

    rotates = True


MASK = torch.zeros(SIZE, SIZE, dtype=torch.bool)
"""Read at stride 4, bilinear without antialias: a cell of 4 x 4 pixels is the mean of its inner 2 x 2."""
MASK[1, 1] = True  # cell (0, 0): a quarter
MASK[1:3, 9] = True  # cell (0, 2): a half
MASK[1:3, 17:19] = True  # cell (0, 4): all
MASK[8:12, 0:4] = True  # cell (2, 0): only what is not read
MASK[9:11, 1:3] = False


class Painted(Synthesis):
    """Marks MASK."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Synthetic:
        return super().__call__(images, generator)._replace(mask=MASK.expand(len(images), -1, -1))


def detector(teacher: nn.Module, synthesis: AnomalySynthesis | None = None, **execution: object) -> DeSTSeg:
    return DeSTSeg(TINY, teacher, Execution(CPU, **execution), synthesis or Synthesis())


def equal(network: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


@dataclass
class Watched:
    """A training and all that went through it, in order."""

    method: DeSTSeg
    history: History
    batches: list[Synthetic]
    taught: list[Tensor]
    """What the teacher was given."""
    denoised: list[Tensor]
    """What the student was given."""
    losses: list[Tensor]
    targets: list[Tensor]
    """Of the cross entropy in stage 2."""
    states: list[tuple[dict[str, Tensor], dict[str, Tensor]]]
    """Student and segmentation net after every step."""


def watch(teacher: nn.Module, synthesis: Synthesis) -> Watched:
    """Train on nine images, one more than two batches."""
    states = []

    def keep(*_: object) -> None:
        networks = (method.student, method.segmentation)
        states.append(tuple({name: t.clone() for name, t in n.state_dict().items()} for n in networks))

    with pytest.MonkeyPatch.context() as patch:

        def spy(owner: object, function: str, argument: int) -> list[Tensor]:
            seen: list[Tensor] = []
            original = getattr(owner, function)

            def spying(*arguments: Tensor, **options: object) -> object:
                seen.append(arguments[argument].detach().clone())
                return original(*arguments, **options)

            patch.setattr(owner, function, spying)
            return seen

        taught, denoised = spy(ResNet18Pyramid, "forward", 1), spy(DenoisingStudent, "forward", 1)
        losses = spy(torch.autograd, "backward", 0)
        targets = spy(torch.nn.functional, "binary_cross_entropy_with_logits", 1)
        method = detector(teacher, synthesis, progress=keep)
        history = method.fit(images(), seed=0)
    return Watched(method, history, synthesis.batches, taught, denoised, losses, targets, states)


@pytest.fixture(scope="module")
def run(random_teacher: ResNet18Pyramid) -> Watched:
    """The reference: a category that is not turned, so that the teacher's features are computed once."""
    return watch(random_teacher, Synthesis("pill"))


@pytest.fixture(scope="module")
def turned(random_teacher: ResNet18Pyramid) -> Watched:
    """A category that is turned, and masks that are MASK."""
    return watch(random_teacher, Painted("bottle"))


def test_the_recipes_are_the_published_ones():
    official = {
        "image_size": 256, "batch_size": 32, "student_steps": 1000, "segmentation_steps": 4000,
        "student_rate": 0.4, "residual_rate": 0.1, "head_rate": 0.01, "momentum": 0.9, "weight_decay": 1e-4,
        "focal_gamma": 4.0, "top": 100, "zero_init": True, "rcm": False, "aff": False, "pcar": "none",
        "dilations": (1, 1, 1), "layer_scale": 1e-6, "aff_factor": 2.0, "segmentation_modules": True,
    }  # fmt: skip
    changed = {"batch_size": 16, "student_steps": 3000, "student_rate": 0.5, "zero_init": False}
    modules = {"rcm": True, "aff": True, "pcar": "pcar"}
    assert Config().model_dump() == official
    assert pfadseg.PROFILES["paper"].model_dump() == official | changed | modules


def test_the_mean_over_the_batch_descends_the_sums_gradient_divided_by_the_batch(random_teacher, run):
    config = TINY.model_copy(update={"reduction": "mean"})
    training = DeSTSeg(config, random_teacher, Execution(CPU), Synthesis()).begin(images(), 0)
    weight = training.student.stem[0].weight
    before = weight.detach().clone()
    logged = training._denoise(training._picks())
    assert logged["distillation_loss"].item() == pytest.approx(run.history.curves["distillation_loss"][0])
    summed = run.states[0][0]["stem.0.weight"] - before  # a step: -rate (gradient + decay weight)
    decayed = -config.student_rate * config.weight_decay * before
    torch.testing.assert_close(weight - before - decayed, (summed - decayed) / 4, rtol=1e-3, atol=1e-6)


def test_a_training_that_is_over_holds_no_memory(random_teacher):
    """On a GPU it holds gigabytes: no cycle may keep it until Python looks for cycles."""
    training = DeSTSeg(TINY, random_teacher, Execution(CPU), Synthesis()).begin(images(), 0)
    gone = weakref.ref(training)
    gc.disable()
    try:
        training.run()
        assert all(
            p.grad is None for group in training.student_optimiser.param_groups for p in group["params"]
        )
        assert training.taught is None
        del training
        assert gone() is None
    finally:
        gc.enable()


def test_gamma_0_takes_rcm_out_of_the_trained_networks_and_last_puts_it_back(random_teacher):
    config = TINY.model_copy(update={"rcm": True, "layer_scale": 1.0})
    method = DeSTSeg(config, random_teacher, Execution(CPU), Synthesis())
    method.fit(images(), seed=0)
    tested = method.maps(images(3)).pixel
    method.use("gamma=0")
    without = method.maps(images(3)).pixel
    method.use("last")
    assert torch.equal(method.maps(images(3)).pixel, tested)
    method.segmentation.head[0] = nn.Identity()
    assert torch.equal(method.maps(images(3)).pixel, without)
    assert not torch.equal(without, tested)


def test_the_student_sees_anomalies_and_the_teacher_clean_images_until_stage_2(run: Watched, turned: Watched):
    for made in (run, turned):
        corrupted = [normalise(batch.corrupted) for batch in made.batches]
        # once for all images, where they are not turned
        clean = [prepare(images())] if made is run else [normalise(batch.clean) for batch in made.batches[:2]]
        assert torch.equal(torch.cat(made.denoised), torch.cat(corrupted))
        assert torch.equal(torch.cat(made.taught), torch.cat([*clean, *corrupted[2:]]))
        assert not torch.equal(made.batches[0].clean, made.batches[0].corrupted)


def test_every_pass_shows_the_images_in_another_order_and_drops_an_incomplete_batch(run: Watched):
    shown = torch.cat([batch.clean for batch in run.batches])
    order = [(images() / 255 == image).all(3).all(2).all(1).nonzero().item() for image in shown]
    first, second = order[:8], order[8:]
    assert len(set(first)) == len(set(second)) == 8
    assert first != second


def test_each_network_learns_at_its_own_rates(random_teacher: ResNet18Pyramid):
    training = detector(random_teacher).begin(images(), 0)
    found = [
        (group["lr"], group["momentum"], group["weight_decay"], len(group["params"]))
        for optimiser in (training.student_optimiser, training.segmentation_optimiser)
        for group in optimiser.param_groups
    ]
    parts = {0.05: training.student, 0.03: training.segmentation.residual, 0.02: training.segmentation.head}
    assert found == [(rate, 0.8, 0.01, len(list(part.parameters()))) for rate, part in parts.items()]


def test_what_a_stage_does_not_train_stays_as_it_is_statistics_included(run: Watched):
    (first, untrained), (student, segmentation), _, _ = run.states
    assert not any(torch.equal(tensor, first[name]) for name, tensor in student.items())
    assert all(torch.equal(tensor, untrained[name]) for name, tensor in segmentation.items())
    assert equal(run.method.student, student)
    located = run.method.segmentation.state_dict()
    assert not any(torch.equal(tensor, located[name]) for name, tensor in segmentation.items())
    assert pyramid_hash(run.method.teacher) == load_teacher("random")[1].pyramid_sha256


def test_stage_2_learns_a_cell_as_anomalous_where_half_of_what_is_read_of_it_is(turned: Watched):
    for target in torch.cat(turned.targets):
        assert target.nonzero().tolist() == [[0, 2], [0, 4]]
    assert turned.history.curves["target_area"] == pytest.approx([2 / 64] * 2)


def test_the_losses_that_are_descended_are_those_of_the_curves(run: Watched):
    curves = run.history.curves
    expected = [4 * loss for loss in curves["distillation_loss"]]
    expected += [sum(parts) for parts in zip(curves["focal_loss"], curves["l1_loss"], strict=True)]
    assert [loss.item() for loss in run.losses] == pytest.approx(expected)
    assert min(curves["l1_loss"]) > 0.01


def test_features_of_the_teacher_computed_once_are_those_of_every_step(
    random_teacher: ResNet18Pyramid, run: Watched
):
    curves, expected = detector(random_teacher, Turning()).fit(images(), seed=0).curves, run.history.curves
    assert curves["distillation_loss"] == pytest.approx(expected["distillation_loss"], rel=1e-4)
    for loss in ("focal_loss", "l1_loss"):  # BatchNorm over a few numbers makes more of the last bits
        assert curves[loss] == pytest.approx(expected[loss], rel=2e-2)


def test_the_image_score_is_the_mean_of_the_largest_pixel_scores(run: Watched):
    maps = run.method.maps(images(3))
    largest = maps.pixel.flatten(1).sort(descending=True).values[:, : TINY.top]
    torch.testing.assert_close(maps.image, largest.mean(1))


def test_a_learning_curve_goes_on_after_a_kill_and_changes_nothing_that_is_trained(
    random_teacher: ResNet18Pyramid, run: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(destseg, "OBSERVED", (0, 1, 2))
    looked: list[int] = []

    def fit(progress: Progress = no_progress) -> tuple[DeSTSeg, History]:
        def look(steps: int) -> dict[str, float]:
            looked.append(steps)
            torch.rand(1)  # the process's random numbers are not the training's
            return {"pixel_ap": method.maps(images(3)).pixel.mean().item()}

        checkpoint = Checkpoint(tmp_path / "run.ckpt", "same", seconds=0)
        method = detector(random_teacher, observe=look, checkpoint=checkpoint, progress=progress)
        return method, method.fit(images(), seed=0)

    def kill(done: int, *_: object) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(kill)
    assert looked == [-1, 0, 1]
    method, history = fit()
    assert looked == [-1, 0, 1, 1, 2], "the third step was not saved"
    assert list(history.learning_curve) == [-1, 0, 1, 2]
    assert history.learning_curve[2]["pixel_ap"] == method.maps(images(3)).pixel.mean().item()
    assert history.curves == run.history.curves
    assert equal(method.network, run.method.network.state_dict())
    assert run.history.learning_curve == {}  # nobody looked


@pytest.mark.parametrize("config", [Config(), pfadseg.PROFILES["paper"]])
def test_every_step_of_the_learning_curve_is_one_that_the_schedules_stop_at(config: Config):
    assert destseg.OBSERVED[-1] == config.segmentation_steps
    stops = [start + step for start in (0, config.student_steps) for step in destseg.OBSERVED]
    assert all(step % destseg.LOG_EVERY == 0 for step in stops)


@pytest.mark.parametrize("done", [1, 3])
def test_a_training_killed_between_two_points_of_its_curves_goes_on_as_if_it_had_not_been(
    done: int, random_teacher: ResNet18Pyramid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def begin(checkpoint: Checkpoint | None = None) -> destseg.Training:
        training = detector(random_teacher, checkpoint=checkpoint).begin(images(), 0)
        training.log_every = 4  # in either stage one point, after its last step
        return training

    def picks(training: destseg.Training) -> Tensor:
        if training.step == done:
            raise KeyboardInterrupt
        return picked(training)

    unbroken, picked = begin(), destseg.Training._picks
    unbroken.run()
    kept = Checkpoint(tmp_path / "run.ckpt", "same", seconds=0)
    monkeypatch.setattr(destseg.Training, "_picks", picks)
    with pytest.raises(KeyboardInterrupt):
        begin(kept).run()
    monkeypatch.undo()
    resumed = begin(kept)
    assert resumed.step == done
    resumed.run()
    assert resumed.curves == unbroken.curves
    assert equal(resumed.student, unbroken.student.state_dict())
    assert equal(resumed.segmentation, unbroken.segmentation.state_dict())


def test_it_learns_to_find_defects_that_it_has_not_seen(plate: Category):
    # Real networks, drawn textures, 40 + 5 steps at side 32. The student's own map is asserted: it is what 40
    # steps can teach (pixel AUROC .81 to .92 over seeds 0 to 3); the segmentation net needs hundreds.
    longer = {"student_steps": 40, "segmentation_steps": 5, "student_rate": 0.1, "momentum": 0.9}
    config = TINY.model_copy(update=longer)
    foreign, _ = load_textures("demo", config.image_size)
    method = DeSTSeg(config, load_teacher("demo")[0], Execution(CPU), AnomalySynthesis(foreign, "plate"))
    small = load_category(plate.layout.folder.parent, "plate", image_size=config.image_size)
    losses = method.fit(small.train, seed=0).curves["distillation_loss"]
    part = max(1, len(losses) // 8)
    assert sum(losses[-part:]) < sum(losses[:part]) / 2
    maps = method.alternatives(method.maps(small.test))["maps=distances"]
    assert PixelRanking(maps.pixel, label_regions(small.masks)).auroc() > 0.7


def test_too_few_images_are_refused(random_teacher: ResNet18Pyramid):
    with pytest.raises(ValueError, match=r"3 training images do not fill one batch of 4.* or PatchCore"):
        detector(random_teacher).fit(images(3), seed=0)

"""The contract of `Method.fit`: what runs, records and saved detectors take for granted of every method."""

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from stlib.data.mvtec import Category
from stlib.data.synthesis import AnomalySynthesis
from stlib.detector import Detector, DetectorInfo
from stlib.methods import METHODS, Method, training
from stlib.methods.checkpoint import Checkpoint
from stlib.methods.training import Execution, Recipe
from stlib.nn.backbone import load_teacher, pyramid_hash
from stlib.nn.maps import in_batches
from stlib.records.schema import History

CPU = torch.device("cpu")
TRAINED = [name for name, entry in METHODS.items() if not entry.training_free]
SEED = 7


def unusual(recipe: Recipe) -> Recipe:
    """A short recipe that differs in every field from what a network might take for granted, if it may."""
    for name, field in type(recipe).model_fields.items():
        value = getattr(recipe, name)
        if isinstance(value, bool):
            other: object = not value
        elif get_origin(field.annotation) is Literal:
            other = next(choice for choice in get_args(field.annotation) if choice != value)
        elif isinstance(value, int):
            other = {"image_size": 64, "batch_size": 3}.get(name, value + 1)
            other = 2 if name.endswith(("epochs", "_steps")) else other
        else:
            other = 0.9 * value or 0.2 if isinstance(value, float) else value
        try:
            recipe = type(recipe).model_validate(recipe.model_dump() | {name: other})
        except ValidationError:
            continue
    return recipe


CONFIGS = {name: unusual(entry.profiles["demo"]) for name, entry in METHODS.items()}


def fit(name, images, seed=SEED, teacher=None, **execution) -> tuple[Method, History]:
    entry, teacher = METHODS[name], teacher or load_teacher("demo")[0]
    parts = {"synthesis": AnomalySynthesis(images[:3].flip(3), "pill")} if entry.needs_textures else {}
    method = entry.build(CONFIGS[name], teacher, Execution(CPU, **execution), **parts)
    return method, method.fit(images, seed=seed)


def weights(method: Method) -> dict[str, Tensor]:
    """Of the network in use."""
    return {name: tensor.clone() for name, tensor in method.network.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def images(plate: Category) -> Tensor:
    return plate.train[:5]


@pytest.fixture(scope="module")
def reference(images: Tensor) -> Callable[[str], tuple[Method, History]]:
    """`reference(name)`: a method after its training, made once."""
    return cache(partial(fit, images=images))


@pytest.mark.parametrize("name", METHODS)
def test_a_saved_detector_is_the_trained_one(reference, plate: Category, tmp_path: Path, name: str):
    method, config = reference(name)[0], CONFIGS[name].model_dump(mode="json")
    told = {
        "variant": "",
        "category": "plate",
        "seed": SEED,
        "profile": "demo",
        "teacher": load_teacher("demo")[1],
    }
    detector = Detector(DetectorInfo(method=name, config=config, **told), method.network)
    detector.save(tmp_path / "d.safetensors")
    again = Detector.load(tmp_path / "d.safetensors")
    assert again.info == detector.info
    maps = method.maps(plate.test)
    kernels = [tensor for tensor in method.network.state_dict().values() if tensor.dim() == 4]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    for mine, theirs in zip(maps, again.maps(plate.test), strict=True):
        assert torch.equal(mine, theirs)
    for mine, alone in zip(maps, in_batches(method.network, plate.test, 1, CPU), strict=True):
        torch.testing.assert_close(mine, alone, rtol=1e-3, atol=1e-3 * mine.abs().max().item())
    highest = torch.maximum(maps.pixel.amax((1, 2)), maps.layers.amax((1, 2, 3)))
    of_the_map = (maps.pixel.mean((1, 2)) <= maps.image) & (maps.image <= highest)
    assert METHODS[name].score_apart != of_the_map.all(), "is the image score computed from the map?"


@pytest.mark.parametrize("name", METHODS)
def test_every_draw_is_the_seeds_and_the_teacher_stays(reference, images: Tensor, monkeypatch, name: str):
    asked, generator, manual_seed = [], training.generator, torch.manual_seed
    tested = weights(reference(name)[0])
    teacher, before = load_teacher("demo")
    monkeypatch.setattr(torch, "manual_seed", lambda seed: (asked.append(seed), manual_seed(seed))[1])
    for module in [m for key, m in sys.modules.items() if key.startswith("stlib.methods.")]:
        if "generator" in vars(module):
            noted = lambda seed, place: (asked.append(seed), generator(seed, place))[1]  # noqa: E731
            monkeypatch.setattr(module, "generator", noted)
    other = fit(name, images, seed=SEED + 1, teacher=teacher)[0]
    assert set(asked) <= {SEED + 1}
    assert same(weights(other), tested) == (not asked)
    assert pyramid_hash(teacher) == before.pyramid_sha256
    assert not any(module.training for module in teacher.modules())


@pytest.mark.parametrize("name", METHODS)
def test_a_killed_training_goes_on_and_ends_alike(reference, images: Tensor, tmp_path: Path, name: str):
    reports = []

    def kill(done: int, total: int, _: str) -> None:
        assert 0 < done <= total
        reports.append(done)
        if reports.count(done) == 1 and (done % 2 or done == total):
            raise KeyboardInterrupt

    checkpoint = Checkpoint(tmp_path / "run.ckpt", "same", seconds=0)
    ended = None
    while not ended:
        with suppress(KeyboardInterrupt):
            ended = fit(name, images, checkpoint=checkpoint, progress=kill)
        assert max(map(reports.count, reports)) <= 2, "the training began anew"
    (method, history), (unbroken, expected) = ended, reference(name)
    assert (history, method.snapshots.keys()) == (expected, unbroken.snapshots.keys())
    tested = weights(method)
    assert same(tested, weights(unbroken))
    method.snapshots = deepcopy(method.snapshots)
    first, *others = method.snapshots
    for snapshot in (*others, first) if others else ():
        assert same(method.snapshots[snapshot], unbroken.snapshots[snapshot])
        method.use(snapshot)
    assert same(tested, weights(method)), "the first snapshot is the one in use"


@pytest.mark.parametrize("name", TRAINED)
def test_bf16_reaches_the_training_and_a_loss_that_is_nan_ends_it(reference, images: Tensor, name: str):
    assert not same(weights(reference(name)[0]), weights(fit(name, images, precision="bf16")[0]))
    teacher = load_teacher("demo")[0]
    teacher.conv1.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"(epoch|step) \d"):
        fit(name, images, teacher=teacher)


@pytest.mark.parametrize("name", [n for n, e in METHODS.items() if e.held_out(CONFIGS[n], 10)])
def test_images_that_are_held_out_teach_nothing(reference, images: Tensor, name: str):
    blackened = images.clone()
    blackened[METHODS[name].held_out(CONFIGS[name], len(images))] = 0
    # they may choose a snapshot: the last one has seen nothing of them all the same
    learnt = [m.snapshots.get("last") or weights(m) for m, _ in (reference(name), fit(name, blackened))]
    assert same(*learnt)

"""PatchCore, PaDiM and SPADE on small striped images: each follows its formula and finds the defect."""

from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stlib.data.mvtec import Category
from stlib.detector import Detector, DetectorInfo
from stlib.methods import METHODS, get_method, padim, patchcore, spade
from stlib.methods.training import Execution, generator
from stlib.methods.training_free import TrainingFree
from stlib.metrics import PixelRanking, label_regions
from stlib.nn.backbone import ResNet18Pyramid, features
from stlib.nn.maps import smooth
from stlib.records.schema import TeacherInfo
from stlib.run.spec import RunSpec

CPU = torch.device("cpu")
NAMES = [name for name, entry in METHODS.items() if entry.training_free]


def fitted(
    name: str, plate: Category, teacher: ResNet18Pyramid, *, seed: int = 0, **config: object
) -> TrainingFree:
    recipe = get_method(name).recipe("paper").model_copy(update={"image_size": 64, **config})
    method = get_method(name).build(recipe, teacher, Execution(CPU))
    history = method.fit(plate.train, seed=seed)
    assert (history.steps, history.images_seen) == (0, len(plate.train))
    return method


@pytest.mark.parametrize("name", ["padim", "patchcore", "spade"])  # what another one finds, its own tests say
def test_the_turned_square_is_found(name: str, plate: Category, random_teacher: ResNet18Pyramid):
    maps = fitted(name, plate, random_teacher).maps(plate.test)
    ranking = PixelRanking(maps.pixel, label_regions(plate.masks))
    assert ranking.auroc() > 0.8
    if not get_method(name).score_apart:
        assert maps.image[plate.labels].mean() > maps.image[~plate.labels].mean()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "spade"])  # every neighbour: takes long
def test_a_memory_exports(name: str, plate: Category, random_teacher: ResNet18Pyramid, tmp_path: Path):
    method = fitted(name, plate, random_teacher)
    info = DetectorInfo(
        method=name, variant="", category="plate", seed=0, profile="paper",
        config=method.config.model_dump(mode="json"),
        teacher=TeacherInfo(source="random", file_sha256=None, pyramid_sha256="", missing=[]),
    )  # fmt: skip
    Detector(info, method.network).export_onnx(tmp_path / "d.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "d.onnx")
    anomaly_map, score = session.run(None, {"images": plate.test[:3].numpy()})
    maps = method.maps(plate.test[:3])
    assert anomaly_map == pytest.approx(maps.pixel.numpy(), rel=1e-3, abs=1e-3)
    assert score == pytest.approx(maps.image.numpy(), rel=1e-3, abs=1e-3)


def plain_coreset(points: Tensor, count: int, starts: Tensor) -> list[int]:
    """Greedy selection as the official code has it: all points, once for each that is selected."""
    apart = torch.cdist(points, points[starts]).mean(dim=1).square()
    selected = []
    for _ in range(count):
        selected.append(int(apart.argmax()))
        apart = torch.minimum(apart, (points - points[selected[-1]]).square().sum(dim=1))
    return selected


@pytest.mark.parametrize(("count", "keep"), [(300, 150), (30, 10)])
def test_the_fast_coreset_is_the_greedy_one(monkeypatch, count: int, keep: int):
    monkeypatch.setattr(patchcore, "CANDIDATES", 40)
    points = torch.randint(1000, (count, 6), generator=torch.Generator().manual_seed(0)).float()
    found = patchcore.coreset(points, keep, torch.arange(10))
    assert found.tolist() == plain_coreset(points, keep, torch.arange(10))


def test_a_coreset_of_equal_points_takes_none_twice(monkeypatch):
    monkeypatch.setattr(patchcore, "CANDIDATES", 4)
    assert sorted(patchcore.coreset(torch.ones(9, 2), 9, torch.arange(3)).tolist()) == list(range(9))


def test_patchcores_bank_is_a_coreset_of_averaged_patches_chosen_on_random_projections(plate, random_teacher):
    method = fitted("patchcore", plate, random_teacher, seed=3)
    averaged = [
        F.unfold(level, 3, padding=1).view(*level.shape[:2], 9, -1).mean(dim=2).view_as(level)
        for level in features(random_teacher, plate.train, 8)[1:]
    ]
    coarse = F.interpolate(averaged[1], 8, mode="bilinear", align_corners=False)
    patches = torch.cat([averaged[0], coarse], dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    random = generator(3, 0)
    projected = patches @ torch.randn(384, 128, generator=random)
    starts = torch.randperm(len(patches), generator=random)[:10]
    chosen = plain_coreset(projected, len(patches) // 10, starts)
    torch.testing.assert_close(method.network.bank, patches[chosen], rtol=1e-4, atol=1e-4)
    maps = method.maps(plate.test)
    assert torch.equal(maps.image, maps.layers.amax(dim=(1, 2, 3)))
    assert (maps.image > maps.pixel.amax(dim=(1, 2))).all()  # smoothing lowers the peaks


def test_padims_distance_is_mahalanobis(plate, random_teacher):
    method = fitted("padim", plate, random_teacher)
    seen, tested = (
        method.network._embedding(features(random_teacher, part, 8)) for part in (plate.train, plate.test)
    )
    position = 37
    covariance = torch.cov(seen[position].T) + 0.01 * torch.eye(100)
    apart = tested[position] - seen[position].mean(dim=0)
    expected = (apart @ torch.linalg.inv(covariance) * apart).sum(dim=1).sqrt()
    distances = method.maps(plate.test).layers.flatten(1)[:, position]
    torch.testing.assert_close(distances, expected, rtol=1e-3, atol=1e-3)
    assert len(method.network.chosen.unique()) == 100
    assert method.network.chosen.max() > 192  # of all three levels


def test_spade_looks_up_images_by_level_3_and_positions_in_all_of_them(plate, random_teacher):
    maps = fitted("spade", plate, random_teacher, neighbours=3).maps(plate.test)
    good, tested = (features(random_teacher, part, 8) for part in (plate.train, plate.test))
    away = torch.cdist(tested[2].mean(dim=(2, 3)), good[2].mean(dim=(2, 3)))
    score, similar = away.topk(3, largest=False)
    torch.testing.assert_close(maps.image, score.mean(dim=1), rtol=1e-3, atol=1e-3)
    shown = torch.zeros(len(plate.test), 64, 64)
    for mine, theirs in zip(tested, good, strict=True):
        side = mine.shape[-1]
        for image, places in enumerate(similar):
            bank = theirs[places].permute(0, 2, 3, 1).flatten(0, 2)
            apart = torch.cdist(mine[image].flatten(1).T, bank).amin(dim=1).view(1, 1, side, side)
            shown[image] += F.interpolate(apart, 64, mode="bilinear", align_corners=False)[0, 0] / 3
    torch.testing.assert_close(maps.pixel, smooth(shown), rtol=1e-3, atol=1e-2)


def test_spade_compares_with_the_most_similar_images_only(plate, random_teacher):
    few = fitted("spade", plate, random_teacher, neighbours=1)
    everything = fitted("spade", plate, random_teacher, neighbours=999)
    own = replace(plate, test=plate.train[:3])
    assert few.maps(own.test).layers.amax() < 0.05  # an image that is remembered has its counterpart at once
    assert few.maps(own.test).image.amax() < 0.05
    assert (few.maps(plate.test).layers >= everything.maps(plate.test).layers - 1e-3).all()
    assert (few.maps(plate.test).image < everything.maps(plate.test).image).all()


@pytest.mark.parametrize("name", NAMES)
def test_images_are_held_out_only_where_the_variant_says_so(name: str):
    entry = get_method(name)
    assert len(entry.held_out(entry.recipe("paper", "held-out=20%"), 20)) == 4
    assert entry.held_out(entry.recipe("paper"), 20) == []


@pytest.mark.parametrize("name", NAMES)
def test_what_trains_nothing_has_no_other_arithmetic(name: str):
    with pytest.raises(ValueError, match="trains nothing: choose precision fp32, not bf16"):
        RunSpec(name, "plate", profile="demo", precision="bf16").check()
    with pytest.raises(ValueError, match="remembers images"):
        Detector.untrained(name, "paper")


def test_the_recipes_are_the_papers():
    assert get_method("patchcore").recipe("paper") == patchcore.Config(
        image_size=256, coreset=0.1, projection=128
    )
    assert get_method("patchcore").recipe("paper", "coreset=1%").coreset == 0.01
    assert get_method("padim").recipe("paper") == padim.Config(image_size=256, channels=100, epsilon=0.01)
    assert get_method("spade").recipe("paper") == spade.Config(image_size=256, neighbours=50)

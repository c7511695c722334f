"""The feature pyramid and where its weights come from."""

import re
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import ResNet18_Weights, resnet18

from stlib.files import sha256
from stlib.nn import backbone
from stlib.nn.backbone import CHANNELS, ResNet18Pyramid, load_teacher, prepare, pyramid_hash
from stlib.protocol import MEAN, STD


@pytest.fixture(scope="module")
def full_state() -> dict[str, Tensor]:
    """The state dict of a whole untrained ResNet-18."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return dict(resnet18(weights=None).state_dict())


def pyramid_part(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(("layer4", "fc"))}


def test_features_are_those_of_torchvision_stage_by_stage(full_state: dict[str, Tensor]):
    net = resnet18(weights=None)
    net.load_state_dict(full_state)
    pyramid = ResNet18Pyramid()
    pyramid.load_state_dict(pyramid_part(full_state))
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    net.eval(), pyramid.eval()
    with torch.no_grad():
        first = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))
        second = net.layer2(first)
        third = net.layer3(second)
        for ours, theirs in zip(pyramid(x), (first, second, third), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert (first.shape[1], second.shape[1], third.shape[1]) == CHANNELS


def test_a_student_starts_from_torchvisions_own_initialisation():
    torch.manual_seed(7)
    student = ResNet18Pyramid().state_dict()
    torch.manual_seed(7)
    reference = resnet18(weights=None).state_dict()
    assert all(torch.equal(tensor, reference[name]) for name, tensor in student.items())
    # no zero-init of the last BatchNorm, as timm would do
    assert (student["layer1.0.bn2.weight"] == 1).all()


def test_the_random_teacher_is_always_the_same_frozen_and_in_eval_mode():
    (teacher, info), (_, again) = load_teacher("random"), load_teacher("random")
    assert info == again
    assert (info.source, info.file_sha256, info.missing) == ("random", None, [])
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(module.training for module in teacher.modules())


def test_prepare_normalises_as_imagenet():
    images = torch.randint(
        0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    prepared = prepare(images)
    assert prepared.dtype == torch.float32
    assert prepared.is_contiguous(memory_format=torch.channels_last)
    for channel in range(3):
        expected = (images[:, channel] / 255 - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(prepared[:, channel], expected)


def test_the_hash_does_not_depend_on_file_format_order_or_counters(
    tmp_path: Path, full_state: dict[str, Tensor]
):
    torch.save(full_state, tmp_path / "full.pth")
    turned = dict(reversed(list(pyramid_part(full_state).items())))
    without = {name: tensor for name, tensor in turned.items() if not name.endswith("num_batches_tracked")}
    save_file(without, tmp_path / "part.safetensors")
    full, part = (
        load_teacher(str(tmp_path / "full.pth"))[1],
        load_teacher(str(tmp_path / "part.safetensors"))[1],
    )
    assert full.pyramid_sha256 == part.pyramid_sha256
    assert full.file_sha256 == sha256(tmp_path / "full.pth") != part.file_sha256
    assert (full.source, part.source) == ("full.pth", "part.safetensors")


def test_the_hash_sees_one_changed_number(random_teacher: ResNet18Pyramid):
    other = load_teacher("random")[0]
    assert pyramid_hash(other) == pyramid_hash(random_teacher)
    other.bn1.running_var[3] += 1e-6
    assert pyramid_hash(other) != pyramid_hash(random_teacher)


def test_a_file_that_ends_at_layer3_is_accepted_and_what_it_lacks_is_named(
    tmp_path: Path, full_state: dict[str, Tensor]
):
    save_file(pyramid_part(full_state), tmp_path / "w.safetensors")
    teacher, info = load_teacher(str(tmp_path / "w.safetensors"))
    assert torch.equal(teacher.layer3[1].conv2.weight, full_state["layer3.1.conv2.weight"])
    missing = info.missing
    assert {"fc.weight", "fc.bias", "layer4.0.conv1.weight"} <= set(missing)
    assert all(name.startswith(("layer4", "fc")) for name in missing)
    torch.save(full_state, tmp_path / "w.pth")
    assert load_teacher(str(tmp_path / "w.pth"))[1].missing == []


def test_half_precision_files_become_float32(tmp_path: Path, full_state: dict[str, Tensor]):
    save_file({name: t.half() for name, t in pyramid_part(full_state).items()}, tmp_path / "w.safetensors")
    teacher, _ = load_teacher(str(tmp_path / "w.safetensors"))
    assert {parameter.dtype for parameter in teacher.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"layer2.0.conv1.weight": None}, "lacks 1 tensors of conv1 to layer3, first layer2.0.conv1"),
        ({"conv1.weight": (64, 1, 7, 7)}, "conv1.weight is (64, 1, 7, 7), ResNet-18 has (64, 3, 7, 7)"),
        ({"layer4.1.conv2.weight": (512, 512, 1, 1)}, "layer4.1.conv2.weight is (512, 512, 1, 1), ResNet-18"),
        ({"fc.weight": (5, 512)}, ""),  # other classes: the head is not read
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, full_state: dict[str, Tensor], change: dict[str, tuple[int, ...] | None], told: str
):
    state = full_state | {name: torch.zeros(shape) for name, shape in change.items() if shape}
    torch.save({name: t for name, t in state.items() if change.get(name, 1)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=re.escape(told)) if told else nullcontext():
        load_teacher(str(tmp_path / "w.pth"))


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("keep", [0, 30, 0.5])
def test_a_truncated_file_is_refused(tmp_path: Path, full_state: dict[str, Tensor], name: str, keep: float):
    path = tmp_path / name
    part = {key: full_state[key] for key in ("conv1.weight", "bn1.weight")}
    save_file(part, path) if name.endswith("safetensors") else torch.save(part, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=rf"{name} is not a readable state dict .*fetch it again"):
        load_teacher(str(path))


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_with_code_is_refused_and_the_code_does_not_run(tmp_path: Path):
    path, mark = tmp_path / "w.pth", tmp_path / "mark"
    torch.save({"conv1.weight": _Bomb(mark)}, path)
    with pytest.raises(ValueError, match="not a readable state dict"):
        load_teacher(str(path))
    assert not mark.exists()


@pytest.mark.parametrize("content", [torch.zeros(3), {"state_dict": {"a": torch.zeros(1)}}])
def test_anything_but_a_dictionary_of_tensors_is_refused(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match=r"w\.pth is not a dictionary of tensors: save the network's state_dict"
    ):
        load_teacher(str(tmp_path / "w.pth"))


def test_an_absent_file_is_refused_with_the_choices(tmp_path: Path):
    with pytest.raises(
        FileNotFoundError, match=r"no teacher weights at .*none\.pth: .*'torchvision', 'demo', 'random'"
    ):
        load_teacher(str(tmp_path / "none.pth"))


def test_a_failing_download_is_an_error_and_no_other_teacher_takes_its_place(monkeypatch: pytest.MonkeyPatch):
    def offline(*_: object, **options: object) -> dict[str, Tensor]:
        assert options == {"check_hash": True, "weights_only": True}
        raise OSError("no network")

    monkeypatch.setattr(type(ResNet18_Weights.IMAGENET1K_V1), "get_state_dict", offline)
    with pytest.raises(OSError, match=r"no network\).*resnet18.*--teacher FILE"):
        load_teacher("torchvision")


def test_the_demo_teacher_reports_its_own_name(
    tmp_path: Path, full_state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "demo.safetensors"
    save_file(pyramid_part(full_state), path)
    monkeypatch.setattr(backbone, "DEMO_TEACHER", path)
    info = load_teacher("demo")[1]
    assert (info.source, info.file_sha256, info.missing) == ("demo", sha256(path), [])

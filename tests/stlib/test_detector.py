"""A detector on disk and as ONNX gives the maps that were measured; other files are refused by name."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from stlib.cli import app
from stlib.data.images import DatasetError, as_input, open_image
from stlib.decision import threshold_from
from stlib.detector import _DECISION, Detector
from stlib.files import require_writable
from stlib.inspection import inspect
from stlib.paths import ROOT


def made(method: str) -> Detector:
    return Detector.untrained(method, "demo")


def score_onnx(model: Path, photo: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", ROOT / "workflow/score_onnx.py", model, photo]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def images(detector: Detector, count: int = 3) -> torch.Tensor:
    side = detector.image_size
    return torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(1)).byte()


def test_onnx_runtime_gives_the_same_maps_for_any_batch(tmp_path: Path):
    detector = made("stpm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(detector.info.config, "image_size", 64)
        detector.export_onnx(tmp_path / "d.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "d.onnx")
        for count in (1, 3):
            batch = images(detector, count)
            expected = detector.maps(batch)
            anomaly_map, score = session.run(["anomaly_map", "image_score"], {"images": batch.numpy()})
            assert anomaly_map == pytest.approx(expected.pixel.numpy(), abs=1e-5)
            assert score == pytest.approx(expected.image.numpy(), abs=1e-5)


def test_maps_on_another_device_and_an_export_leave_the_network_where_it_is(tmp_path: Path, monkeypatch):
    detector, exported = made("stpm"), []
    with pytest.raises(RuntimeError, match="meta"):  # a device that every machine has, without numbers
        detector.maps(images(detector), device="meta")
    assert next(detector.network.parameters()).device.type == "cpu"
    monkeypatch.setattr(torch.onnx, "export", lambda outputs, *_a, **_k: exported.append(outputs.network))
    with pytest.raises(AssertionError):
        detector.export_onnx(tmp_path / "d.onnx")
    assert exported[0] is not detector.network


def test_images_of_another_size_or_type_are_refused(tmp_path: Path):
    detector = made("stpm")
    for wrong in (
        torch.zeros(1, 3, 64, 64).byte(),
        torch.zeros(1, 3, 96, 96),
        torch.zeros(3, 96, 96).byte(),
    ):
        with pytest.raises(ValueError, match=r"this detector takes \(M, 3, 96, 96\) uint8"):
            detector.maps(wrong)


def test_a_folder_in_the_place_of_images_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"images are a str, .*`stlib\.inspect\(detector, FOLDER\)`"):
        made("stpm").maps("photos")


@pytest.mark.parametrize("kind", ["image", "array", "list"])
def test_an_image_in_memory_is_refused_with_the_line_that_scores_it(kind: str):
    detector, image = made("stpm"), Image.new("RGB", (120, 90), "grey")
    images = {"image": image, "array": np.asarray(image), "list": [image]}[kind]
    line = r"`(detector\.maps\()?stlib\.data\.images\.as_input\(image, detector\.image_size\)\[None\]"
    for score in (detector.maps, lambda given: inspect(detector, given)):
        with pytest.raises(TypeError, match=line):
            score(images)
    assert detector.maps(as_input(image, detector.image_size)[None]).image.shape == (1,)


@pytest.mark.parametrize("method", ["stpm", "destseg", "rd4ad"])
def test_bfloat16_rounds_the_maps_and_no_more(method: str):
    detector = made(method)
    shape = (2, 3, detector.image_size, detector.image_size)
    images = torch.randint(256, shape, generator=torch.Generator().manual_seed(0)).byte()
    exact, rounded = detector.maps(images), detector.maps(images, precision="bf16")
    assert rounded.pixel.dtype == torch.float32
    assert not torch.equal(rounded.pixel, exact.pixel)
    torch.testing.assert_close(rounded.pixel, exact.pixel, rtol=0.1, atol=0.1 * exact.pixel.max().item())


def test_other_files_are_refused_by_name(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no detector at"):
        Detector.load(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    whole = tmp_path / "whole.safetensors"
    made("stpm").save(whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-1000])
    for name in ("text", "weights", "cut"):
        with pytest.raises(ValueError, match=f"{name}.safetensors is not a detector"):
            Detector.load(tmp_path / f"{name}.safetensors")


def test_a_card_without_the_size_is_refused_by_name(tmp_path: Path):
    detector = made("stpm")
    config = {name: value for name, value in detector.info.config.items() if name != "image_size"}
    Detector(detector.info.model_copy(update={"config": config}), detector.network).save(tmp_path / "d.st")
    with pytest.raises(ValueError, match=r"d\.st is not a detector .*image_size"):
        Detector.load(tmp_path / "d.st")


def test_the_script_without_stlib_scores_a_photograph_as_the_command_does(tmp_path: Path):
    pixels = torch.randint(256, (90, 150, 3), generator=torch.Generator().manual_seed(0)).byte()
    Image.fromarray(pixels.numpy()).save(tmp_path / "photo.jpg")
    detector = made("stpm").with_threshold(threshold_from([1e9]))
    detector.export_onnx(tmp_path / "d.onnx")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []
    (found,) = inspect(detector, [tmp_path / "photo.jpg"])
    score, decision = score_onnx(tmp_path / "d.onnx", found.path).stdout.split()
    assert float(score) == pytest.approx(found.score, rel=1e-4)
    assert decision == found.decision == "good"


def test_the_script_without_stlib_calls_a_score_that_is_no_number_anomalous(tmp_path: Path):
    detector = made("stpm").with_threshold(threshold_from([1e9]))
    next(detector.network.student.parameters()).data.fill_(float("nan"))
    detector.export_onnx(tmp_path / "d.onnx")
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    assert score_onnx(tmp_path / "d.onnx", tmp_path / "a.png").stdout == "nan anomalous\n"


@pytest.fixture(scope="module")
def without_threshold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file that the command made of a detector without a threshold, and warned of."""
    folder = tmp_path_factory.mktemp("onnx")
    made("stpm").save(folder / "d.safetensors")
    result = CliRunner().invoke(app, ["export", str(folder / "d.safetensors"), str(folder / "d.onnx")])
    assert result.exit_code == 0, result.output
    assert "no threshold in it, so it decides nothing" in result.stderr
    return folder / "d.onnx"


def test_the_script_without_stlib_decides_nothing_without_a_threshold(without_threshold, tmp_path: Path):
    Image.new("RGBA", (64, 64), (90, 90, 90, 255)).save(tmp_path / "opaque.png")
    assert score_onnx(without_threshold, tmp_path / "opaque.png").stdout.endswith(" no threshold\n")


@pytest.mark.parametrize("kind", ["16 bits", "16 bits per colour", "transparent", "CMYK", "two frames"])
def test_the_script_without_stlib_refuses_what_stlib_refuses(without_threshold, tmp_path: Path, kind: str):
    path = tmp_path / ("a.tiff" if kind in ("CMYK", "two frames") else "a.png")
    if kind == "16 bits":
        Image.fromarray(np.full((64, 64), 30_000, np.uint16)).save(path)
    elif kind == "16 bits per colour":
        path.write_bytes(deep_png())
    elif kind == "two frames":
        Image.new("L", (64, 64)).save(path, save_all=True, append_images=[Image.new("L", (64, 64), 9)])
    else:
        Image.new("CMYK" if kind == "CMYK" else "RGBA", (64, 64), (90, 90, 90, 100)).save(path)
    with pytest.raises(DatasetError):
        open_image(path)
    done = score_onnx(without_threshold, path)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: {path} is not one opaque image" in done.stderr


def deep_png() -> bytes:
    """A PNG of one pixel with 16 bits in each of three colours, which PIL cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        sealed = name + content
        return struct.pack(">I", len(content)) + sealed + struct.pack(">I", zlib.crc32(sealed))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(7))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("write", [Detector.save, Detector.export_onnx])
def test_a_photograph_is_not_replaced_by_a_detector(tmp_path: Path, monkeypatch, write):
    monkeypatch.setattr(torch.onnx, "export", lambda *_a, **_k: pytest.fail("the export has begun"))
    Image.new("L", (8, 8)).save(tmp_path / "photo.jpg")
    before = (tmp_path / "photo.jpg").read_bytes()
    with pytest.raises(FileExistsError, match=r"photo\.jpg is a file of another kind"):
        write(made("stpm"), f"{tmp_path}/photo.jpg")
    assert (tmp_path / "photo.jpg").read_bytes() == before


def test_weights_that_are_no_detector_are_not_replaced_by_one(tmp_path: Path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "teacher.safetensors", {"format": "pt"})
    with pytest.raises(FileExistsError, match=r"teacher\.safetensors is a file of another kind"):
        made("stpm").save(tmp_path / "teacher.safetensors")


def test_a_detector_and_its_export_replace_their_own_kind(tmp_path: Path, without_threshold: Path):
    made("stpm").save(tmp_path / "d.safetensors")
    made("stpm").with_threshold(threshold_from([1.0])).save(tmp_path / "d.safetensors")
    assert Detector.load(tmp_path / "d.safetensors").info.threshold
    require_writable(without_threshold, _DECISION.encode())


def test_an_onnx_file_that_cannot_be_written_is_told_before_the_export(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", lambda *_a, **_k: pytest.fail("the export has begun"))
    (tmp_path / "d.onnx").mkdir()
    with pytest.raises(IsADirectoryError, match=r"d\.onnx is a folder"):
        made("stpm").export_onnx(tmp_path / "d.onnx")


def test_a_detector_of_many_training_images_can_be_read_again(tmp_path: Path):
    detector = made("stpm")
    info = detector.info.model_copy(update={"training_images": [f"{index:012x}" for index in range(100_000)]})
    Detector(info, detector.network).save(tmp_path / "d.safetensors")
    assert Detector.load(tmp_path / "d.safetensors").info == info


def test_a_suggested_command_can_be_pasted_and_a_folder_is_called_one(tmp_path: Path):
    wanted = tmp_path / "my part.safetensors"
    with pytest.raises(FileNotFoundError, match=rf"--save '{wanted}'` makes one"):
        Detector.load(wanted)
    with pytest.raises(ValueError, match=r"is a folder: name the detector's file first"):
        Detector.load(tmp_path)

"""A detector on disk and as ONNX gives the maps that were measured; other files are refused by name."""

import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from stlib.decision import threshold_from
from stlib.detector import Detector
from stlib.inspection import inspect
from stlib.paths import ROOT


def made(method: str) -> Detector:
    return Detector.untrained(method, "demo")


def images(detector: Detector, count: int = 3) -> torch.Tensor:
    side = detector.image_size
    return torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(1)).byte()


@pytest.mark.parametrize("method", ["stpm", "pfadseg"])  # the others deploy these networks
def test_a_saved_detector_gives_the_same_maps(method: str, tmp_path: Path):
    detector = made(method)
    detector.save(tmp_path / "d.safetensors")
    again = Detector.load(tmp_path / "d.safetensors")
    assert again.info == detector.info
    batch = images(detector)
    for mine, theirs in zip(detector.maps(batch), again.maps(batch), strict=True):
        assert torch.equal(mine, theirs)
    assert detector.maps(batch).pixel.std() > 0


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


def test_images_of_another_size_or_type_are_refused(tmp_path: Path):
    detector = made("stpm")
    for wrong in (
        torch.zeros(1, 3, 64, 64).byte(),
        torch.zeros(1, 3, 96, 96),
        torch.zeros(3, 96, 96).byte(),
    ):
        with pytest.raises(ValueError, match=r"this detector takes \(M, 3, 96, 96\) uint8"):
            detector.maps(wrong)


@pytest.mark.parametrize("method", ["stpm", "destseg"])
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
    command = [sys.executable, "-I", ROOT / "workflow/score_onnx.py", tmp_path / "d.onnx", found.path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    score, decision = done.stdout.split()
    assert float(score) == pytest.approx(found.score, rel=1e-4)
    assert decision == found.decision == "good"


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

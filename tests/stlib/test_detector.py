"""A detector on disk and as ONNX gives the maps that were measured; other files are refused by name."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from stlib.cli import app
from stlib.detector import Detector

runner = CliRunner()


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


def test_the_command_scores_a_folder_and_writes_maps(tmp_path: Path, make_category):
    make_category(tmp_path / "data", train=5, good=2, defects={"turned": 2})
    detector = made("stpm")
    detector.save(tmp_path / "d.safetensors")
    folder, maps = tmp_path / "data" / "plate" / "test", tmp_path / "maps"
    result = runner.invoke(app, ["detect", str(tmp_path / "d.safetensors"), str(folder), "--maps", str(maps)])
    assert result.exit_code == 0, result.output
    head, *lines = result.stdout.splitlines()
    assert head == "image,score"
    assert len(lines) == 4
    for line in lines:
        file, score = line.rsplit(",", 1)
        written = np.asarray(Image.open(maps / f"{Path(file).parent.name}-{Path(file).stem}.tiff"))
        assert written.shape == (96, 96)
        assert written.max() == pytest.approx(float(score), rel=1e-5)  # STPM's score is the largest pixel


def test_an_empty_folder_is_refused(tmp_path: Path):
    made("stpm").save(tmp_path / "d.safetensors")
    (tmp_path / "empty").mkdir()
    result = runner.invoke(app, ["detect", str(tmp_path / "d.safetensors"), str(tmp_path / "empty")])
    assert result.exit_code == 2
    assert "holds no image" in result.output


def test_two_images_of_one_map_name_are_refused_before_any_is_scored(tmp_path: Path, make_category):
    for root in ("a", "b"):
        make_category(tmp_path / root, train=1, good=1, defects={"turned": 1})
    made("stpm").save(tmp_path / "d.safetensors")
    arguments = [
        "detect",
        str(tmp_path / "d.safetensors"),
        *(str(tmp_path / r / "plate" / "test") for r in "ab"),
    ]
    result = runner.invoke(app, [*arguments, "--maps", str(tmp_path / "maps")])
    assert result.exit_code == 2
    assert "two of the images would write the map" in result.output
    assert not (tmp_path / "maps").exists()
    assert runner.invoke(app, arguments).exit_code == 0

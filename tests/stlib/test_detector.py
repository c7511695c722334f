"""A detector on disk and as ONNX gives the maps that were measured; other files are refused by name."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import ExifTags, Image
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


def random_images(side: int, count: int = 3) -> torch.Tensor:
    return torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(1)).byte()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path]:
    """A detector under a threshold that no score reaches, and what it is as an ONNX file."""
    detector = made("stpm").with_threshold(threshold_from([1e9]))
    path = tmp_path_factory.mktemp("onnx") / "d.onnx"
    detector.export_onnx(path)
    return detector, path


def changed(exported: Path, path: Path, *, weight: float | None = None, **card: str) -> Path:
    """The exported file with one weight or parts of its card replaced."""
    model = onnx.load(exported)
    for entry in model.metadata_props:
        entry.value = card.get(entry.key, entry.value)
    if weight is not None:
        tensor = next(t for t in model.graph.initializer if "student" in t.name and len(t.dims) == 4)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(tensor.dims, weight, np.float32), tensor.name))
    onnx.save(model, path)
    return path


def test_onnx_runtime_gives_the_same_maps_for_any_batch(exported: tuple[Detector, Path]):
    detector, path = exported
    session = onnxruntime.InferenceSession(path)
    for count in (1, 3):
        batch = random_images(detector.image_size, count)
        expected = detector.maps(batch)
        anomaly_map, score = session.run(["anomaly_map", "image_score"], {"images": batch.numpy()})
        assert anomaly_map == pytest.approx(expected.pixel.numpy(), abs=1e-5)
        assert score == pytest.approx(expected.image.numpy(), abs=1e-5)


def test_maps_on_another_device_and_an_export_leave_the_network_where_it_is(tmp_path: Path, monkeypatch):
    detector, exported = made("stpm"), []
    with pytest.raises(RuntimeError, match="meta"):  # a device that every machine has, without numbers
        detector.on("meta").maps(random_images(detector.image_size))
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


@pytest.mark.parametrize("kind", ["image", "array", "list"])
def test_an_image_in_memory_is_refused_with_the_line_that_scores_it(kind: str):
    detector, image = made("stpm"), Image.new("RGB", (120, 90), "grey")
    given = {"image": image, "array": np.asarray(image), "list": [image]}[kind]
    line = r"`(detector\.maps\()?stlib\.data\.images\.as_input\(image, detector\.image_size\)\[None\]"
    for score in (detector.maps, lambda images: inspect(detector, images)):
        with pytest.raises(TypeError, match=line):
            score(given)
    assert detector.maps(as_input(image, detector.image_size)[None]).image.shape == (1,)


def test_an_image_in_memory_is_an_input_as_from_its_file_grey_or_turned_and_other_modes_are_refused(
    tmp_path: Path,
):
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.linear_gradient("L").resize((90, 60)).save(tmp_path / "grey.png", exif=turned)
    from_file = as_input(open_image(tmp_path / "grey.png"), 64)
    with Image.open(tmp_path / "grey.png") as grey:
        assert torch.equal(as_input(grey, 64), from_file)
        assert torch.equal(as_input(grey.convert("RGB"), 64), from_file)
    assert from_file[0, 0, 0] != from_file[0, 0, -1]  # the gradient ran from top to bottom
    for mode in ("RGBA", "I;16", "F", "CMYK"):  # PIL would drop what shows through, and clip 16 bits to white
        with pytest.raises(ValueError, match=f"mode {mode}: make it grey"):
            as_input(Image.new(mode, (80, 60)), 64)


@pytest.mark.parametrize("method", ["stpm", "destseg", "rd4ad"])
def test_bfloat16_rounds_the_maps_and_no_more(method: str):
    detector = made(method)
    images = random_images(detector.image_size, 2)
    exact, rounded = detector.maps(images), detector.maps(images, precision="bf16")
    assert rounded.pixel.dtype == torch.float32
    assert not torch.equal(rounded.pixel, exact.pixel)
    torch.testing.assert_close(rounded.pixel, exact.pixel, rtol=0.1, atol=0.1 * exact.pixel.max().item())


def test_other_files_are_refused_by_name(tmp_path: Path):
    wanted = tmp_path / "my part.safetensors"
    with pytest.raises(FileNotFoundError, match=rf"no detector at .*--save '{wanted}'` makes one"):
        Detector.load(wanted)
    with pytest.raises(ValueError, match=r"is a folder: name the detector's file first"):
        Detector.load(tmp_path)
    (tmp_path / "text.safetensors").write_text("no tensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    made("stpm").save(wanted)
    (tmp_path / "cut.safetensors").write_bytes(wanted.read_bytes()[:-1000])
    for name in ("text", "weights", "cut"):
        with pytest.raises(ValueError, match=f"{name}.safetensors is not a detector"):
            Detector.load(tmp_path / f"{name}.safetensors")


def test_the_script_without_stlib_scores_a_photograph_as_the_command_does(
    exported: tuple[Detector, Path], tmp_path: Path
):
    pixels = torch.randint(256, (90, 150, 3), generator=torch.Generator().manual_seed(0)).byte()
    Image.fromarray(pixels.numpy()).save(tmp_path / "photo.jpg")
    detector, model = exported
    (found,) = inspect(detector, tmp_path / "photo.jpg")
    score, decision = score_onnx(model, found.path).stdout.split()
    assert float(score) == pytest.approx(found.score, rel=1e-4)
    assert decision == found.decision == "good"


def test_the_script_without_stlib_calls_a_score_that_is_no_number_anomalous(
    exported: tuple[Detector, Path], tmp_path: Path
):
    model = changed(exported[1], tmp_path / "d.onnx", weight=float("nan"))
    Image.new("L", (64, 64)).save(tmp_path / "a.png")
    assert score_onnx(model, tmp_path / "a.png").stdout == "nan anomalous\n"


def test_the_command_warns_of_an_export_that_decides_nothing(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Detector, "export_onnx", lambda *_: None)
    made("stpm").save(tmp_path / "d.safetensors")
    result = CliRunner().invoke(app, ["export", str(tmp_path / "d.safetensors"), str(tmp_path / "d.onnx")])
    assert result.exit_code == 0, result.output
    assert "no threshold in it, so it decides nothing" in result.stderr


def test_the_script_without_stlib_decides_nothing_without_a_threshold(
    exported: tuple[Detector, Path], tmp_path: Path
):
    model = changed(exported[1], tmp_path / "d.onnx", threshold="")
    Image.new("RGBA", (64, 64), (90, 90, 90, 255)).save(tmp_path / "opaque.png")
    assert score_onnx(model, tmp_path / "opaque.png").stdout.endswith(" no threshold\n")


def test_the_script_without_stlib_refuses_what_stlib_refuses(exported: tuple[Detector, Path], tmp_path: Path):
    grey = Image.new("L", (64, 64))
    Image.fromarray(np.full((64, 64), 30_000, np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "deep colours.png").write_bytes(deep_png())
    Image.new("RGBA", (64, 64), (90, 90, 90, 100)).save(tmp_path / "transparent.png")
    Image.new("CMYK", (64, 64)).save(tmp_path / "cmyk.tiff")
    grey.save(tmp_path / "frames.tiff", save_all=True, append_images=[grey])
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(DatasetError):
            open_image(path)
        done = score_onnx(exported[1], path)
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
def test_other_files_are_not_replaced_by_a_detector(tmp_path: Path, monkeypatch, write):
    monkeypatch.setattr(torch.onnx, "export", lambda *_a, **_k: pytest.fail("the export has begun"))
    Image.new("L", (8, 8)).save(tmp_path / "photo.jpg")
    save_file({"weight": torch.zeros(2)}, tmp_path / "teacher.safetensors", {"format": "pt"})
    for name in ("photo.jpg", "teacher.safetensors"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(FileExistsError, match=f"{name} is a file of another kind"):
            write(made("stpm"), f"{tmp_path}/{name}")
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write(made("stpm"), tmp_path)


def test_a_detector_and_its_export_replace_their_own_kind(tmp_path: Path, exported: tuple[Detector, Path]):
    made("stpm").save(tmp_path / "d.safetensors")
    made("stpm").with_threshold(threshold_from([1.0])).save(tmp_path / "d.safetensors")
    assert Detector.load(tmp_path / "d.safetensors").info.threshold
    require_writable(exported[1], _DECISION.encode())


def test_a_detector_of_many_training_images_can_be_read_again(tmp_path: Path):
    detector = made("stpm")
    info = detector.info.model_copy(update={"training_images": [f"{index:012x}" for index in range(100_000)]})
    Detector(info, detector.network).save(tmp_path / "d.safetensors")
    assert Detector.load(tmp_path / "d.safetensors").info == info

"""`stlib detect` and `stlib threshold`: scores, decisions, maps and a report of a folder of images."""

import base64
import csv
import os
import re
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from stlib import report
from stlib.cli import app
from stlib.data.images import DatasetError, pixel_size, read_images
from stlib.decision import threshold_from
from stlib.detector import Detector, digests
from stlib.inspection import Inspected, inspect
from stlib.nn.maps import Maps
from stlib.report import Report

runner = CliRunner()


@pytest.fixture
def detector(tmp_path: Path) -> Path:
    Detector.untrained("stpm", "demo").save(tmp_path / "d.safetensors")
    return tmp_path / "d.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images of three formats, one of them wide, and a file that is none."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for index, name in enumerate(("a.png", "b.JPG", "c.webp", "d.png", "wide.png")):
        size = (90, 150, 3) if name == "wide.png" else (64, 64, 3)
        pixels = rng.integers(40 * index, 40 * index + 60, size).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("morning")
    Image.new("L", (64, 64)).save(tmp_path / "photos" / "a_label.bmp")
    return tmp_path / "photos"


def full(*_arguments: object, **_options: object) -> None:
    raise OSError(28, "No space left on device")


def rows(output: str) -> dict[str, tuple[float, str]]:
    """Score and decision by file name."""
    lines = csv.DictReader(output.splitlines())
    return {Path(line["image"]).name: (float(line["score"]), line["decision"]) for line in lines}


def scored(detector: Path, *arguments: object, status: int = 0) -> Result:
    """What `stlib detect` prints."""
    result = runner.invoke(app, ["detect", *map(str, (detector, *arguments))])
    assert result.exit_code == status, result.output
    return result


def learnt(detector: Path, *arguments: object, status: int = 0) -> Result:
    """What `stlib threshold` prints."""
    result = runner.invoke(app, ["threshold", *map(str, (detector, *arguments))])
    assert result.exit_code == status, result.output
    return result


def test_scores_decisions_maps_and_report_agree(detector: Path, folder: Path, tmp_path: Path):
    plain = scored(detector, folder)
    assert "photos/notes.txt" in plain.stderr
    assert "photos/a_label.bmp" in plain.stderr
    assert "no threshold" in plain.stderr
    scores = {name: score for name, (score, decision) in rows(plain.stdout).items() if decision == ""}
    assert len(scores) == 5
    limit = sorted(scores.values())[2]
    trained = Detector.load(detector)
    trained.with_threshold(threshold_from([limit * 1.001])).save(detector)
    report, maps = tmp_path / "new" / "report.html", tmp_path / "maps"
    result = scored(detector, folder, "--maps", maps, "--report", report)
    decided = rows(result.stdout)
    assert decided == {n: (s, "anomalous" if s > limit * 1.001 else "good") for n, s in scores.items()}
    page = report.read_text()
    worst_first = sorted(scores, key=lambda name: -scores[name])
    assert [page.index(f"/{name}<") for name in worst_first] == sorted(page.index(f"/{n}<") for n in scores)
    assert page.count("data:image/jpeg;base64,") == 5
    assert "The redder a place, the less it is like the good images" in page  # which is sent around alone
    wide = np.asarray(Image.open(maps / "wide.png.tiff"))
    assert (wide.shape, wide.dtype) == ((90, 150), np.float32)
    assert wide.max() == pytest.approx(scores["wide.png"], rel=0.1)  # STPM's score is the largest pixel
    assert pixel_size(maps / "wide.png.png") == (150, 90)
    scored(detector, folder, folder, folder / "a.png", "--report", report)  # its own kind is replaced
    assert report.read_text() == page  # and an image named twice is scored once


def test_a_bad_image_is_told_and_the_others_are_scored(detector: Path, folder: Path, tmp_path: Path):
    (folder / "b.JPG").write_bytes(b"<script>alert(1)</script>")
    report = tmp_path / "report.html"
    result = scored(detector, folder, "--report", report, status=3)
    assert set(rows(result.stdout)) == {"a.png", "c.webp", "d.png", "wide.png"}
    assert "b.JPG is not a readable image" in result.stderr
    assert "1 of 5 images could not be read" in result.stderr
    assert "b.JPG is not a readable image" in report.read_text()


def test_an_image_that_cannot_be_read_is_an_error_in_python_unless_it_is_taken(detector: Path, folder: Path):
    (folder / "b.JPG").write_bytes(b"")
    trained = Detector.load(detector)
    with pytest.raises(DatasetError, match=r"b\.JPG is not a readable image"):
        list(inspect(trained, folder))
    errors: list[DatasetError] = []
    assert len(list(inspect(trained, folder, unreadable=errors.append))) == 4
    assert len(errors) == 1
    with pytest.raises(FileNotFoundError, match="no such file or folder: nowhere"):
        inspect(trained, "nowhere")


def test_files_that_are_left_out_are_told_once_in_python_and_by_the_command(
    detector: Path, folder: Path, caplog
):
    list(inspect(Detector.load(detector), folder))
    assert caplog.text.count("photos/notes.txt") == caplog.text.count("photos/a_label.bmp") == 1
    caplog.clear()
    assert scored(detector, folder).stderr.count("photos/notes.txt") == 1
    assert caplog.text == ""


@pytest.mark.parametrize("how", ["SIGTERM", "Ctrl-C"])
def test_what_was_scored_is_reported_when_the_command_is_broken_off(
    detector: Path, folder: Path, tmp_path: Path, monkeypatch, how: str
):
    write = Report.add

    def broken(self: Report, found: Inspected) -> None:
        write(self, found)
        if len(self.rows) == 2:
            signal.raise_signal(signal.SIGTERM if how == "SIGTERM" else signal.SIGINT)

    monkeypatch.setattr(Report, "add", broken)
    before = signal.getsignal(signal.SIGTERM)
    report = tmp_path / "report.html"
    # a shell that starts the tests in the background has them ignore Ctrl-C
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = 143 if how == "SIGTERM" else 130
        result = scored(detector, folder, "--report", report, status=status)
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
    assert set(rows(result.stdout)) == {"a.png", "b.JPG"}
    assert "broken off: 2 of 5 images were scored" in result.stderr
    assert "2 images; broken off after 2 of 5; 0 could not be read" in report.read_text()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_report_names_what_was_left_out_and_shows_names_as_text(
    detector: Path, folder: Path, tmp_path: Path
):
    (folder / "a.png").rename(folder / "a<b>.heic")
    (folder / "d.png").rename(folder / "<b>d.png")
    report = tmp_path / "report.html"
    scored(detector, folder, "--report", report)
    told = "<h2>Left out</h2>.*no image by its ending\\) 2: photos/a&lt;b&gt;.heic, photos/notes.txt"
    assert re.search(told, report.read_text(), re.DOTALL)
    assert "&lt;b&gt;d.png" in report.read_text()
    assert "<b>" not in report.read_text()


def test_a_threshold_is_kept_in_the_detector_and_tells_what_it_replaces(detector: Path, folder: Path):
    detected = rows(scored(detector, folder).stdout)
    first = learnt(detector, folder, "--quantile", "0.5").stdout
    kept = Detector.load(detector).info.threshold
    assert kept is not None
    assert kept.value == pytest.approx(sorted(score for score, _ in detected.values())[2], rel=1e-5)
    assert str(kept) in first
    assert f"5 in {folder}\n" in first
    highest = [line.split()[-1] for line in first.splitlines() if line.startswith("  ")]
    assert [Path(name).name for name in highest] == sorted(detected, key=detected.get, reverse=True)[:3]
    again = learnt(detector, folder).stdout
    assert ["in the place of threshold" in told for told in (first, again)] == [False, True]


@pytest.mark.parametrize(
    ("option", "target", "told"),
    [
        ("--maps", "d.safetensors", "cannot write"),
        ("--report", "photos", "is a folder"),
        ("--report", "d.safetensors", "is a file of another kind, which would be lost"),
        ("--device", "cuda:99", "use device 'cpu'"),
    ],
)
def test_nothing_is_scored_for_a_target_or_device_that_will_not_do(
    detector: Path, folder: Path, monkeypatch, option: str, target: str, told: str
):
    monkeypatch.chdir(folder.parent)
    before = detector.read_bytes()
    result = scored(detector, folder, option, target, status=2)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert told in result.stderr
    assert detector.read_bytes() == before


def test_a_threshold_that_cannot_be_kept_is_told_before_any_score(detector: Path, folder: Path, monkeypatch):
    monkeypatch.setattr(Detector, "maps", lambda *_a, **_k: pytest.fail("scoring has begun"))
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    assert f"error: cannot write {detector} (" in learnt(detector, folder, status=2).stderr


def test_a_threshold_is_printed_even_if_it_cannot_be_kept(detector: Path, folder: Path, monkeypatch):
    monkeypatch.setattr(os, "fsync", full)
    result = learnt(detector, folder, status=2)
    assert "from 5 held-out good images" in result.stdout
    assert f"error: cannot write {detector} (No space left on device): make room" in result.stderr


def test_an_empty_folder_is_refused(detector: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert "holds no image" in scored(detector, tmp_path / "empty", status=2).stderr


@pytest.mark.parametrize(
    ("call", "wrong", "told"),
    [
        ("scored", ["neu heut"], "no such file or folder: neu heut\n"),
        ("learnt", ["neu heut"], "no such file or folder: neu heut\n"),
        ("learnt", ["--quantile", "95"], "quantile 95.0"),
    ],
)
def test_a_misspelt_place_or_quantile_is_told_before_any_work(
    detector: Path, folder: Path, monkeypatch, call: str, wrong: list[str], told: str
):
    monkeypatch.setattr(Detector, "load", lambda _path: pytest.fail("work has begun"))
    result = {"scored": scored, "learnt": learnt}[call](detector, folder, *wrong, status=2)
    assert result.stdout == ""
    assert f"error: {told}" in result.stderr


def test_masks_below_a_category_are_left_out_and_not_scored(detector: Path, tmp_path: Path, make_category):
    folder = make_category(tmp_path, train=1, good=1, defects={"turned": 1}) / "plate"
    (folder / "ground_truth").rename(folder / "Ground_Truth")
    result = scored(detector, folder)
    assert len(result.stdout.splitlines()) == 4
    assert "left out (folder of masks) 1: plate/Ground_Truth" in result.stderr
    masks = scored(detector, folder / "Ground_Truth")
    assert len(masks.stdout.splitlines()) == 2  # a person who names the masks has them


def test_images_of_one_name_have_a_map_each(detector: Path, tmp_path: Path, make_category):
    for root in ("a", "b"):
        make_category(tmp_path / root, train=1, good=1, defects={"turned": 1})
    Image.open(tmp_path / "b/plate/test/good/000.png").save(tmp_path / "b/plate/test/good/000.jpg")
    scored(detector, tmp_path / "a/plate/test", tmp_path / "b/plate/test", "--maps", tmp_path / "maps")
    kinds = ["a/plate/test/good/000.png", "a/plate/test/turned/000.png", "b/plate/test/good/000.jpg"]
    kinds += ["b/plate/test/good/000.png", "b/plate/test/turned/000.png"]
    written = sorted(p.relative_to(tmp_path / "maps").as_posix() for p in (tmp_path / "maps").rglob("*.*"))
    assert written == sorted(f"{name}.{kind}" for name in kinds for kind in ("png", "tiff"))


def test_a_map_never_replaces_an_image(detector: Path, folder: Path):
    scored(detector, folder / "a.png", "--maps", folder)
    picture = folder / "a.png.png"  # beside the map
    result = scored(detector, folder / "a.png", picture, "--maps", folder, status=2)
    assert result.stdout == ""
    assert "would replace one of the images: name another folder" in result.stderr


@pytest.mark.parametrize("below", ["", "new/maps"])
def test_maps_go_nowhere_where_the_next_call_would_take_them_for_photographs(
    detector: Path, folder: Path, monkeypatch, below: str
):
    monkeypatch.chdir(folder)
    result = scored(detector, ".", "--maps", folder / below, status=2)
    assert result.stdout == ""
    assert "would be images of . the next time: name a folder outside, such as " in result.stderr
    assert f"{folder.parent / 'maps'}\n" in result.stderr
    assert not (folder / "new").exists()


def test_names_that_are_no_utf8_are_told_or_shown(detector: Path, folder: Path, tmp_path: Path):
    """Archives of Windows bring them. Below a folder they are left out; named, they are scored."""
    odd = folder / os.fsdecode(b"Gr\xfcn.png")
    (folder / "d.png").rename(odd)
    report = tmp_path / "report.html"
    result = scored(detector, folder)
    assert set(rows(result.stdout)) == {"a.png", "b.JPG", "c.webp", "wide.png"}
    assert "left out (name is not UTF-8: rename it) 1: photos/Gr\\udcfcn.png" in result.stderr
    assert "Gr\\udcfcn.png" in rows(scored(detector, folder, odd, "--report", report).stdout)
    assert "Gr\\udcfcn.png<" in report.read_text()


@pytest.mark.parametrize(("name", "below"), [("good", ""), ("OK", "part1")])
def test_a_threshold_is_refused_from_a_folder_of_good_images_and_others(
    detector: Path, tmp_path: Path, make_category, name: str, below: str
):
    test = make_category(tmp_path, train=1, good=3, defects={"turned": 1}) / "plate" / "test"
    (test / name / below).parent.mkdir(exist_ok=True)
    (test / "good").rename(test / name / below)
    told = learnt(detector, test, status=2).stderr
    assert f"{test} holds good images in {name} beside others in turned" in told
    assert told.rstrip().endswith(f"name {test / name}")  # the folder of all good images
    learnt(detector, test / name)


def test_a_threshold_is_refused_from_a_picture_of_the_training_under_any_name(detector: Path, folder: Path):
    trained = Detector.load(detector)
    known = digests(read_images([folder / "d.png"], trained.image_size))
    Detector(trained.info.model_copy(update={"training_images": known}), trained.network).save(detector)
    Image.open(folder / "d.png").save(folder / "copy.bmp")
    (folder / "d.png").unlink()
    before = detector.read_bytes()
    told = learnt(detector, folder, status=2).stderr
    assert "copy.bmp is one of the pictures the detector learnt from (1 of 5 are)" in told
    assert detector.read_bytes() == before


def test_a_picture_named_three_times_counts_once(detector: Path, folder: Path):
    Image.open(folder / "d.png").save(folder / "copy.bmp")
    told = learnt(detector, folder, folder, folder).output
    assert Detector.load(detector).info.threshold.images == 5
    assert "named before: each counts once" in told
    assert "does not know what it learnt from" in told


def test_a_score_that_is_no_number_is_anomalous_and_the_worst(
    detector: Path, folder: Path, tmp_path: Path, monkeypatch
):
    trained = Detector.load(detector)
    trained.with_threshold(threshold_from([1e9])).save(detector)
    maps = Detector.maps

    def broken(self: Detector, images: torch.Tensor, **options: object) -> Maps:
        found = maps(self, images, **options)
        found.image[-1] = found.pixel[-1] = float("nan")  # of wide.png, the last
        return found

    monkeypatch.setattr(Detector, "maps", broken)
    report = tmp_path / "report.html"
    result = scored(detector, folder, "--report", report)
    decided = {name: decision for name, (_, decision) in rows(result.stdout).items()}
    assert decided == dict.fromkeys(decided, "good") | {"wide.png": "anomalous"}
    page = report.read_text()
    assert page.index("/wide.png<") == min(page.index(f"/{name}<") for name in decided)
    (found,) = inspect(Detector.load(detector), folder / "wide.png")
    red = np.asarray(found.overlay())
    assert (red[..., 0] > red[..., 1]).all()


def test_spades_overlay_is_not_scaled_by_a_threshold_that_says_nothing_of_its_map(folder: Path):
    detector = Detector.untrained("stpm", "demo")
    (plain,) = inspect(detector, folder / "a.png")
    limited = detector.with_threshold(threshold_from([plain.pixel.min().item()]))
    (red,) = inspect(limited, folder / "a.png")
    assert red.overlay().tobytes() != plain.overlay().tobytes()
    of_spade = Detector(limited.info.model_copy(update={"method": "spade"}), limited.network)
    (found,) = inspect(of_spade, folder / "a.png")
    assert found.threshold == red.threshold
    assert found.overlay().tobytes() == plain.overlay().tobytes()


def test_an_overlay_leaves_surface_far_below_the_threshold_as_it_is():
    """PatchCore's maps of good surface lie at .6 of the threshold: whole parts were pink."""
    pixel = torch.full((8, 8), 0.6)
    pixel[0, 0] = 1
    found = Inspected(Path("part.png"), Image.new("RGB", (8, 8), "white"), pixel, score=1, threshold=1.0)
    green = np.asarray(found.overlay())[..., 1] / 255
    assert green[0, 0] == pytest.approx(0.2, abs=0.01)
    assert green[4:, 4:].min() > 0.85


def test_a_pixel_that_is_no_number_is_red_and_leaves_the_others_as_they_are():
    pixel = torch.full((8, 8), 0.5)
    pixel[0, 0], pixel[7, 7] = torch.nan, 1.0
    found = Inspected(Path("part.png"), Image.new("RGB", (8, 8), "white"), pixel, score=1, threshold=None)
    green = np.asarray(found.overlay())[..., 1] / 255
    assert green[0, 0] < 0.3
    assert green[3, 3] > 0.9


def test_places_may_come_from_a_generator(folder: Path):
    detector = Detector.untrained("stpm", "demo")
    found = [seen.path for seen in inspect(detector, folder.glob("a.png"))]
    assert found == [folder / "a.png"]


def test_a_report_keeps_the_pictures_of_the_worst_images_only(monkeypatch):
    drawn = []
    monkeypatch.setattr(report, "PICTURES", 2)
    monkeypatch.setattr(
        report, "_picture", lambda found: drawn.append(found.path) or str(found.path).encode()
    )
    page = Report("plate: stpm", "no threshold", 5)
    for score in (3.0, 5.0, 1.0, float("nan"), 4.0, 5.0):
        page.add(Inspected(Path(f"{score}.png"), Image.new("L", (1, 1)), torch.zeros(1, 1), score, None))
    assert Path("1.0.png") not in drawn  # nor is it drawn
    shown = [
        base64.b64encode(name).decode() in page.html().decode()
        for name in (b"nan.png", b"5.0.png", b"4.0.png")
    ]
    assert shown == [True, True, False]

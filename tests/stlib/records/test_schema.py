"""Records: what is refused, and that a file comes back as it was written."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from stlib.protocol import CATEGORIES
from stlib.records.schema import Record, TextureInfo, TuningInfo, record_path
from stlib.records.store import RecordError, load_records, read_record, write_record
from stlib.records.teacher import TeacherRecord, load_teacher_records, write_teacher_record


def changed(record: Record, path: str, value: object) -> dict[str, object]:
    """The record as JSON with the value at a dotted path replaced; `...` removes it."""
    data = json.loads(record.model_dump_json())
    *parents, last = path.split(".")
    place = data
    for name in parents:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return data


def test_a_record_comes_back_as_it_was_written_and_leaves_one_file(tmp_path: Path, make_record):
    record = make_record(variant="lr", undefined={"iap90": "no instance"})
    path = write_record(record, tmp_path)
    assert path == tmp_path / "paper" / "stpm-lr" / "bottle-s0.json"
    assert read_record(path) == record
    assert load_records(tmp_path) == [record]
    before = path.read_bytes()
    assert write_record(record, tmp_path).read_bytes() == before
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [path]


def test_a_series_is_one_line_of_the_file(tmp_path: Path, make_record):
    lines = write_record(make_record(), tmp_path).read_text().splitlines()
    assert sum('"train_loss": [ 3.5, 1.2, 0.5 ]' in line for line in lines) == 1
    assert max(map(len, lines)) > 1000  # 200 replicates share a line


def test_records_are_loaded_in_path_order(tmp_path: Path, make_record):
    for category, seed in (("wood", 0), ("bottle", 1), ("bottle", 0)):
        write_record(make_record(category, seed), tmp_path)
    found = [(record.category, record.seed) for record in load_records(tmp_path)]
    assert found == [("bottle", 0), ("bottle", 1), ("wood", 0)]
    assert load_records(tmp_path / "nothing here") == []


def test_profiles_and_variants_never_share_a_file(make_record):
    paths = {
        record_path("stpm", "bottle", 0, profile, variant)
        for profile in ("paper", "short", "demo")
        for variant in ("", "e=5", "precision=fp32")
    }
    assert len(paths) == 9
    with pytest.raises(ValidationError, match="variant 'precision=fp32' of a run in bf16"):
        make_record(precision="bf16", variant="precision=fp32")


@pytest.mark.parametrize(
    ("place", "value", "field"),
    [
        ("schema_version", 2, "schema_version"),
        ("method", "<b>stpm", "method"),
        ("variant", "<script>", "variant"),
        ("category", "<b>bottle", "category"),
        ("category", "../bottle", "category"),
        ("dataset.fingerprint", ..., "dataset.fingerprint"),
        ("metrics.accuracy", 0.9, "metrics.accuracy"),
        ("comment", "nice", "comment"),
        ("history.curves.train_loss", ["high"], "history.curves.train_loss.0"),
        ("bootstrap.iap", [0.5, None], "bootstrap.iap.1"),
        ("image_scores", [{"image": "a", "score": 0.5, "label": 1}], "image_scores.0.label"),
        ("history", None, "a finished run has a history"),
        ("image_scores", [], "a finished run has image scores"),
        ("metrics.iap", ..., "each metric needs a value or a reason: iap"),
        ("undefined", {"iap": "no instance"}, "each metric needs a value or a reason: iap"),
        ("metrics.pixel_auroc", 97.0, r"pixel_auroc = 97\.0 is outside"),
        ("metrics.aupro", -0.1, r"aupro = -0\.1 is outside"),
        ("metrics.pixel_auroc", 0.61, "pixel_auroc = 0.61 is outside its replicates, 0.9.* by hand"),
        ("status", "failed", "a failed run has an error and no metrics"),
    ],
)
def test_a_wrong_field_is_refused_with_file_and_field(
    tmp_path: Path, make_record, place: str, value: object, field: str
):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(changed(make_record(), place, value)))
    with pytest.raises(RecordError, match=rf"record\.json is not a valid record \(schema 1\): .*{field}"):
        read_record(path)


def of_data(record: Record, fingerprint: str) -> Record:
    """The record on other images of its category."""
    data = record.dataset.model_copy(update={"fingerprint": fingerprint * 64})
    return record.model_copy(update={"dataset": data})


def test_two_datasets_of_one_name_have_two_places(make_record):
    record = make_record(dataset="other")
    assert record.path.name == "bottle-00000000-s0.json"
    assert of_data(record, "a").path.name == "bottle-aaaaaaaa-s0.json"


@pytest.mark.parametrize(
    ("changes", "fingerprint", "told"),
    [
        ({"precision": "fp32", "config": {"epochs": 4}}, "0", "settings and precision"),
        (
            {"textures": TextureInfo(source="DTD", fingerprint="3" * 64, images=5640)},
            "4",
            "data and textures",
        ),
    ],
)
def test_a_finished_record_is_replaced_only_by_a_run_on_the_same(
    tmp_path: Path, make_record, changes: dict[str, object], fingerprint: str, told: str
):
    path = write_record(make_record(value=0.9), tmp_path)
    write_record(make_record(value=0.8), tmp_path)
    with pytest.raises(RecordError, match=f"finished record of other {told}: name another folder"):
        write_record(of_data(make_record(value=0.7, **changes), fingerprint), tmp_path)
    assert read_record(path).metrics["aupro"] == 0.8


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b'{"schema_version": 1'])
def test_a_file_that_is_no_record_is_refused_by_name(tmp_path: Path, content: bytes):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"broken\.json is not a valid record"):
        read_record(path)


def test_a_misplaced_file_is_refused(tmp_path: Path, make_record):
    path = write_record(make_record(seed=0), tmp_path)
    path.rename(path.with_name("bottle-s1.json"))
    with pytest.raises(RecordError, match=r"bottle-s1\.json describes .*bottle-s0\.json"):
        load_records(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_cannot_hold_are_refused(make_record, value: float):
    history = make_record().history
    for fields in (
        {"bootstrap": {"iap": [0.5, value]}},
        {"metrics": {"iap": value}},
        {"image_scores": [{"image": "a", "score": value}]},
        {"history": history.model_dump() | {"curves": {"train_loss": [3.5, value]}}},
        {"history": history.model_dump() | {"selected": {"epoch": 2, "val_score": value}}},
        {"history": history.model_dump() | {"learning_curve": {-250: {"iap": value}}}},
    ):
        with pytest.raises(ValidationError, match=r"finite|outside"):
            make_record(**fields)


def test_failed_runs(tmp_path: Path, make_record):
    failed = make_record(status="failed")
    assert read_record(write_record(failed, tmp_path)) == failed
    with pytest.raises(ValidationError, match="a failed run has an error"):
        make_record(status="failed", error="")
    with pytest.raises(ValidationError, match="a failed run has an error and no metrics"):
        Record.model_validate(failed.model_dump() | {"metrics": {"iap": 0.5}})


def test_a_failed_run_never_takes_the_place_of_a_finished_one(tmp_path: Path, make_record):
    failed, finished = make_record(status="failed"), make_record()
    path = write_record(failed, tmp_path)
    again = make_record(status="failed", error="epoch 9: training loss inf")
    assert read_record(write_record(again, tmp_path)) == again  # among failures the last one counts
    assert read_record(write_record(finished, tmp_path)) == finished
    before = path.read_bytes()
    assert write_record(failed, tmp_path) == path
    assert path.read_bytes() == before
    better = make_record(value=0.98)
    assert read_record(write_record(better, tmp_path)) == better


@pytest.mark.parametrize("status", ["failed", "finished"])
def test_a_damaged_file_is_set_aside_whatever_the_run_came_to(tmp_path: Path, make_record, status: str):
    record = make_record(status=status)
    path = write_record(make_record(), tmp_path)
    damaged = path.read_bytes()[:500]
    path.write_bytes(damaged)
    assert read_record(write_record(record, tmp_path)) == record
    assert path.with_name("bottle-s0.json.corrupt").read_bytes() == damaged  # perhaps of newer code
    assert load_records(tmp_path) == [record]


def test_only_the_rows_asked_for_are_read(tmp_path: Path, make_record):
    names = [("stpm", ""), ("et_stpm", ""), ("et_stpm", "e=5")]
    for method, variant in names:
        write_record(make_record(method=method, variant=variant), tmp_path)
    (tmp_path / "paper" / "pfadseg-RCM").mkdir()
    (tmp_path / "paper" / "pfadseg-RCM" / "bottle-s0.json").write_text("damaged")
    found = {
        row: [(r.method, r.variant) for r in load_records(tmp_path, [row])] for row in ("stpm", "et_stpm*")
    }
    assert found == {"stpm": names[:1], "et_stpm*": names[1:]}
    with pytest.raises(RecordError, match=r"bottle-s0\.json is not a valid record"):
        load_records(tmp_path, ["stpm", "pfadseg-RCM"])


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({}, []),
        ({"profile": "short"}, ["short schedule"]),
        (
            {"dataset": "demo", "profile": "demo", "teacher": "demo"},
            ["demo data", "demo schedule", "demo teacher"],
        ),
        ({"teacher": "random"}, ["random teacher"]),
        ({"gaps": ("test/good: 1 of 20 images",)}, ["incomplete dataset: test/good: 1 of 20 images"]),
    ],
)
def test_labels_say_what_a_reader_must_know(make_record, changes: dict[str, object], labels: list[str]):
    assert make_record(**changes).labels() == labels


def tuned(record: Record, *, epochs: int = 2, categories: int = 15, missing: tuple[str, ...] = ()) -> Record:
    """The record with a teacher that was fine-tuned on so many categories."""
    info = TuningInfo(
        name="A", epochs=epochs, data="A", categories=list(CATEGORIES)[:categories], source_sha256="2" * 64
    )
    teacher = record.teacher.model_copy(update={"tuned": info, "missing": list(missing)})
    return record.model_copy(update={"teacher": teacher})


FEWER, HALF_MADE = "teacher fine-tuned on 4 of 15 categories", "its layer4 started from random weights"


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ({}, []),
        ({"categories": 4}, [FEWER]),
        ({"missing": ("layer4.0.conv1.weight", "fc.weight")}, [HALF_MADE]),
        ({"missing": ("fc.weight", "fc.bias")}, []),
        ({"categories": 4, "missing": ("layer4.0.conv1.weight",)}, [FEWER, HALF_MADE]),
        ({"epochs": 0, "categories": 4, "missing": ("layer4.0.conv1.weight",)}, []),
    ],
)
def test_labels_say_how_a_fine_tuning_fell_short(make_record, changes: dict[str, object], labels: list[str]):
    assert tuned(make_record(), **changes).labels() == labels
    assert tuned(make_record(dataset="demo"), **changes).labels() == ["demo data"]


@pytest.mark.parametrize(
    ("dataset", "epochs", "remarks"),
    [
        ("MVTec AD", 2, ["teacher fine-tuned without abnormal images, the paper's with some"]),
        ("MVTec AD", 0, []),
        ("demo", 2, []),
        ("other", 2, ["teacher fine-tuned on 15 categories"]),
        ("other", 0, []),
    ],
)
def test_remarks_say_what_a_teacher_learnt_from(make_record, dataset: str, epochs: int, remarks: list[str]):
    assert tuned(make_record(dataset=dataset), epochs=epochs).remarks() == remarks


@pytest.mark.parametrize(
    ("source", "images", "remarks"),
    [("DTD", 5640, []), ("DTD", 47, ["47 of DTD's 5640 textures"]), ("demo", 138, [])],
)
def test_remarks_name_missing_textures_and_are_no_labels(
    make_record, source: str, images: int, remarks: list[str]
):
    record = make_record(textures=TextureInfo(source=source, fingerprint="3" * 64, images=images))
    assert (record.remarks(), record.labels()) == (remarks, [])


def test_a_teacher_record_comes_back_as_it_was_written(tmp_path: Path, teacher: TeacherRecord):
    path = write_teacher_record(teacher, tmp_path)
    assert path == tmp_path / "paper" / "A.json"
    assert load_teacher_records(tmp_path) == [teacher]
    path.write_text(path.read_text().replace('"held_out": 2', '"held_out": "some"'))
    with pytest.raises(RecordError, match=r"A\.json is not a valid teacher record: [^:]*held_out"):
        load_teacher_records(tmp_path)


def test_a_teacher_record_never_loses_epochs(tmp_path: Path, teacher: TeacherRecord):
    shorter = teacher.model_copy(update={"pyramids": teacher.pyramids[:1]})
    for record in (teacher, shorter):  # a run of few epochs may end after one of many
        write_teacher_record(record, tmp_path)
    assert load_teacher_records(tmp_path) == [teacher]
    other = shorter.model_copy(update={"pyramids": ["3" * 64]})
    write_teacher_record(other, tmp_path)  # made anew: the earlier teachers are gone
    assert load_teacher_records(tmp_path) == [other]

"""Summaries of records, and that their index never stands between a reader and a record."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from stlib.files import write_atomic
from stlib.records import index as module
from stlib.records.index import load_summaries
from stlib.records.store import RecordError, write_record


@pytest.fixture
def records(tmp_path: Path, make_record):
    """Three runs written a minute ago."""
    folder = tmp_path / "records"
    for name, seed in (("bottle", 0), ("bottle", 1), ("grid", 0)):
        settle(write_record(make_record(name, seed, undefined={"iap90": "no instance"}), folder))
    return folder


@pytest.fixture
def index(tmp_path: Path):
    return tmp_path / "build" / "summaries.npz"


def settle(path: Path) -> None:
    """Make the file a minute older."""
    then = path.stat().st_mtime_ns - 60 * 10**9
    os.utime(path, ns=(then, then))


@pytest.fixture
def parsed(monkeypatch):
    """The paths that were parsed."""
    paths: list[Path] = []
    real = module.read_summary
    monkeypatch.setattr(module, "read_summary", lambda path: (paths.append(path), real(path))[1])
    return paths


def test_a_summary_is_the_record_without_its_series(tmp_path: Path, make_record):
    record = make_record()
    write_record(record, tmp_path)
    (summary,) = load_summaries(tmp_path)
    expected = record.model_dump(
        exclude={"image_scores": True, "pixel_curves": True, "threshold": True, "history": {"curves"}}
    )
    assert summary.model_dump() == expected
    assert (summary.path, summary.labels()) == (record.path, record.labels())


@pytest.mark.parametrize("place", ["metrics", "history", "runtime"])
def test_a_summary_of_a_damaged_record_is_refused(tmp_path: Path, make_record, place: str):
    path = write_record(make_record(), tmp_path)
    data = json.loads(path.read_text())
    del data[place]
    path.write_text(json.dumps(data))
    with pytest.raises(RecordError, match=r"bottle-s0\.json is not a valid record"):
        load_summaries(tmp_path)


def test_an_indexed_summary_is_the_parsed_one(records: Path, index: Path, parsed: list[Path]):
    first = load_summaries(records, index=index)
    assert len(parsed) == 3
    again = load_summaries(records, index=index)
    assert len(parsed) == 3
    assert again == first == load_summaries(records)
    assert [s.model_dump() for s in again] == [s.model_dump() for s in first]
    assert "iap90" not in first[0].bootstrap
    assert len(first[0].bootstrap["iap"]) == 200


def test_only_the_rows_asked_for_come_back(records: Path, index: Path, make_record):
    settle(write_record(make_record(method="et_stpm", variant="e=5"), records))
    for place in (index, index, None):
        found = {row: len(load_summaries(records, [row], index=place)) for row in ("stpm", "et_stpm*", "x")}
        assert found == {"stpm": 3, "et_stpm*": 1, "x": 0}


def test_another_content_is_read_again(records: Path, index: Path, parsed: list[Path], make_record):
    load_summaries(records, index=index)
    path = write_record(make_record("grid", 0, value=0.5), records)
    settle(path)
    (records / "paper" / "stpm" / "bottle-s1.json").unlink()
    settle(write_record(make_record("wood", 0), records))
    parsed.clear()
    found = {(s.category, s.seed): s.metrics["iap"] for s in load_summaries(records, index=index)}
    assert [p.name for p in parsed] == ["grid-s0.json", "wood-s0.json"]
    assert found.keys() == {("bottle", 0), ("grid", 0), ("wood", 0)}
    assert found["grid", 0] == 0.5
    parsed.clear()
    load_summaries(records, index=index)
    assert parsed == []


def test_a_file_that_may_still_change_is_not_entered(
    records: Path, index: Path, parsed: list[Path], make_record
):
    path = write_record(make_record("wood", 0), records)
    load_summaries(records, index=index)
    parsed.clear()
    load_summaries(records, index=index)
    assert parsed == [path]


def test_a_record_moved_to_a_wrong_place_is_refused_though_it_is_indexed(records: Path, index: Path):
    load_summaries(records, index=index)
    path = records / "paper" / "stpm" / "bottle-s1.json"
    path.rename(path.with_name("bottle-s2.json"))
    with pytest.raises(RecordError, match=r"bottle-s2\.json describes .*bottle-s1\.json"):
        load_summaries(records, index=index)


def test_a_damaged_index_is_made_again(records: Path, index: Path, parsed: list[Path]):
    expected = load_summaries(records, index=index)
    whole = index.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (b"", b"no archive", whole[:-100], bytes(flipped)):
        write_atomic(index, content)
        parsed.clear()
        assert load_summaries(records, index=index) == expected
        assert len(parsed) == 3
        assert index.read_bytes() == whole


def test_no_flipped_bit_of_an_index_is_ever_believed(records: Path, index: Path):
    """Headers of the archive and of the arrays included: what is read is the records' content or nothing."""
    expected = load_summaries(records, index=index)
    whole = index.read_bytes()
    entries = module._read(index)
    assert list(entries.values()) == expected
    headers = [i for i in range(len(whole)) if i < 600 or i > len(whole) - 800]
    for place in headers[::7]:
        index.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert module._read(index) in ({}, entries), place


def test_a_damaged_record_stops_only_those_who_ask_for_its_row(records: Path, index: Path):
    broken = records / "paper" / "pfadseg-RCM" / "bottle-s0.json"
    broken.parent.mkdir()
    broken.write_text("damaged")
    for place in (index, index, None):
        assert len(load_summaries(records, ["stpm"], index=place)) == 3
        with pytest.raises(RecordError, match=r"bottle-s0\.json is not a valid record"):
            load_summaries(records, ["pfadseg-*"], index=place)


def test_an_index_of_other_fields_is_none(records: Path, index: Path, parsed: list[Path], monkeypatch):
    load_summaries(records, index=index)
    monkeypatch.setattr(module, "_SCHEMA", "another")
    parsed.clear()
    load_summaries(records, index=index)
    assert len(parsed) == 3
    with np.load(index) as parts:
        assert parts["schema"].item() == "another"


def test_an_index_that_cannot_be_written_costs_time_only(records: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert len(load_summaries(records, index=tmp_path / "file" / "summaries.npz")) == 3


def test_the_index_belongs_to_the_folder_of_the_study(records: Path, index: Path, monkeypatch):
    monkeypatch.setattr(module, "INDEX", index)
    load_summaries(records)
    assert not index.exists()
    monkeypatch.setattr(module, "RECORDS", records)
    load_summaries(records)
    assert index.exists()


def test_no_records_no_index(tmp_path: Path, index: Path):
    assert load_summaries(tmp_path / "nothing here", index=index) == []
    assert not index.exists()

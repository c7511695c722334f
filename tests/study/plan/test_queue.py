"""The queue lists what is missing, most useful first."""

from pathlib import Path

from typer.testing import CliRunner

from stlib.records.schema import Dataset, Record
from study.cli import app
from study.plan.grid import Cell, read_grid
from study.plan.queue import missing, queue_text

FOCUS = read_grid().categories["focus"]


def record(category: str, seed: int, **changes: object) -> Record:
    """The few fields that the queue reads."""
    fields = {"method": "stpm", "variant": "", "category": category, "seed": seed, "profile": "paper"}
    data = {"name": "MVTec AD", "fingerprint": "0"}
    fields |= {"dataset": Dataset.model_construct(None, **data)}
    return Record.model_construct(**{**fields, "status": "finished", **changes})


def test_images_at_hand_come_first_then_what_is_worth_more():
    cells = missing([], at_hand=["zipper", "pill"])
    here = [cell.category in ("zipper", "pill") for cell in cells]
    assert here == sorted(here, reverse=True)
    tiers = [cell.tier for cell, near in zip(cells, here, strict=True) if near]
    assert tiers == sorted(tiers)
    assert cells[0].seed == 0


def test_only_a_finished_run_at_the_paper_schedule_counts():
    assert missing([]) == read_grid().cells()
    records = [record("pill", 0), record("grid", 0, status="failed"), record("wood", 0, profile="short")]
    left = {(c.method, c.variant, c.category, c.seed) for c in missing(records)}
    assert ("stpm", "", "pill", 0) not in left
    assert {("stpm", "", "grid", 0), ("stpm", "", "wood", 0), ("et_stpm", "", "pill", 0)} <= left


def test_a_variant_is_another_cell_than_the_method():
    left = {(c.method, c.variant, c.category) for c in missing([record(FOCUS[0], 0, method="pfadseg")])}
    assert ("pfadseg", "RCM", FOCUS[0]) in left


def test_the_text_counts_and_gives_commands():
    text = queue_text([record("pill", 0)], at_hand=["grid", "pill"])
    assert f"1 of {len(read_grid().cells())} wanted runs are recorded" in text
    assert text.index("| 1 | `stlib run ") < text.index(" | `stlib run stpm grid --seed 0 --profile paper` |")
    assert "`stlib run stpm pill --seed 0 --profile paper`" not in text
    assert Cell("pfadseg", "grid", 0, "RCM").command() in text
    assert "| stpm |  | 39 |" in text  # 13 categories without images, three seeds


def test_images_at_hand_need_no_name_of_mvtec_ad(tmp_path: Path):
    data, file = tmp_path / "demo", tmp_path / "QUEUE.md"
    (data / "brick").mkdir(parents=True)
    (data / "README.md").touch()
    options = ("--grid", "demo", "--data", str(data), "--records", str(tmp_path), "--output", str(file))
    result = CliRunner().invoke(app, ["queue", *options])
    assert result.exit_code == 0, result.output
    assert "`stlib run stpm brick --seed 0 --profile demo`" in file.read_text()

"""The queue lists what is missing, most useful first."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from study import cli
from study.cli import app
from study.plan.grid import Cell, read_grid
from study.plan.queue import TITLE, missing, queue_text
from study.readme import BEGIN, END


def test_images_at_hand_come_first_then_what_is_worth_more():
    cells = missing([], at_hand=["zipper", "pill"])
    here = [cell.category in ("zipper", "pill") for cell in cells]
    assert here == sorted(here, reverse=True)
    tiers = [cell.tier for cell, near in zip(cells, here, strict=True) if near]
    assert tiers == sorted(tiers)
    assert cells[0].seed == 0


def test_only_a_finished_run_at_the_paper_schedule_counts(make_record):
    assert missing([]) == read_grid().cells()
    records = [
        make_record("pill", 0),
        make_record("grid", 0, status="failed"),
        make_record("wood", 0, profile="short"),
    ]
    left = {(c.method, c.variant, c.category, c.seed) for c in missing(records)}
    assert ("stpm", "", "pill", 0) not in left
    assert {("stpm", "", "grid", 0), ("stpm", "", "wood", 0), ("et_stpm", "", "pill", 0)} <= left
    assert ("stpm", "epochs=200", "pill", 0) in left  # a variant is another cell than its method


def test_the_text_counts_and_gives_commands(make_record):
    text = queue_text([make_record("pill", 0)], at_hand=["grid", "pill"])
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


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ('made_up_here = [""]', "unknown method 'made_up_here': choose one of"),
        ('stpm = ["e=5"]', "STPM has no variant 'e=5'"),
    ],
)
def test_a_row_that_no_run_can_be_made_of_is_refused_by_name(
    tmp_path: Path, monkeypatch, row: str, told: str
):
    block = f"words = ''\norder = [1, 1]\ncategories = 'all'\nrows.{row}\n"
    file = tmp_path / "grid.toml"
    file.write_text(
        f"[paper]\nprofile = 'paper'\nseeds = [0]\ncategories.all = ['pill']\n[[paper.block]]\n{block}"
    )
    monkeypatch.setattr(cli, "read_grid", lambda name: read_grid(name, file))
    options = ("--records", tmp_path, "--data", tmp_path, "--output", tmp_path / "QUEUE.md")
    result = CliRunner().invoke(app, ["queue", *map(str, options)])
    assert result.exit_code == 2
    assert f"a row of grid 'paper' in workflow/grid.toml: {told}" in result.stderr
    assert not (tmp_path / "QUEUE.md").exists()


@pytest.mark.parametrize(
    ("command", "option"), [("queue", "--records"), ("queue", "--data"), ("readme", "--records")]
)
def test_a_misspelt_folder_never_empties_what_is_renewed(tmp_path: Path, command: str, option: str):
    file = tmp_path / "file.md"
    file.write_text(f"{BEGIN}\nold\n{END}\n{TITLE}\n")
    before = file.read_bytes()
    named = {"queue": {"--data": tmp_path, "--output": file}, "readme": {"--file": file}}[command]
    options = {"--records": tmp_path} | named | {option: tmp_path / "typo"}
    told = CliRunner().invoke(app, [command, *(str(part) for pair in options.items() for part in pair)])
    assert (told.exit_code, file.read_bytes()) == (2, before)
    assert f"typo: name another one by {option}" in told.stderr


def test_the_queue_replaces_no_file_of_another_kind(tmp_path: Path):
    file = tmp_path / "CONTRIBUTING.md"
    file.write_text("how to help")
    options = ("--data", str(tmp_path), "--records", str(tmp_path), "--output", str(file))
    told = CliRunner().invoke(app, ["queue", *options])
    assert (told.exit_code, file.read_text()) == (2, "how to help")
    assert "is a file of another kind" in told.stderr


@pytest.mark.parametrize("command", ["queue", "readme"])
def test_a_place_that_cannot_be_written_is_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
):
    def full(path: Path, _content: bytes) -> None:
        raise OSError(f"cannot write {path}")

    monkeypatch.setattr(cli, "write_atomic", full)
    file = tmp_path / "file.md"
    file.write_text(f"{BEGIN}\n{END}\n{TITLE}\n")
    named = {"queue": ["--data", str(tmp_path), "--output"], "readme": ["--file"]}[command]
    told = CliRunner().invoke(app, [command, "--records", str(tmp_path), *named, str(file)])
    assert told.exit_code == 2
    assert f"cannot write {file}" in told.stderr

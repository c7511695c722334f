"""The grid is the product that its file says, and a cell is done only with its own whole, finished record."""

from pathlib import Path

import pytest

from stlib.methods import METHODS
from stlib.protocol import ABLATION_ROWS, CATEGORIES, SEEDS_FOR_A_VERDICT, TUNING_EPOCHS
from stlib.records.store import write_record
from study.analysis.ablation import CHOICES
from study.analysis.reported import PAPERS
from study.plan.grid import Cell, read_grid, select_cells, state, tuned_variant

GRID = """
[small]
profile = "demo"
seeds = [4, 2]
categories = { both = ["brick", "grass"], one = ["grass"] }

[[small.block]]
words = "all"
order = [1, 2]
categories = "both"
rows.stpm = [""]

[[small.block]]
words = "rows"
order = [3, 3]
categories = "one"
rows.pfadseg = ["", "RCM"]

[[small.block]]
words = "one seed"
order = [4, 4]
categories = "one"
rows.padim = ["", "precision=tf32"]
seeds = [4]
precision = "fp32"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


def test_a_grid_is_the_product_of_its_blocks_best_first(file: Path):
    grid = read_grid("small", file)
    assert [(c.tier, c.seed, c.method, c.variant, c.category) for c in grid.cells()] == [
        (1, 4, "stpm", "", "brick"),
        (1, 4, "stpm", "", "grass"),
        (2, 2, "stpm", "", "brick"),
        (2, 2, "stpm", "", "grass"),
        (3, 4, "pfadseg", "", "grass"),
        (3, 4, "pfadseg", "RCM", "grass"),
        (3, 2, "pfadseg", "", "grass"),
        (3, 2, "pfadseg", "RCM", "grass"),
        (4, 4, "padim", "", "grass"),
        (4, 4, "padim", "precision=tf32", "grass"),
    ]
    *_, free, needed, named = grid.cells()
    assert [cell.precision for cell in (free, needed, named)] == ["", "fp32", "tf32"]
    assert named.command().endswith("--variant precision=tf32 --precision tf32")
    assert list(grid.headings().values()) == [
        "all, first seed", "all, other seeds", "rows, first seed", "one seed, first seed",
    ]  # fmt: skip


def test_a_selection_names_methods_categories_and_seeds(file: Path):
    cells = read_grid("small", file).cells()
    assert select_cells(cells) == cells
    assert [c.path.name for c in select_cells(cells, ["stpm"], ["grass"], [2])] == ["grass-s2.json"]
    with pytest.raises(ValueError, match="the grid has no category 'gras': choose among brick, grass"):
        select_cells(cells, ["stpm"], ["gras"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("small", "tiny", "no grid 'small'"),
        ("seeds = [4, 2]", "seeds = []", "seeds"),
        ("order", "rank", "rank"),
    ],
)
def test_a_faulty_grid_is_refused(file: Path, old: str, new: str, message: str):
    file.write_text(GRID.replace(old, new))
    with pytest.raises(ValueError, match=message):
        read_grid("small", file)


def test_the_study_covers_what_its_pages_compare():
    cells = {(c.method, c.variant, c.category, c.seed) for c in read_grid("paper").cells()}
    plain = {cell for cell in cells if not cell[1] and cell[0] in PAPERS}
    assert len(plain) == len(PAPERS) * len(CATEGORIES) * SEEDS_FOR_A_VERDICT
    rows = {(method, variant) for method, variant, *_ in cells}
    assert {("pfadseg", variant) for variant in [*ABLATION_ROWS.values(), *CHOICES]} <= rows
    assert {("et_stpm", tuned_variant(e)) for e in TUNING_EPOCHS if e} <= rows  # 0 epochs is STPM


def test_a_tier_with_two_headings_is_refused(tmp_path: Path):
    block = "[[paper.block]]\nwords = '{}'\norder = {}\ncategories = 'all'\nrows.stpm = ['{}']\n"
    head = "[paper]\nprofile = 'paper'\nseeds = [0, 1]\n[paper.categories]\nall = ['pill']\n"
    file = tmp_path / "grid.toml"
    file.write_text(head + block.format("one", [1, 3], "") + block.format("two", [3, 4], "epochs=200"))
    with pytest.raises(ValueError, match="order 3 is that of two blocks, 'two' and another"):
        read_grid("paper", file)
    file.write_text(head + block.format("one", [1, 3], "") + block.format("one", [1, 3], "epochs=200"))
    assert len(read_grid("paper", file).cells()) == 4


@pytest.mark.parametrize("name", ["paper", "demo"])
def test_no_cell_is_wanted_twice_and_every_cell_can_be_run(name: str):
    cells = read_grid(name).cells()
    assert len({cell.path for cell in cells}) == len(cells)
    for cell in cells:
        METHODS[cell.method].recipe(cell.profile, cell.variant)  # raises for one that does not exist


def test_only_a_whole_finished_record_of_the_cell_is_done(make_record, tmp_path: Path):
    record = make_record("pill")
    cell = Cell("stpm", "pill", 0)
    assert state(cell, tmp_path) == "missing"
    path = write_record(record, tmp_path)
    assert state(cell, tmp_path) == "finished"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert state(cell, tmp_path) == "damaged"
    path.write_bytes(whole.replace(b'"seed": ', b'"seed": 1', 1))
    assert state(cell, tmp_path) == "damaged"  # another run's record in the cell's place
    path.unlink()
    write_record(make_record("pill", status="failed"), tmp_path)
    assert state(cell, tmp_path) == "failed"

"""The papers' tables: their layout, which runs stand beside a number, and which marks they carry."""

import io
from base64 import b64decode

import pandas as pd
import pytest

from stlib.protocol import CATEGORIES, TEXTURES
from study.analysis.paper_tables import HERE, MARKS, printed_tables, tidy
from study.analysis.reported import load_reported
from study.analysis.status import of_score
from study.tables import download


def tables(*records):
    return {(one.paper, one.name): one for one in printed_tables(load_reported(), records)}


def status(cell):
    return of_score(cell.verdict)


def test_every_number_of_a_table_has_its_cell_in_the_papers_order():
    found = tables()
    in_tables = [row for row in load_reported() if row.table.startswith("Table")]
    assert sum(len(one.cells) for one in found.values()) == len(in_tables)
    wide = found["pfadseg", "Table 2"]
    assert wide.rows[4:7] == ["wood", "mean_texture", "bottle"]
    assert wide.rows[-2:] == ["mean_object", "mean"]
    assert wide.columns[:3] == [("stpm", "pixel_auroc"), ("stpm", "pixel_ap"), ("cutpaste", "pixel_auroc")]
    assert found["pfadseg", "Table 4"].rows[0] == "none"
    cell = found["destseg", "Table 3"].cells["carpet", "destseg", "iap90"]
    assert (cell.reported, cell.reported_number) == ("0.586 ± 0.171", 0.586)  # with its printed spread


def test_a_cell_holds_the_mean_over_seeds_and_its_status(make_record):
    runs = [make_record("grid", seed, value) for seed, value in enumerate((0.985, 0.987, 0.989))]
    cell = tables(*runs)["et_stpm", "Table III"].cells["grid", "stpm", "pixel_auroc"]
    assert cell.reported == "0.990"
    assert cell.reproduced == pytest.approx(0.987)
    assert (cell.seeds, cell.verdict, status(cell)) == (3, "inside, proven", "supported")
    assert cell.distance == pytest.approx(-0.003)
    alone = tables(runs[0])["et_stpm", "Table III"].cells["grid", "stpm", "pixel_auroc"]
    assert status(alone) == "open"


def test_labelled_runs_and_other_methods_are_marked_and_get_no_status(make_record):
    weak = make_record("grid", gaps=["test/good: 0 of 21 images"])
    other = make_record("grid", method="patchcore")
    found = tables(weak, other)["pfadseg", "Table 2"]
    assert found.cells["grid", "stpm", "pixel_ap"].verdict == "not comparable"
    assert found.cells["grid", "patchcore", "pixel_ap"].verdict == "different backbone"
    assert {cell.difference for cell in found.cells.values()} == {None}
    assert found.marks == ["backbone", "setting"]
    assert HERE not in found.rows
    clean = tables(weak, make_record("grid", seed=1))["pfadseg", "Table 2"].cells["grid", "stpm", "pixel_ap"]
    assert (clean.verdict in MARKS, clean.seeds) == (False, 1)


def test_a_printed_average_needs_all_of_its_categories(make_record):
    runs = [make_record(name, value=0.9) for name in TEXTURES]
    found = tables(*runs)["pfadseg", "Table 2"].cells
    assert found["mean_texture", "stpm", "pixel_ap"].reproduced == pytest.approx(0.9)
    assert found["mean", "stpm", "pixel_ap"].reproduced is None
    printed = [found[name, "stpm", "pixel_ap"].reported_number for name in TEXTURES]
    assert found[HERE, "stpm", "pixel_ap"].reported_number == pytest.approx(sum(printed) / 5)
    whole = tables(*(make_record(name) for name in CATEGORIES))["et_stpm", "Table II"]
    assert whole.cells["mean", "stpm", "image_auroc"].reproduced == pytest.approx(0.97)


def test_rows_of_the_ablation_are_its_variants(make_record):
    runs = [make_record(name, method="pfadseg", variant=v) for name in CATEGORIES for v in ("", "RCM")]
    found = tables(*runs)["pfadseg", "Table 4"].cells
    filled = [row for (row, _, metric), cell in found.items() if cell.seeds and metric == "iap"]
    assert filled == ["RCM", "RCM+AFF+PCAR"]


def test_the_download_is_plain_numbers(make_record):
    one = tables(make_record("grid"))["et_stpm", "Table III"]
    link = download(tidy(one), "a.csv", "<all>")
    assert "&lt;all&gt;" in link
    data = link.partition("base64,")[2].partition('"')[0]
    read = pd.read_csv(io.BytesIO(b64decode(data)))
    row = read[(read["row"] == "grid") & (read["method"] == "stpm")].iloc[0]
    assert row["difference"] == pytest.approx(row["reproduced"] - row["reported"])
    assert len(read) == len(one.cells)

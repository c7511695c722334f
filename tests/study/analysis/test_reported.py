import csv

import pandas as pd
import pytest

from stlib.methods import METHODS
from stlib.protocol import CATEGORIES
from study.analysis.reported import AVERAGES, METHOD_NAMES, PAPERS, Reported, load_reported, reported

# (paper, table) -> methods x (categories + printed means) x metrics, less the cells printed as "-"
SHAPES = {
    ("stpm", "README Results"): 1 * 16 * 3,
    ("et_stpm", "Table II"): 6,
    ("et_stpm", "Table III"): 5 * 16,
    ("et_stpm", "abstract"): 2,
    ("et_stpm", "text"): 2 + 2,  # the scores and the gains over STPM
    ("pfadseg", "Table 2"): 7 * 18 * 2 - 2 * 18,  # CutPaste has no AP, DSR no AUC
    ("pfadseg", "Table 3"): 5 * 18 * 2,
    ("pfadseg", "Table 4"): 7 * 3,
    ("pfadseg", "abstract"): 3,
    ("destseg", "abstract"): 3,
    ("destseg", "Table 1"): 7,
    ("destseg", "Table 2"): 7 * 16 * 2 - 2 * 16,  # CutPaste has no AP, DSR no AUC
    ("destseg", "Table 3"): 4 * 16 * 2,
}


@pytest.fixture(scope="module")
def frame():
    rows = load_reported()
    return pd.DataFrame([row.model_dump() | {"number": row.number, "decimals": row.decimals} for row in rows])


def test_every_table_is_complete(frame):
    assert frame.groupby(["paper", "table"]).size().to_dict() == SHAPES


def test_a_method_with_categories_has_all_of_them(frame):
    columns = frame[frame["variant"] == ""].groupby(["paper", "table", "method", "metric"])["category"]
    with_categories = [list(c) for _, c in columns if not set(c) <= set(AVERAGES)]
    assert len(with_categories) == 3 + 5 + 2 * (7 * 2 - 2) + 5 * 2 + 4 * 2
    for categories in with_categories:
        assert sorted(set(categories) - set(AVERAGES)) == sorted(CATEGORIES)
        assert "mean" in categories


def test_a_score_printed_twice_in_a_work_is_the_same_score(frame):
    scores = frame[frame["variant"] == ""].groupby(["paper", "method", "category", "metric"])["number"]
    assert (scores.nunique() == 1).all()
    assert (scores.size() > 1).sum() == 2 + 3 + 2  # means of abstracts: ET-STPM's, DeSTSeg's, PFADSeg's


def test_claimed_gains_are_differences_of_the_printed_means():
    for metric in ("image_auroc", "pixel_auroc"):
        gain = reported("et_stpm", metric, variant="gain over STPM")
        means = [reported(method, metric, paper="et_stpm").exact for method in ("et_stpm", "stpm")]
        assert gain.exact == means[0] - means[1]


def test_what_is_run_here_and_printed_nowhere_is_a_known_method(frame):
    assert set(frame["paper"]) == set(PAPERS)
    assert METHOD_NAMES.keys() - set(frame["method"]) <= METHODS.keys()


@pytest.mark.parametrize(
    ("value", "unit", "number", "decimals"),
    [
        (".988", "fraction", 0.988, 3),
        ("0.990", "fraction", 0.99, 3),
        ("98.8", "percent", 0.988, 3),
        ("100", "percent", 1.0, 2),
    ],
)
def test_printed_values_become_fractions(value, unit, number, decimals):
    row = Reported.model_validate(GOOD | {"value": value, "unit": unit})
    assert (row.value, row.number, row.decimals) == (value, number, decimals)


def test_the_own_paper_comes_first_and_others_follow():
    assert reported("stpm", "image_auroc", "carpet").paper == "stpm"
    assert reported("stpm", "iap", "carpet").paper == "destseg"
    assert reported("destseg", "iap", "carpet").paper == "destseg"
    assert reported("spade", "pixel_auroc").paper == "et_stpm"


def test_a_printed_spread_comes_with_its_score():
    assert (reported("destseg", "iap90", "pill").spread, reported("destseg", "iap").spread) == (0.124, 0.01)
    assert reported("pfadseg", "iap", "pill").spread is None


def test_pfadseg_repeats_the_tables_of_destseg_but_for_destseg_itself(frame):
    """Two transcriptions of the same 224 values, made apart: an error in one of them would show."""
    place, tables = ["method", "category", "metric"], frame["table"].isin(["Table 2", "Table 3"])
    first, second = (frame[tables & (frame["paper"] == paper)] for paper in ("destseg", "pfadseg"))
    both = first.merge(second, on=place)
    copied = both["method"] != "destseg"
    assert (both["value_x"] == both["value_y"])[copied].all()
    assert copied.sum() == 10 * 16 + 3 * 2 * 16 - 32
    assert (both["value_x"] == both["value_y"])[~copied].sum() == 3


def test_a_value_that_is_not_printed_is_none():
    assert reported("et_stpm", "image_auroc", "carpet") is None
    assert reported("cutpaste", "pixel_ap") is None
    assert reported("stpm", "iap", paper="stpm") is None


@pytest.mark.parametrize(
    "changed", [{"method": "stfpm"}, {"metric": "auroc"}, {"category": "metal nut"}, {"paper": "et-stpm"}]
)
def test_a_misspelt_question_is_refused(changed):
    (field, name) = next(iter(changed.items()))
    with pytest.raises(ValueError, match=f"unknown {field} '{name}'; known: "):
        reported(**({"method": "stpm", "metric": "image_auroc"} | changed))


GOOD = {
    "paper": "stpm",
    "source": "somewhere",
    "table": "Table 1",
    "method": "stpm",
    "variant": "",
    "category": "carpet",
    "metric": "image_auroc",
    "value": "0.5",
    "sd": "",
    "unit": "fraction",
    "note": "",
}


def write(folder, *rows, columns=tuple(GOOD)):
    path = folder / "stpm.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        cells = ([value for value in row.values() if value is not None] for row in rows)
        csv.writer(file).writerows([columns, *cells])
    return path


def test_a_spreadsheet_has_dropped_no_trailing_zero(frame):
    """Such as 0.99 for 0.990; the exceptions are printed so."""
    columns = frame.groupby(["paper", "table", "metric", "unit"])["decimals"].nunique()
    assert {names[:3] for names, count in columns.items() if count > 1} == {
        ("et_stpm", "Table III", "pixel_auroc"),
        ("stpm", "README Results", "pro"),
    }


def test_a_file_that_a_spreadsheet_saved_with_its_mark_is_read(tmp_path):
    path = write(tmp_path, GOOD | {"note": "a, b"})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [row.note for row in load_reported(tmp_path)] == ["a, b"]


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ({"metric": "auc"}, "unknown metric 'auc'"),
        ({"category": "metal nut"}, "unknown category 'metal nut'"),
        ({"method": "STPM"}, "unknown method 'STPM'"),
        ({"paper": "destseg"}, r"paper 'destseg' belongs in destseg\.csv"),
        ({"unit": "%"}, "unit: .*'percent'"),
        ({"value": "-"}, "value: .* got '-'"),
        ({"value": "98.8"}, "98.8 fraction is more than 1"),
        ({"source": ""}, "source: "),
        ({"category": "carpet", "value": "0.6"}, "duplicate row"),
        ({"one": "more"}, "too many cells"),
        ({"unit": None, "note": None}, "unit: "),  # a row that ends early
    ],
)
def test_a_broken_row_names_file_and_line(tmp_path, broken, problem):
    path = write(tmp_path, GOOD, GOOD | {"category": "grid"} | broken)
    with pytest.raises(ValueError, match=problem) as error:
        load_reported(tmp_path)
    assert str(error.value).startswith(f"{path}, line 3: ")


def test_other_columns_are_refused(tmp_path):
    path = write(tmp_path, columns=tuple(reversed(GOOD)))
    with pytest.raises(ValueError, match="the columns must be paper, source") as error:
        load_reported(tmp_path)
    assert str(error.value).startswith(f"{path}, line 1: ")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}; restore"):
        load_reported(tmp_path)

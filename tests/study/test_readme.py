"""The README's results are those of the records."""

from collections.abc import Callable

import pytest

from stlib.paths import RECORDS, ROOT
from stlib.records.schema import Record
from stlib.records.store import load_records
from study.readme import BEGIN, END, with_results


def test_the_readme_is_in_step_with_the_records():
    text = (ROOT / "README.md").read_text()
    assert with_results(text, load_records(RECORDS)) == text, "run `study readme`"


def test_a_changed_record_changes_the_table(make_record: Callable[..., Record]):
    text = f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    one = with_results(text, [make_record("bottle", 0)])
    assert one.startswith("before")
    assert one.endswith("after\n")
    assert "old" not in one
    assert "| bottle |" in one
    assert "**STPM**: its image AUROC is open" in one
    assert "14 of 15 categories: not run" in one
    assert with_results(one, [make_record("bottle", 0)]) == one
    assert with_results(one, []) != one


def test_whoever_sends_a_record_writes_no_markup(make_record: Callable[..., Record]):
    foreign = make_record("bottle", 0, gaps=("<script>",), teacher="<script>")
    text = with_results(f"{BEGIN}\n{END}\n", [foreign])
    assert "incomplete dataset: &lt;script&gt;" in text
    assert "<script>" not in text


@pytest.mark.parametrize("marker", [BEGIN, END])
def test_a_lost_marker_is_an_error(marker: str):
    with pytest.raises(ValueError, match="lost a marker"):
        with_results(f"{BEGIN}\n{END}\n".replace(marker, ""), [])

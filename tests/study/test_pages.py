"""The pages' cells run, whatever is recorded, and their sentences say what the frames hold."""

import re

import pytest

from stlib.paths import ROOT

PAGES = sorted(path.stem for path in (ROOT / "book").glob("*.md") if "{code-cell}" in path.read_text())


def text_of(shown):
    """What a reader sees of tables and sentences."""
    return re.sub(r"<[^>]+>", " ", "\n".join(str(part) for part in shown if isinstance(part, str)))


@pytest.mark.parametrize("given", ["nothing", "a pair"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_stands_on_any_records(run_page, make_record, page, given):
    foreign = {"source": "<script>", "file_sha256": None, "pyramid_sha256": "1", "missing": ["<script>"]}
    fields = {"gaps": ["<script>"], "teacher": "<script>", "value": 0.9}
    pair = [make_record(method=method, **fields) for method in ("stpm", "et_stpm")]
    pair += [
        make_record(seed=1, method=run.method).model_copy(
            update={"teacher": run.teacher.model_copy(update=foreign)}
        )
        for run in pair
    ]
    shown = run_page(page, pair if given == "a pair" else [])
    assert not re.findall(r"\b(nan|None)\b|[{}]", text_of(shown))
    assert not any("<script>" in str(part) for part in shown)  # whoever sends a record writes no page


def test_the_audit_reads_every_result_from_the_data(run_page):
    text = text_of(run_page("audit"))
    for told in ("SPADE, pixel AUROC", "printed as 0.965", "level with AFF+PCAR", "+0.023"):
        assert told in text
    prose = re.sub(r"```.*?```|`[^`]*`", "", (ROOT / "book" / "audit.md").read_text(), flags=re.DOTALL)
    assert not re.findall(r"\d\.\d|\d %", prose)

"""The pages' cells run, whatever is recorded, and their sentences say what the frames hold."""

import re

import pytest

from stlib.paths import ROOT

PAGES = sorted(
    path.stem for path in (ROOT / "book").glob("*.md") if "{code-cell}" in path.read_text(encoding="utf-8")
)


def text_of(shown):
    """What a reader sees of tables and sentences."""
    return re.sub(r"<[^>]+>", " ", "\n".join(str(part) for part in shown if isinstance(part, str)))


@pytest.mark.parametrize("given", ["nothing", "a pair", "every schedule and teacher"])
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
    kinds = [("stpm", ""), ("stpm", "epochs=200"), *(("et_stpm", v) for v in ("", "teacher=0", "epochs=200"))]
    every = [
        make_record(name, seed, 0.97 + 0.001 * place + 0.002 * seed, method=method, variant=variant)
        for name in ("bottle", "transistor")
        for seed in range(3)
        for place, (method, variant) in enumerate(kinds)
    ]
    every += [make_record(method=method) for method in ("patchcore", "padim")]  # of no paper of the study
    records = {"nothing": [], "a pair": pair, "every schedule and teacher": every}
    shown = run_page(page, records[given])
    assert not re.findall(r"\b(nan|None)\b|[{}]", text_of(shown))
    assert not any("<script>" in str(part) for part in shown)  # whoever sends a record writes no page


def test_committed_teachers_are_told_with_their_optimisers(run_page):
    text = re.sub(r"\s+", " ", text_of(run_page("teacher")))
    assert re.search(r"A, 1 ?Adam ?5, 910", text)
    assert re.search(r"A, 0 ?SGD ?6, 1107", text)


def test_the_audit_reads_every_result_from_the_data(run_page):
    text = text_of(run_page("audit"))
    for told in ("SPADE, pixel AUROC", "printed as 0.965", "level with AFF+PCAR", "+0.023"):
        assert told in text
    prose = re.sub(
        r"```.*?```|`[^`]*`", "", (ROOT / "book" / "audit.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    assert not re.findall(r"\d\.\d|\d %", prose)

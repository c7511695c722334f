"""The pages' cells run, whatever is recorded, and their sentences say what the frames hold."""

import re
import subprocess

import numpy as np
import pytest
import torch

from stlib.decision import threshold_from
from stlib.detector import Detector
from stlib.paths import ROOT
from stlib.protocol import DEMO_IMAGE_SIZE
from stlib.records.store import write_record

PAGES = sorted(
    path.stem for path in (ROOT / "book").glob("*.md") if "{code-cell}" in path.read_text(encoding="utf-8")
)


def text_of(shown):
    """What a reader sees of tables and sentences."""
    return re.sub(r"<[^>]+>", " ", "\n".join(str(part) for part in shown if isinstance(part, str)))


@pytest.mark.parametrize("given", ["nothing", "a pair", "every schedule and teacher"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_stands_on_any_records(run_page, make_record, monkeypatch, page, given):
    grey = torch.full((1, 3, DEMO_IMAGE_SIZE, DEMO_IMAGE_SIZE), 128, dtype=torch.uint8)
    monkeypatch.setattr("study.notebook.load_textures", lambda *_: (grey, None))  # the demo's take seconds
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


def code_of(page, place):
    """The Python code on a page that readers copy, by its place."""
    return re.findall(
        r"```python\n(.*?)```", (ROOT / "book" / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL
    )[place]


def test_the_table_of_own_records_keeps_data_and_methods_apart(make_record, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data, seed, value in (("a", 0, 0.7), ("a", 1, 0.9), ("b", 0, 0.5)):
        record = make_record("nut", seed, value, dataset="other")
        made = record.dataset.model_copy(update={"fingerprint": data * 64})
        write_record(record.model_copy(update={"dataset": made}), tmp_path / "results/own/records")
    names = {}
    exec(code_of("own_parts", 0), names)
    table = names["table"].reset_index()
    assert table["data"].tolist() == ["a" * 8, "b" * 8]
    assert table["count"].tolist() == [2, 1]
    assert table["mean"].tolist() == pytest.approx([0.8, 0.5])


@pytest.mark.parametrize(("threshold", "anomalous"), [(0.0, True), (1e9, False)])
def test_an_array_is_scored_and_decided_by_the_lines_in_the_book(threshold, anomalous):
    detector = Detector.untrained("stpm", "demo").with_threshold(threshold_from([threshold] * 30))
    names = {"array": np.zeros((50, 40, 3), np.uint8), "detector": detector}
    exec(code_of("own_parts", 1), names)
    assert names["score"] > 0
    assert names["anomalous"] is anomalous


def test_the_loop_of_many_runs_goes_on_and_tells_a_failure_by_its_exit_status(tmp_path):
    (loop,) = re.findall(
        r"```bash\n(failed=.*?)```", (ROOT / "book" / "own_parts.md").read_text(encoding="utf-8"), re.DOTALL
    )
    for broken, status in (("housing --seed 1", 1), ("none", 0)):
        stub = f'stlib() {{ echo "$*" >> calls; [[ "$*" != *"{broken}"* ]]; }}\n'
        done = subprocess.run(["bash", "-c", stub + loop], cwd=tmp_path, check=False)
        calls = (tmp_path / "calls").read_text().splitlines()
        (tmp_path / "calls").unlink()
        assert (done.returncode, len(calls), len(set(calls))) == (status, 6, 6)
        assert calls[-1] == "run stpm housing --seed 2 --data parts --skip-finished"


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

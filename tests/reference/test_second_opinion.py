"""The README against a recomputation that shares no code with stlib (workflow/second_opinion.py)."""

import ast
import re

import pytest
import second_opinion

from stlib.paths import ROOT

SCRIPT = ROOT / "workflow" / "second_opinion.py"


@pytest.fixture
def run(capsys):
    """`run(*files)` gives the script's status, what it prints and what it complains of."""
    return lambda *files: (second_opinion.main(*files), *capsys.readouterr())


def other(text):
    """`text` with another number in the place of its first one."""
    return re.sub(r"\d\.\d{3}", lambda found: f"{float(found[0]) - 0.005:.3f}", text, count=1)


def test_the_readme_says_what_the_raw_records_say(run):
    status, told, complaints = run(ROOT / "README.md")
    assert status == 0, complaints
    assert "STPM" in told


def test_a_changed_number_is_noticed(tmp_path, run):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| bottle |"))
    cells = row.split("|")
    cells[6] = other(cells[6])  # the reproduced pixel AUROC
    wrong = tmp_path / "README.md"
    wrong.write_text(text.replace(row, "|".join(cells)), encoding="utf-8")
    status, _, complaints = run(wrong)
    assert status == 1
    assert "bottle" in complaints


@pytest.mark.parametrize(
    "told",
    [
        r"headline claims (\d+) (?:is|are) supported",
        r"image AUROC (.\d\.\d+) \(printed",
        r"Tested at the last epoch, [^.]* is (.\d\.\d+)",
        r"Tested at the last epoch, [^.]* is [^,]*, on \w+ (.\d\.\d+)",
        r"train for 200 epochs \([^)]*\): image AUROC (.\d\.\d+)",
        r"its authors' command says \([^)]*\): (.\d\.\d+)",
        r"from the printed one \(on \w+ (.\d\.\d+)\)",
    ],
)
def test_a_changed_number_of_a_sentence_is_noticed(tmp_path, run, told):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    place = re.search(told, text)
    wrong = tmp_path / "README.md"
    wrong.write_text(text[: place.start(1)] + "+0.999" + text[place.end(1) :], encoding="utf-8")
    status, _, complaints = run(wrong)
    assert status == 1
    assert re.search(told, complaints)[1] == place[1]


def test_the_landing_page_says_what_the_raw_records_say(tmp_path, run, run_page):
    page = tmp_path / "intro.html"
    page.write_text(
        "".join(str(part) for part in run_page("intro") if isinstance(part, str)), encoding="utf-8"
    )
    status, _, complaints = run(ROOT / "README.md", page)
    assert status == 0, complaints
    text = page.read_text(encoding="utf-8")
    start = text.index("STPM<br><small>pixel AUROC")
    status, score = (re.search(what, text[start:])[1] for what in (r'status-\w+">([^<]+)<', r"(\d\.\d{3})"))
    (said,) = re.findall(r"pixel AP (.0\.\d+) \(printed", text)
    wrong = text[:start] + other(text[start:])
    page.write_text(wrong.replace(f"{said} (printed", "+0.999 (printed"), encoding="utf-8")
    *_, told = run(ROOT / "README.md", page)
    assert f"landing page, STPM, pixel AUROC: the records give ['{status}', '{score}'" in told
    assert f"pixel AP {said} (printed" in told
    for claim, wrong in (
        ("ET-STPM over STPM", " to +0.0"),
        ("its own table", "higher in "),
        ("DeSTSeg's paper", "higher in "),
    ):
        start = text.index(claim)
        place = text.index(wrong, start) + len(wrong)
        page.write_text(f"{text[:place]}9{text[place + 1 :]}", encoding="utf-8")
        assert claim in run(ROOT / "README.md", page)[-1]


def test_it_shares_no_code():
    nodes = [n for f in (SCRIPT, SCRIPT.with_name("recount.py")) for n in ast.walk(ast.parse(f.read_bytes()))]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert "recount" in modules
    assert not any(name.startswith(("stlib", "study")) for name in modules)


def test_an_image_auroc_that_the_scores_do_not_give_is_refused():
    record = second_opinion.read_runs()[0]
    second_opinion.check_image_auroc(record)
    wrong = record | {
        "metrics": record["metrics"] | {"image_auroc": record["metrics"]["image_auroc"] - 0.001}
    }
    with pytest.raises(ValueError, match="image AUROC 0"):
        second_opinion.check_image_auroc(wrong)

import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from stlib.records.store import read_record, write_record
from study.regression import CHAOTIC_DRIFT, DRIFT, IMAGE_DRIFT, regression

DEMO = {"category": "brick", "profile": "demo", "dataset": "demo", "teacher": "demo"}


def test_regression_accepts_what_rounding_does(make_record, tmp_path):
    write_record(make_record(**DEMO, value=0.8), tmp_path)
    assert "CHANGED" not in regression(make_record(**DEMO, value=0.8 + 0.9 * DRIFT), tmp_path)


def test_a_segmentation_net_may_drift_farther_but_not_any_way(make_record, tmp_path):
    demo = DEMO | {"method": "pfadseg"}
    write_record(make_record(**demo, value=0.8), tmp_path)
    assert "CHANGED" not in regression(make_record(**demo, value=0.8 - 0.9 * IMAGE_DRIFT), tmp_path)
    far = {"pixel_ap": 0.8 - 1.1 * CHAOTIC_DRIFT}
    assert "pixel AP</th><td>CHANGED" in regression(make_record(**demo, value=0.8, metrics=far), tmp_path)


@pytest.mark.parametrize(
    ("change", "row"),
    [
        ({"metrics": {"iap": 0.8 + 1.1 * DRIFT}}, "IAP"),
        ({"metrics": {"image_ap": 0.8 + 1.1 * IMAGE_DRIFT}}, "image AP"),
        ({"metrics": {"aupro": 0.8 - 1.1 * DRIFT}}, "AUPRO@0.3"),
        ({"undefined": {"aupro": "no defect"}}, "AUPRO@0.3"),
        ({"config": {"epochs": 99}}, "recipe"),
        ({"teacher": "random"}, "teacher"),
    ],
)
def test_regression_names_what_changed(make_record, tmp_path, change, row):
    write_record(make_record(**DEMO, value=0.8), tmp_path)
    text = regression(make_record(**DEMO | {"value": 0.8} | change), tmp_path)
    assert f'<th scope="row">{row}</th><td>CHANGED</td>' in text


def test_regression_needs_a_committed_record(make_record, tmp_path):
    text = regression(make_record(**DEMO), tmp_path)
    assert "no committed demo record" in text


def test_nbval_fails_when_a_metric_changes(make_record, tmp_path):
    """The mechanism as a whole: a cell's committed output, nbval, and one changed metric."""
    now = write_record(make_record(**DEMO, value=0.8), tmp_path / "now")
    same, changed = tmp_path / "same", tmp_path / "changed"
    write_record(make_record(**DEMO, value=0.81), same)
    write_record(make_record(**DEMO, value=0.8, metrics={"pixel_ap": 0.6}), changed)
    text = regression(read_record(now), same)
    data = {"text/html": str(text), "text/plain": repr(text)}
    output = new_output("execute_result", data, execution_count=1)
    kept = {"execution_count": 1, "outputs": [output], "metadata": {"tags": ["nbval-check-output"]}}
    code = (
        "from pathlib import Path\nfrom stlib.records.store import read_record\n"
        "from study.regression import regression\n"
        f"regression(read_record(Path({str(now)!r})), Path('COMMITTED'))"
    )
    cells = [new_code_cell(code.replace("COMMITTED", str(place)), **kept) for place in (same, changed)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "check.ipynb")
    options = ["--nbval-lax", "-c", "/dev/null", "-rA", "-p", "no:cacheprovider", "check.ipynb"]
    command = [sys.executable, "-m", "pytest", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "PASSED check.ipynb::Cell 0" in done.stdout, done.stdout + done.stderr
    assert "FAILED check.ipynb::Cell 1" in done.stdout
    assert "CHANGED" in done.stdout

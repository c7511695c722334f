"""Where data and results are looked for: in the checkout, or where an installed package is used."""

import runpy
import shutil
from pathlib import Path

import pytest

from stlib import paths


def test_only_a_checkout_holds_data_and_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for variable in ("STLIB_DATA", "STLIB_RESULTS"):
        monkeypatch.delenv(variable, raising=False)
    installed, used = tmp_path / "site-packages" / "stlib" / "paths.py", tmp_path / "used"
    installed.parent.mkdir(parents=True)
    used.mkdir()
    shutil.copy(paths.__file__, installed)
    monkeypatch.chdir(used)
    assert runpy.run_path(str(installed))["RESULTS"] == used / "results"
    monkeypatch.setenv("STLIB_RESULTS", "")  # as if it were not set
    assert runpy.run_path(str(installed))["RESULTS"] == used / "results"
    (tmp_path / "site-packages" / "pyproject.toml").touch()
    assert runpy.run_path(str(installed))["RESULTS"] == tmp_path / "site-packages" / "results"

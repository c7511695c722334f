"""What `make` refuses, and which `make` it is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stlib.paths import ROOT


@pytest.mark.parametrize("venv", ["/home/me/My Study/.venv", ""])
def test_an_environment_that_make_would_take_for_two_folders_is_refused(venv: str):
    command = ["make", "--no-print-directory", "--dry-run", "env", f"VENV={venv}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"VENV='{venv}': name one folder without a space" in done.stderr
    assert not done.stdout


def test_the_makefile_has_no_word_that_the_make_of_macos_lacks():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")  # 3.81 takes `private` for a prerequisite
    newer = (
        r"^[^\t#\n]*(?:\bprivate\b|!=|::=|&:)|^(?:-?load|undefine)\b"
        r"|\.(?:ONESHELL|RECIPEPREFIX|EXTRA_PREREQS|SHELLSTATUS)\b|\$\((?:file|guile|let|intcmp) "
    )
    assert re.findall(newer, makefile, re.MULTILINE) == []


@pytest.mark.parametrize(
    ("version", "system", "machine", "told"),
    [
        ((3, 11, 3), "Linux", "x86_64", "Python 3.11.4 to 3.14 is needed"),
        ((3, 11, 4), "Linux", "x86_64", "-m venv' failed"),  # the next step, which the stand-in cannot do
        ((3, 14, 9), "Darwin", "arm64", "-m venv' failed"),
        ((3, 14, 9), "Darwin", "x86_64", "on a Mac one for Apple silicon"),
        ((3, 15, 0), "Linux", "x86_64", "Python 3.11.4 to 3.14 is needed"),
    ],
)
def test_a_python_that_the_lock_has_no_packages_for_is_refused_and_a_folder_that_was_there_is_kept(
    version: tuple[int, ...], system: str, machine: str, told: str, tmp_path: Path
):
    stand_in = tmp_path / "python"
    here = f"sys.version_info, os.uname = {version}, lambda: ('{system}', '', '', '', '{machine}')"
    stand_in.write_text(f"#!{sys.executable}\nimport os, sys\n{here}\nexec(sys.argv[2])\n")
    stand_in.chmod(0o755)
    kept = tmp_path / "venv" / "bin" / "mine"
    kept.parent.mkdir(parents=True)
    kept.touch()
    command = ["make", "env", f"PYTHON={stand_in}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert told in done.stderr.partition("make: ")[0]
    assert kept.exists()

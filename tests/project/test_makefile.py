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


def test_the_book_follows_files_that_go_and_does_not_stumble_over_a_space(tmp_path: Path):
    for name in ("book/intro.md", "book/study/page.py", "results/records/a.json", "results/QUEUE copy.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    command = [
        "make",
        "--no-print-directory",
        "--file",
        ROOT / "Makefile",
        "--eval",
        "show: ; @echo $(PAGES)",
        "show",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    pages = {str(Path(name)) for name in done.stdout.split()}
    assert pages == {
        "_config.yml",
        "book",
        "book/intro.md",
        "results",
        "results/records",
        "results/records/a.json",
    }


@pytest.mark.parametrize(
    ("there", "told"),
    [(False, "-m venv' failed"), (True, "is of another Python than 3.11.4 to 3.14: delete it")],
)
def test_an_environment_whose_python_is_gone_is_made_again_and_one_of_another_python_is_refused(
    there: bool, told: str, tmp_path: Path
):
    old, new = tmp_path / "old", tmp_path / "new"
    for path, version in ((old, (3, 15, 0)), (new, (3, 11, 4))):
        path.write_text(f"#!{sys.executable}\nimport sys\nsys.version_info = {version}\nexec(sys.argv[2])\n")
        path.chmod(0o755)
    home = tmp_path / "venv" / "bin"
    home.mkdir(parents=True)
    (home / "python").symlink_to(old)
    if not there:  # an upgrade of the system took it away
        old.unlink()
        (tmp_path / "venv" / ".stlib-installed").touch()
    command = ["make", "env", f"PYTHON={new}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert told in done.stderr

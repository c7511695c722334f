"""The runtime block of a record."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stlib.methods.checkpoint import Checkpoint
from stlib.paths import PACKAGE
from stlib.run import provenance
from stlib.run.provenance import Clock


def test_a_clock_set_back_by_days_changes_no_duration_and_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    days = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr("time.time", lambda: float(next(days)))
    checkpoint = Checkpoint(tmp_path / "a.ckpt", "one", seconds=0)
    clock = Clock(torch.device("cpu"), checkpoint)
    checkpoint.offer(lambda: {"epoch": 1})
    clock.trained()
    runtime = clock.runtime()
    assert checkpoint.path.is_file()
    assert 0 <= runtime.train_seconds < 10**5
    assert 0 <= runtime.evaluate_seconds < 10**5


@pytest.mark.parametrize("part", ["data", "methods", "nn"])
def test_the_hash_of_code_knows_every_source_file_of_what_trains_and_nothing_else(part: str, tmp_path: Path):
    package = tmp_path / "stlib"  # no checkout: an installed package is such a folder
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    for other in ("records/store.py", "data/check.py", "data/download.py"):
        (package / other).write_text("other = 1")
    (package / part / "notes.txt").touch()
    before = provenance.source_hash(package)
    assert before == provenance.TRAINING_CODE
    with (package / part / "__init__.py").open("a") as file:
        file.write("\n")
    changed = provenance.source_hash(package)
    (package / part / "__init__.py").rename(package / part / "other.py")
    assert len({before, changed, provenance.source_hash(package)}) == 3


def test_the_commit_is_the_one_that_the_run_began_with(monkeypatch: pytest.MonkeyPatch):
    states = iter([("a" * 40, False), ("b" * 40, True)])
    monkeypatch.setattr(provenance, "checkout", lambda: next(states))
    clock = Clock(torch.device("cpu"))
    assert (clock.runtime().commit, clock.runtime().dirty) == ("a" * 40, False)


@pytest.mark.parametrize(("variable", "dirty"), [("0", False), ("1", True), ("", None)])
def test_a_copy_without_git_names_its_commit_even_inside_another_repository(
    variable: str, dirty: bool | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STLIB_COMMIT", "c" * 40)
    monkeypatch.setenv("STLIB_DIRTY", variable)
    assert provenance.checkout() == ("c" * 40, dirty)
    monkeypatch.setenv("STLIB_DIRTY", "true")
    with pytest.raises(ValueError, match=r"STLIB_DIRTY=true: give 0 .* or 1 "):
        provenance.checkout()


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`git` in a new repository, whose committed package stands for this one."""

    def call(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    for name in ("STLIB_COMMIT", "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    package = tmp_path / "stlib"
    package.mkdir()
    monkeypatch.setattr(provenance, "PACKAGE", package)
    call("init", "--quiet")
    (package / "__init__.py").write_text("a = 1")
    call("add", ".")
    call("commit", "--quiet", "--message", "first")
    return call


def test_git_names_the_commit_and_whether_the_package_was_changed(git: Callable[..., str], tmp_path: Path):
    (tmp_path / "notes.txt").write_text("beside the package")
    assert provenance.checkout() == (git("rev-parse", "HEAD"), False)
    git("config", "status.showUntrackedFiles", "no")  # a new file is a change even so
    (tmp_path / "stlib" / "new.py").touch()
    assert provenance.checkout() == (git("rev-parse", "HEAD"), True)
    (tmp_path / "stlib" / "new.py").unlink()
    (tmp_path / "stlib" / "__init__.py").write_text("a = 2")
    assert provenance.checkout() == (git("rev-parse", "HEAD"), True)


def test_a_repository_that_only_surrounds_a_copy_names_no_commit(
    git: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    copy = shutil.copytree(tmp_path / "stlib", tmp_path / "copies" / "stlib")
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    (tmp_path / ".gitignore").write_text("copies")
    assert provenance.checkout() == (None, None)
    assert not caplog.messages


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"])
def test_the_variables_that_git_gives_to_a_hook_lead_to_no_other_repository(
    name: str, git: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = (git("rev-parse", "HEAD"), False)
    monkeypatch.setenv(name, str(tmp_path / "other"))
    assert provenance.checkout() == expected


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1", "dubious ownership"), ("PATH", "", "'git'")],
)
def test_a_checkout_without_its_commit_says_what_git_said_and_the_remedy(
    variable: str, value: str, words: str, git: Callable[..., str], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):  # fmt: skip
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)  # it may trust every folder
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv(variable, value)
    assert provenance.checkout() == (None, None)
    (told,) = caplog.messages
    assert words in told
    assert "STLIB_COMMIT, or let git read (safe.directory)" in told

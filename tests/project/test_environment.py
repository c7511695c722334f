"""environment.yml, requirements.lock and pyproject.toml go together."""

import re
import tomllib
from functools import cache

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from stlib import __version__
from stlib.paths import ROOT


@cache
def lock_lines() -> list[str]:
    return (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()


@cache
def locked() -> dict[str, list[Requirement]]:
    """All entries of the lock by name; a package may have one version per Python version."""
    entries: dict[str, list[Requirement]] = {}
    for line in lock_lines():
        if line and not line.lstrip().startswith(("#", "--hash")):
            requirement = Requirement(line.removesuffix(" \\"))
            entries.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return entries


@cache
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@cache
def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_bytes())


def pip_section() -> list[str]:
    return next(entry["pip"] for entry in conda()["dependencies"] if isinstance(entry, dict))


def pinned(requirement: Requirement) -> str:
    specifiers = list(requirement.specifier)
    assert [s.operator for s in specifiers] == ["=="], f"{requirement} is not one exact version"
    return specifiers[0].version


def test_lock_pins_every_package_exactly():
    assert len(locked()) > 100
    for entries in locked().values():
        for requirement in entries:
            assert "*" not in pinned(requirement)


def test_every_entry_of_the_lock_has_hashes_and_every_installation_asks_for_them():
    entries = re.split(r"\n(?=\S)", "\n".join(line for line in lock_lines() if "# " not in line))
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}$", entry) for entry in entries)
    installs = re.findall(
        r"pip install .*requirements\.lock", (ROOT / "Makefile").read_text(encoding="utf-8")
    )
    assert len(installs) == 3
    assert all("--require-hashes" in line for line in installs)
    assert "--require-hashes" in pip_section()


def test_lock_names_no_host():
    for line in (line for line in lock_lines() if "--hash" not in line):
        assert not re.search(r"://|^\s*-|@ |[\w-]+\.(com|org|io|net)\b", line), line


def declared() -> list[Requirement]:
    extras = project()["optional-dependencies"].values()
    return [
        Requirement(text) for text in [*project()["dependencies"], *(t for extra in extras for t in extra)]
    ]


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_lock_satisfies_pyproject(requirement: Requirement):
    entries = locked().get(canonicalize_name(requirement.name))
    assert entries, f"{requirement.name} is not in requirements.lock: run make lock"
    assert all(requirement.specifier.contains(pinned(entry)) for entry in entries)


def test_every_python_version_finds_one_version():
    platform = {"sys_platform": "linux", "platform_machine": "x86_64", "os_name": "posix"}
    for minor in range(11, 15):
        version = {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.9"}
        for name, entries in locked().items():
            fitting = [e for e in entries if e.marker is None or e.marker.evaluate(platform | version)]
            assert len(fitting) <= 1, f"{name} on Python 3.{minor}"


def test_conda_installs_the_lock():
    assert "-r requirements.lock" in pip_section()


def test_conda_pins_a_supported_python():
    (python,) = (d for d in conda()["dependencies"] if isinstance(d, str) and d.startswith("python="))
    assert SpecifierSet(project()["requires-python"]).contains(python.removeprefix("python="))


@pytest.mark.parametrize("file", ["README.md", "book/reproduce.md", "Makefile", ".ci/run"])
def test_the_least_python_is_told_alike_everywhere(file: str):
    told = re.findall(r"Python (?:[≥>=]+ )?(3\.\d+(?:\.\d+)?)", (ROOT / file).read_text(encoding="utf-8"))
    assert {f">={version}" for version in told} == {project()["requires-python"]}


def test_one_version_of_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_bytes())
    assert project()["version"] == __version__ == citation["version"]

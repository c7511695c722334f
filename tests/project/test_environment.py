"""environment.yml, requirements.lock and pyproject.toml go together."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from stlib import __version__
from stlib.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = [
    line.removesuffix(" \\")
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if "--hash" not in line
]
"""What `make lock` wrote, without the hashes."""


def test_the_lock_satisfies_pyproject():
    locked: dict[str, list[Requirement]] = {}  # a package may have one version per Python version
    for line in LOCK:
        if line and not line.lstrip().startswith("#"):
            requirement = Requirement(line)
            locked.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    extras = PROJECT["optional-dependencies"].values()
    declared = [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]
    for requirement in map(Requirement, declared):
        entries = locked.get(canonicalize_name(requirement.name))
        assert entries, f"{requirement.name} is not in requirements.lock: run make lock"
        for entry in entries:
            assert requirement.specifier.contains(str(entry.specifier).removeprefix("==")), requirement


def test_the_lock_names_no_host():
    named = [line for line in LOCK if re.search(r"://|^\s*-|@ |[\w-]+\.(com|org|io|net)\b", line)]
    assert named == []


def test_every_installation_of_the_lock_asks_for_its_hashes():
    installs = re.findall(
        r"pip install .*requirements\.lock", (ROOT / "Makefile").read_text(encoding="utf-8")
    )
    assert len(installs) == 3
    assert all("--require-hashes" in line for line in installs)


def test_conda_installs_the_lock_beside_a_supported_python():
    *packages, pip = yaml.safe_load((ROOT / "environment.yml").read_bytes())["dependencies"]
    assert pip == {"pip": ["--require-hashes", "-r requirements.lock"]}
    (python,) = (name for name in packages if name.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))


@pytest.mark.parametrize("file", ["README.md", "book/reproduce.md", "Makefile", ".ci/run"])
def test_the_least_python_is_told_alike_everywhere(file: str):
    told = re.findall(r"Python (?:[≥>=]+ )?(3\.\d+(?:\.\d+)?)", (ROOT / file).read_text(encoding="utf-8"))
    assert {f">={version}" for version in told} == {PROJECT["requires-python"]}


def test_the_newest_python_that_is_promised_is_the_newest_that_is_tested():
    files = ("README.md", "book/reproduce.md")  # `make` lets 3.14 try: one package is compiled there
    texts = [(ROOT / file).read_text(encoding="utf-8") for file in files]
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_bytes())["jobs"].values()
    newest = next(job["strategy"]["matrix"]["python"][-1] for job in jobs if "strategy" in job)
    assert [re.findall(r"Python 3\.11\.4 to (3\.\d+)", text) for text in texts] == [[newest]] * 2


def test_one_version_of_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_bytes())
    assert PROJECT["version"] == __version__ == citation["version"]

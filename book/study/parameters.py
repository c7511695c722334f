"""The parameters of the notebooks: everything that can be wrong with them is found before any work.

papermill accepts any name: a misspelt parameter would silently leave the default in force.
"""

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from tqdm import TqdmWarning

from stlib.data.layout import scan
from stlib.demo.dataset import DEMO_CATEGORIES, make_demo
from stlib.methods import METHODS
from stlib.paths import RECORDS, ROOT, named_teacher, places
from stlib.protocol import ABLATION_ROWS, TUNING_EPOCHS, Metric, Precision, Profile
from stlib.run.spec import RunSpec
from study.plan.grid import tuned_variant
from study.planned import Plan

P = TypeVar("P", bound="_Common")


class ParameterError(ValueError):
    """A parameter of the notebook that cannot be used; the message names it, its value and the remedy."""


class _Common(BaseModel, frozen=True, extra="forbid", strict=True):
    """The names that every notebook's `parameters` cell has; their meaning stands there."""

    category: str
    seed: int
    profile: Profile
    data: str
    teacher: str
    device: str
    precision: Precision
    records: str
    runs: str


class Parameters(_Common):
    """Of notebooks/run.ipynb: one run."""

    method: str
    variant: str
    textures: str


class AblationParameters(_Common):
    """Of notebooks/ablation.ipynb: one row of PFADSeg's ablation, or all."""

    row: str
    textures: str


class EpochParameters(_Common):
    """Of notebooks/teacher_epochs.ipynb: ET-STPM at some numbers of fine-tuning epochs."""

    epochs: int | list[int]
    variant: str


class CompareParameters(_Common):
    """Of notebooks/compare.ipynb: several methods on one category."""

    methods: list[str]
    metric: Metric
    textures: str
    run_missing: bool


def check(namespace: Mapping[str, object]) -> Plan:
    """The run that the plain values in a notebook's `globals()` describe.

    Raises ParameterError (or another ValueError) for a name that is no parameter, a value that cannot work,
    a folder that cannot be written and a dataset that is not there; nothing has been computed by then. From a
    run of the demo on PyTorch computes with one thread.
    """
    values = _parameters(namespace, Parameters)
    return _plan(values, values.method, values.variant, values.textures)


def check_ablation(namespace: Mapping[str, object]) -> tuple[Plan, ...]:
    """The runs of notebooks/ablation.ipynb: the row asked for, or every row. Raises as `check` does."""
    values = _parameters(namespace, AblationParameters)
    known = ", ".join(ABLATION_ROWS)
    if values.row not in (*ABLATION_ROWS, "all"):
        raise ParameterError(f"row = '{values.row}': choose one of {known}, or all")
    rows = ABLATION_ROWS if values.row == "all" else {values.row: ABLATION_ROWS[values.row]}
    return tuple(_plan(values, "pfadseg", variant, values.textures) for variant in rows.values())


def check_epochs(namespace: Mapping[str, object]) -> tuple[Plan, ...]:
    """The runs of notebooks/teacher_epochs.ipynb, fewest epochs first. Raises as `check` does."""
    values = _parameters(namespace, EpochParameters)
    asked = [values.epochs] if isinstance(values.epochs, int) else sorted(set(values.epochs))
    unknown = [e for e in asked if e not in TUNING_EPOCHS]
    if unknown or not asked:
        told, known = unknown[0] if unknown else "[]", ", ".join(map(str, TUNING_EPOCHS))
        raise ParameterError(f"epochs = {told}: choose among {known}")
    if "e=" in values.variant:
        raise ParameterError(f"variant = '{values.variant}': say it by epochs, and leave e= out of variant")
    return tuple(_plan(values, "et_stpm", tuned_variant(e, values.variant), "") for e in asked)


def check_compare(namespace: Mapping[str, object]) -> tuple[Plan, ...]:
    """The runs of notebooks/compare.ipynb, a method each. Raises as `check` does."""
    values = _parameters(namespace, CompareParameters)
    if not values.methods:
        raise ParameterError(f"methods = []: choose among {', '.join(METHODS)}")
    plans = tuple(
        _plan(values, method, "", values.textures, runs_now=values.run_missing)
        for method in dict.fromkeys(values.methods)
    )
    if values.run_missing and values.profile == "demo" and plans[0].records == RECORDS:
        raise ParameterError(
            f"records = '{values.records}' holds the runs of the demo that tests compare with: "
            "with run_missing = True name another folder, such as 'build/records'"
        )
    if plans[0].own and plans[0].records == RECORDS:
        raise ParameterError(
            f"records = '{values.records}' holds the runs of the study and the demo, and {values.category} "
            "is of neither: name the folder of own runs, results/own/records"
        )
    return plans


def _plan(values: _Common, method: str, variant: str, textures: str, *, runs_now: bool = True) -> Plan:
    here = places(values.profile)
    made = values.profile == "demo" and not values.data
    root = ROOT / values.data if values.data else here.data
    common = values.model_dump(include={"category", "seed", "profile", "device", "precision"})
    spec = RunSpec(
        **common,
        method=method,
        variant=variant,
        data=root,
        teacher=_teacher(values.teacher or here.teacher),
        textures=ROOT / textures if textures else here.textures,
    )
    spec.check()
    if made and values.category not in DEMO_CATEGORIES:
        known = ", ".join(DEMO_CATEGORIES)
        raise ParameterError(f"category = '{values.category}': the demo dataset has {known}")
    layout = scan(_demo(root) if made else root, values.category)
    here = places(values.profile, own=layout.dataset == "other")
    records = _folder("records", values.records, here.records)
    runs = _folder("runs", values.runs, here.runs)
    if values.profile == "demo":  # for the whole kernel: more threads add in another order, and tests compare
        torch.set_num_threads(1)
    plan = Plan(spec, records, runs)
    if runs_now and layout.dataset != "demo":  # which is made again at will
        plan.require_free()
    return plan


def _parameters(namespace: Mapping[str, object], model: type[P]) -> P:
    # All that a parameter of papermill can be. What the cells below make is none of it: where they would make
    # a list it is a tuple, so that Run All can come a second time.
    plain = (str, int, float, list, dict, type(None))
    given = {
        name: value
        for name, value in namespace.items()
        if isinstance(value, plain) and not name.startswith("_") and name not in ("In", "Out")
    }
    try:
        return model.model_validate(given)
    except ValidationError as error:
        # a value of the wrong type is reported once per type that would do, a list last
        found = {str(item["loc"][0]): item for item in error.errors()}
        known = list(model.model_fields)
        problems = [_problem(name, i["type"], i["msg"], given, known) for name, i in found.items()]
        raise ParameterError("\n".join(["this run cannot start:", *problems])) from None


def _problem(name: str, kind: str, message: str, given: Mapping[str, object], fields: Sequence[str]) -> str:
    if kind == "missing":
        return f"  {name} is not set: restore the cell tagged 'parameters'"
    if kind == "extra_forbidden":
        near = get_close_matches(name, fields, 1)
        known = f"did you mean {near[0]}?" if near else f"there are {', '.join(fields)}"
        return f"  {name} = {given[name]!r}: no such parameter, {known}"
    remedies = {
        "string_type": f" (papermill keeps text as text with -r {name} ...)",
        "list_type": f" (papermill passes a list with -y '{name}: [{given[name]}, ...]')",
    }
    remedy = remedies.get(kind, "")
    return f"  {name} = {given[name]!r}: {message[0].lower()}{message[1:]}{remedy}"


def _folder(name: str, given: str, default: Path) -> Path:
    """The folder to write into, made and tried; relative ones start at the repository root."""
    folder = ROOT / given if given else default
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ParameterError(
            f"{name} = '{given}': cannot write to {folder} ({error.strerror}); name another folder"
        ) from error
    return folder


def _demo(root: Path) -> Path:
    with warnings.catch_warnings():
        # scikit-image loads pooch, and its tqdm asks for widgets although nothing is downloaded
        warnings.simplefilter("ignore", TqdmWarning)
        return make_demo(root)


def _teacher(given: str) -> str:
    try:
        return named_teacher(given)
    except ValueError as error:
        raise ParameterError(f"teacher = {error}") from error

"""The papers' printed numbers: `results/reported/<paper>.csv`, one value per row, kept as printed.

Columns and provenance are in results/reported/README.md. The same score may be printed in several works;
every answer carries its `paper` and `source`: show them beside the number.
"""

import csv
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError, ValidationInfo, model_validator

from stlib.paths import REPORTED
from stlib.protocol import CATEGORIES, METRICS, TEXTURES

M = TypeVar("M", bound=BaseModel)

PAPERS = ("stpm", "et_stpm", "destseg", "pfadseg")
"""Where values are printed: one CSV file each, in the order in which they are asked."""

METHOD_NAMES = {
    "stpm": "STPM", "et_stpm": "ET-STPM", "destseg": "DeSTSeg", "pfadseg": "PFADSeg",
    "anogan": "AnoGAN", "cnn_dict": "CNN-Dict", "spade": "SPADE", "ganomaly": "GANomaly", "l2_ae": "l2-AE",
    "itae": "ITAE", "cutpaste": "CutPaste", "draem": "DRAEM", "dsr": "DSR", "patchcore": "PatchCore",
    "padim": "PaDiM", "rd4ad": "RD4AD", "aand": "AAND", "us": "Uninformed Students",
}  # fmt: skip
"""Every method that is printed in a paper or run here, with the name shown to readers."""

REPORTED_METRICS = METRICS | {"pro": "PRO (official STPM code)"}
"""`protocol.METRICS` and the official STPM code's PRO; its y axis is rescaled, so it is not AUPRO."""

AVERAGES = {
    "mean": tuple(CATEGORIES),
    "mean_texture": TEXTURES,
    "mean_object": tuple(c for c in CATEGORIES if c not in TEXTURES),
}
"""Printed average -> the categories it covers; the value need not equal the mean of the printed rows."""

_KNOWN = {
    "paper": PAPERS,
    "method": METHOD_NAMES,
    "metric": REPORTED_METRICS,
    "category": (*CATEGORIES, *AVERAGES),
}


def _check(name: str, field: str | None) -> str:
    if name not in _KNOWN[str(field)]:
        place = "; a new one is added to METHOD_NAMES in reported.py" if field == "method" else ""
        raise ValueError(f"unknown {field} {name!r}; known: {', '.join(_KNOWN[str(field)])}{place}")
    return name


def _check_cell(name: str, info: ValidationInfo) -> str:
    return _check(name, info.field_name)


Known = Annotated[str, AfterValidator(_check_cell)]
"""The type of a field called `paper`, `method`, `metric` or `category`: one that this study knows."""


class Reported(BaseModel, frozen=True, extra="forbid"):
    """One printed value and where it stands; the fields are the columns of the CSV files."""

    paper: Known
    source: str = Field(min_length=1)
    table: str = Field(min_length=1)
    method: Known
    variant: str
    category: Known
    metric: Known
    value: str = Field(pattern=r"^\d*\.?\d+$")
    sd: str = Field(pattern=r"^(\d*\.?\d+)?$")
    """Standard deviation over the paper's own seeds; empty where none is printed."""
    unit: Literal["fraction", "percent"]
    note: str

    @property
    def exact(self) -> Decimal:
        """The value as a fraction with the printed precision: '98.8' percent is Decimal('0.988')."""
        return Decimal(self.value).scaleb(-2 if self.unit == "percent" else 0)

    @property
    def shown(self) -> str:
        """As printed, as a fraction: '0.988' for 98.8 percent."""
        return f"{self.exact:f}"

    @property
    def number(self) -> float:
        """The value as a fraction, 0..1."""
        return float(self.exact)

    @property
    def spread(self) -> float | None:
        """The standard deviation as a fraction; None where none is printed."""
        return float(Decimal(self.sd).scaleb(-2 if self.unit == "percent" else 0)) if self.sd else None

    @property
    def decimals(self) -> int:
        """Printed decimals of the fraction: 3 for '0.988', '.988' and '98.8' percent."""
        return -int(self.exact.as_tuple().exponent)

    @model_validator(mode="after")
    def _is_fraction(self) -> Self:
        if self.exact > 1:
            raise ValueError(f"{self.value} {self.unit} is more than 1; correct the value or the unit")
        return self


def read_rows(path: Path, model: type[M]) -> Iterator[tuple[str, M]]:
    """Every row of a CSV file as a `model`, whose fields are the columns, with its place for messages.

    Raises ValueError, naming file and line, for other columns and for a row that breaks a rule.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restkey="too many cells")
        if tuple(reader.fieldnames or ()) != tuple(model.model_fields):
            raise ValueError(f"{path}, line 1: the columns must be {', '.join(model.model_fields)}")
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            try:
                yield where, model.model_validate(cells)
            except ValidationError as error:
                problems = [
                    f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors()
                ]
                raise ValueError(f"{where}: {'; '.join(problems)}") from error


def _read(path: Path) -> list[Reported]:
    rows: dict[tuple[str, ...], Reported] = {}
    for where, row in read_rows(path, Reported):
        if row.paper != path.stem:
            raise ValueError(f"{where}: a row of paper {row.paper!r} belongs in {row.paper}.csv")
        key = (row.source, row.table, row.method, row.variant, row.category, row.metric)
        if key in rows:
            raise ValueError(
                f"{where}: duplicate row; remove one of the two for {', '.join(filter(None, key))}"
            )
        rows[key] = row
    return list(rows.values())


@cache
def load_reported(folder: Path = REPORTED) -> tuple[Reported, ...]:
    """All reported values, as printed.

    Raises FileNotFoundError for a folder without CSV files and ValueError, naming file and line, for an
    unknown paper, method, metric, category or unit, a value that is not a number, and a duplicate row.
    """
    paths = sorted(folder.glob("*.csv"))
    if not paths:
        raise FileNotFoundError(
            f"no reported numbers in {folder}; restore results/reported from the repository"
        )
    return tuple(row for path in paths for row in _read(path))


def reported(
    method: str, metric: str, category: str = "mean", *, paper: str | None = None, variant: str = ""
) -> Reported | None:
    """The reported value of a method, or None where none is printed.

    Without `paper`, the method's own is asked, then PAPERS in their order: STPM's AUROC come from its
    authors' README, its AP and IAP from DeSTSeg's evaluation of their checkpoint. `variant` is a row label of
    an ablation table, such as "RCM+PCAR".
    Raises ValueError for an unknown method, metric, category or paper.

    >>> [reported("stpm", "pixel_auroc", "carpet", paper=paper).value for paper in (None, "et_stpm")]
    ['0.990292', '0.988']
    """
    for field, name in (("method", method), ("metric", metric), ("category", category), ("paper", paper)):
        if name is not None:
            _check(name, field)
    order = (paper,) if paper else (method, *PAPERS)
    asked = (method, metric, category, variant)
    rows = [r for r in load_reported() if (r.method, r.metric, r.category, r.variant) == asked]
    return min((r for r in rows if r.paper in order), key=lambda r: order.index(r.paper), default=None)

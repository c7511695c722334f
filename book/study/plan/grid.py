"""The runs that the study consists of, from `workflow/grid.toml`, and which are done."""

import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from stlib.paths import RECORDS, ROOT
from stlib.protocol import PRECISIONS, Profile
from stlib.records.schema import record_path
from stlib.records.store import RecordError, read_record

GRIDS = ROOT / "workflow" / "grid.toml"
"""The grids by name: 'paper' is the study, 'demo' shows that the workflow works."""

State = Literal["finished", "failed", "damaged", "missing"]
"""What stands in a cell's place. Only 'finished' is done."""


@dataclass(frozen=True)
class Cell:
    """One wanted run."""

    method: str
    category: str
    seed: int
    variant: str = ""
    tier: int = 1
    """What is worth more has a smaller one."""
    profile: Profile = "paper"
    needs: str = ""
    """The arithmetic without which the method cannot run; '' where any will do."""

    @property
    def path(self) -> Path:
        """Where its record belongs, relative to the folder of records."""
        return record_path(self.method, self.category, self.seed, self.profile, self.variant)

    @property
    def precision(self) -> str:
        """The arithmetic that the variant or the method needs; '' where any will do."""
        return PRECISIONS.get(self.variant, self.needs)

    def command(self) -> str:
        """What to type."""
        variant = f" --variant {self.variant}" if self.variant else ""
        variant += f" --precision {self.precision}" if self.precision else ""
        return f"stlib run {self.method} {self.category} --seed {self.seed} --profile {self.profile}{variant}"


class _Table(BaseModel, frozen=True, extra="forbid"):
    """A table of a grid's file: a misspelt field is an error."""


class Block(_Table):
    """The product of some rows and some categories."""

    words: str
    order: tuple[int, int]
    """Tier of the first seed and of the other seeds."""
    categories: str
    """A name in the grid's `categories`."""
    rows: dict[str, list[str]]
    """Variants by method."""
    seeds: list[int] | None = None
    """In place of the grid's, for methods that draw nothing at random."""
    precision: str = ""
    """For methods that can run in one arithmetic only."""


class Grid(_Table):
    """Everything that is to be run under one profile."""

    profile: Profile
    seeds: Annotated[list[int], Field(min_length=1)]
    categories: dict[str, list[str]]
    block: list[Block]

    @model_validator(mode="after")
    def _headed_once(self) -> "Grid":
        """Raise ValueError for a tier with two headings: readers would find runs under the wrong one."""
        headings: dict[int, tuple[str, bool]] = {}
        for block in self.block:
            for tier, later in zip(block.order, (False, len(set(block.order)) > 1), strict=True):
                if headings.setdefault(tier, (block.words, later)) != (block.words, later):
                    raise ValueError(
                        f"order {tier} is that of two blocks, '{block.words}' and another: change one"
                    )
        return self

    def cells(self) -> list[Cell]:
        """The whole grid, best first."""
        cells = [
            Cell(
                method,
                category,
                seed,
                variant,
                block.order[seed != self.seeds[0]],
                self.profile,
                block.precision,
            )
            for seed in self.seeds
            for block in self.block
            if seed in (block.seeds or self.seeds)
            for method, variants in block.rows.items()
            for variant in variants
            for category in self.categories[block.categories]
        ]
        # stable: seeds, rows and categories keep their order
        return sorted(cells, key=lambda cell: cell.tier)

    def headings(self) -> dict[int, str]:
        """What each tier holds, in words, best first."""
        first = {block.order[0]: f"{block.words}, first seed" for block in self.block}
        later = {block.order[1]: f"{block.words}, other seeds" for block in self.block if len(self.seeds) > 1}
        return dict(sorted((later | first).items()))


def read_grid(name: str = "paper", file: Path = GRIDS) -> Grid:
    """The grid called `name`. Raises ValueError for one that is not there or not well-formed, and OSError."""
    with file.open("rb") as content:
        grids = tomllib.load(content)
    if name not in grids:
        raise ValueError(f"no grid '{name}' in {file}: there are {', '.join(grids)}")
    try:
        return Grid.model_validate(grids[name])
    except ValidationError as error:
        raise ValueError(f"grid '{name}' in {file}: {error}") from error


def select_cells(
    cells: Iterable[Cell],
    methods: Collection[str] = (),
    categories: Collection[str] = (),
    seeds: Collection[int | str] = (),
) -> list[Cell]:
    """The cells of these methods, categories and seeds; an empty collection stands for all.

    Raises ValueError for one that no cell has: a slip of the pen would be an empty plan.
    """
    everything = list(cells)
    asked = {"method": methods, "category": categories, "seed": seeds}
    for name, values in asked.items():
        known = dict.fromkeys(getattr(cell, name) for cell in everything)
        if unknown := [value for value in values if value not in known]:
            there = ", ".join(map(str, known))
            raise ValueError(f"the grid has no {name} '{unknown[0]}': choose among {there}")
    return [
        cell
        for cell in everything
        if all(not values or getattr(cell, name) in values for name, values in asked.items())
    ]


def state(cell: Cell, records: Path = RECORDS) -> State:
    """What the file in the cell's place is: a whole record of this very run, or something less."""
    try:
        record = read_record(records / cell.path)
    except FileNotFoundError:
        return "missing"
    except RecordError:
        return "damaged"
    return record.status if record.path == cell.path else "damaged"


def tuned_variant(epochs: int, rest: str = "") -> str:
    """The variant of ET-STPM with `epochs` full epochs of fine-tuning and another deviation.

    >>> [tuned_variant(*place) for place in ((2,), (5,), (2, "data=B"), (5, "data=B"))]
    ['', 'e=5', 'data=B', 'e=5,data=B']
    """
    return ",".join(part for part in (f"e={epochs}" if epochs != 2 else "", rest) if part)


def teacher_of(cell: Cell) -> str:
    """The fine-tuning that an ET-STPM cell needs, whatever the number of epochs: its deviation and its seed.

    >>> [teacher_of(Cell("et_stpm", "pill", 1, variant)) for variant in ("e=5,data=B", "e=5", "teacher=0")]
    ['data=B,s1', 's1', 's0']
    """
    parts = [part for part in cell.variant.split(",") if part]
    seed = 0 if "teacher=0" in parts else cell.seed
    kept = [part for part in parts if not part.startswith(("e=", "epochs=", "teacher="))]
    return ",".join([*kept, f"s{seed}"])


def teachers(cells: Iterable[Cell]) -> dict[str, Cell]:
    """For each fine-tuning among `cells` the cell with the most epochs: its pass makes all the others.

    >>> made = teachers([Cell("et_stpm", "pill", 1, variant) for variant in ("", "e=5", "e=10", "data=B")])
    >>> {name: cell.variant for name, cell in made.items()}
    {'s1': 'e=10', 'data=B,s1': 'data=B'}
    """
    most: dict[str, tuple[int, Cell]] = {}
    for cell in cells:
        if cell.method == "et_stpm":
            epochs = next((int(p[2:]) for p in cell.variant.split(",") if p.startswith("e=")), 2)
            name = teacher_of(cell)
            if name not in most or epochs > most[name][0]:
                most[name] = epochs, cell
    return {name: cell for name, (_, cell) in most.items()}

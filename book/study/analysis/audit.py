"""The papers' own arithmetic: printed averages recomputed, and one score printed in several works.

Sums are exact fractions, so a verdict never hangs on binary rounding. What the papers state about these
numbers in words is checked by `study.analysis.paper_statements`.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from itertools import combinations

import pandas as pd

from stlib.paths import REPORTED
from stlib.protocol import CATEGORIES, Metric
from study.analysis.inference import interval
from study.analysis.reported import AVERAGES, METHOD_NAMES, PAPERS, Reported, reported

PROSE = ("abstract", "text")
"""Values of `Reported.table` that are not a table of the paper."""

ABLATIONS = {("pfadseg", "none"): "destseg", ("pfadseg", "RCM+AFF+PCAR"): "pfadseg"}
"""First and last row of an ablation table -> the method with that architecture. Where Tables 2 and 3 of
PFADSeg print the same score, it is equal."""

REIMPLEMENTATIONS = REPORTED.parent / "reimplementations.csv"
"""What others printed who wrote a method of the papers again: one score per row, with its page."""

GAIN = "gain over STPM"
"""The `Reported.variant` that is a difference, not a score."""

Column = Mapping[str, Reported]
Columns = Mapping[tuple[str, str, str], Column]


def place(row: Reported) -> str:
    """Where a value is printed, in a reader's words: 'ET-STPM, Table III'."""
    return f"{METHOD_NAMES[row.paper]}, {row.table}"


def columns(rows: Iterable[Reported]) -> Columns:
    """(paper, method or row of an ablation, metric) -> category -> value.

    The first and last row of an ablation stand for their method where no other table prints it (`ABLATIONS`),
    and prose only where no table does.
    """
    found: dict[tuple[str, str, str], dict[str, Reported]] = {}
    for row in sorted(rows, key=lambda r: r.table in PROSE):
        for name in (row.variant or row.method, ABLATIONS.get((row.paper, row.variant))):
            if name and name != GAIN:
                found.setdefault((row.paper, name, row.metric), {}).setdefault(row.category, row)
    return found


def recomputed(column: Column, average: str = "mean") -> Fraction | None:
    """The average of the printed rows; None unless all of its categories are printed."""
    members = AVERAGES[average]
    if not set(members) <= set(column):
        return None
    return sum((Fraction(column[c].exact) for c in members), Fraction()) / len(members)


def means(rows: Iterable[Reported]) -> pd.DataFrame:
    """Every printed average that can be recomputed, beside the average of its rows.

    `error` is printed minus recomputed; `rounds` and `truncates` say which of the two would print this value
    (both may). A single truncated value can also come from rounding more precise rows: `conventions` counts.
    """
    found = []
    for (_, method, metric), column in columns(rows).items():
        for average in AVERAGES:
            exact = recomputed(column, average)
            if exact is None or average not in column:
                continue
            printed = column[average]
            step = Fraction(1, 10**printed.decimals)
            error = Fraction(printed.exact) - exact
            key = (place(printed), method, metric, average)
            values = (printed.shown, float(exact), float(error))
            fits = (abs(error) <= step / 2, -step < error <= 0)
            found.append((*key, *values, *fits, average_verdict(error, step, row_slack(column, average))))
    names = ["place", "method", "metric", "average", "printed", "recomputed", "error"]
    return pd.DataFrame(found, columns=[*names, "rounds", "truncates", "verdict"])


def row_slack(column: Column, average: str = "mean") -> Fraction:
    """How far rounding of the printed rows can have moved their average."""
    halves = [Fraction(1, 2 * 10 ** column[c].decimals) for c in AVERAGES[average]]
    return sum(halves, Fraction()) / len(halves)


def average_verdict(error: Fraction, step: Fraction, slack: Fraction) -> str:
    """`error`: printed minus exact; `step`: unit of the last printed place; `slack`: see `row_slack`.

    Half a step may go either way, so rounding half up and half to even are one.

    >>> [average_verdict(Fraction(e, 10), Fraction(1), Fraction(1, 2)) for e in (5, -9, 9, 19)]
    ['rounds to it', 'truncates to it', 'within the rounding of the rows', 'differs by +1.9000']
    """
    if abs(error) <= step / 2:
        return "rounds to it"
    if -step < error < 0:
        return "truncates to it"
    if abs(error) <= step / 2 + slack:
        return "within the rounding of the rows"
    return f"differs by {float(error):+.4f}"


def conventions(averages: pd.DataFrame) -> pd.DataFrame:
    """Per table of `means`: how many averages fit rounding, truncation, only rounded rows, or nothing."""
    verdicts = averages["verdict"]
    flags = averages.assign(
        averages=1,
        rows=verdicts == "within the rounding of the rows",
        differs=verdicts.str.startswith("differs"),
    )
    counted = ["averages", "rounds", "truncates", "rows", "differs"]
    return flags.groupby("place", sort=False)[counted].sum().reset_index()


def rank(scores: Mapping[str, Fraction], name: str) -> int:
    """1 for the highest; equal scores share a rank."""
    return 1 + sum(value > scores[name] for value in scores.values())


def leaders(rows: Iterable[Reported]) -> pd.DataFrame:
    """In how many categories of a table each method is `first` (shared places included) and `second`.

    Only tables that compare methods category by category; a method without a value is not counted in it.
    """
    tables: dict[tuple[str, str], dict[str, Column]] = {}
    for (paper, name, metric), column in columns(rows).items():
        if recomputed(column) is not None:
            tables.setdefault((paper, metric), {})[name] = column
    found = []
    for (paper, metric), methods in tables.items():
        if len(methods) < 2:
            continue
        scores = {c: {m: Fraction(column[c].exact) for m, column in methods.items()} for c in CATEGORIES}
        for method in methods:
            ranks = [rank(scores[c], method) for c in CATEGORIES]
            found.append((paper, metric, method, ranks.count(1), ranks.count(2)))
    return pd.DataFrame(found, columns=["paper", "metric", "method", "first", "second"])


def module_effects(rows: Iterable[Reported]) -> pd.DataFrame:
    """What adding one module changes: all pairs of rows of an ablation table that differ by it alone."""
    papers = {paper for paper, _ in ABLATIONS}
    means = {
        key: column["mean"] for key, column in columns(rows).items() if key[0] in papers and "mean" in column
    }
    ablated = {
        (metric, frozenset(name.split("+")) - {"none"}): row
        for (_, name, metric), row in means.items()
        if row.variant == name
    }
    found = [
        (module, base.variant, metric, float(row.exact - base.exact))
        for (metric, modules), row in ablated.items()
        for module in row.variant.split("+")
        if (base := ablated.get((metric, modules - {module}))) and base is not row
    ]
    return pd.DataFrame(found, columns=["module", "added_to", "metric", "change"]).sort_values(
        "module", kind="stable", ignore_index=True
    )


def disagreements(rows: Iterable[Reported]) -> pd.DataFrame:
    """Every score that two works print, largest difference (second minus first) first.

    `same`: equal once the more precise value is rounded like the other.
    """
    table = columns(rows)
    found = []
    for name, metric in dict.fromkeys((name, metric) for _, name, metric in table):
        works = [table[paper, name, metric] for paper in PAPERS if (paper, name, metric) in table]
        for one, other in combinations(works, 2):
            for category in (c for c in (*CATEGORIES, *AVERAGES) if c in one and c in other):
                a, b = one[category], other[category]
                difference = Fraction(b.exact) - Fraction(a.exact)
                same = abs(difference) <= Fraction(1, 2 * 10 ** min(a.decimals, b.decimals))
                values = (a.shown, b.shown, float(difference), same)
                found.append((name, metric, category, place(a), place(b), *values))
    names = ["method", "metric", "category", "first", "second"]
    names += ["first_value", "second_value", "difference", "same"]
    shown = pd.DataFrame(found, columns=names)
    return shown.sort_values("difference", key=abs, ascending=False, kind="stable", ignore_index=True)


def disagreement_summary(pairs: pd.DataFrame) -> pd.DataFrame:
    """`disagreements` per method, metric and pair of works.

    Mean and largest absolute difference are over the categories, or, where only means are printed, of these.
    """
    found = []
    keys = ["method", "metric", "first", "second"]
    for key, group in pairs.groupby(keys, sort=False):
        of_categories = group[~group["category"].isin(AVERAGES)]
        means_only = group[group["category"] == "mean"]
        counted = means_only if of_categories.empty else of_categories
        size = counted["difference"].abs()
        found.append(
            {
                **dict(zip(keys, key, strict=True)),
                "compared": len(counted),
                "differing": len(counted) - int(counted["same"].sum()),
                "mean_absolute": size.mean(),
                "largest": size.max(),
                "where": counted["category"].iloc[size.argmax()],
                "of_means": means_only["difference"].iloc[0] if len(means_only) else None,
            }
        )
    return pd.DataFrame(found).sort_values("mean_absolute", ascending=False, ignore_index=True)


def across_works(rows: Iterable[Reported], method: str, metric: str) -> pd.DataFrame:
    """One method's values as printed: a row per category or average, a column per work.

    A work that repeats an earlier one digit for digit is left out.
    """
    table = columns(rows)
    found = [table[paper, method, metric] for paper in PAPERS if (paper, method, metric) in table]
    works: dict[str, dict[str, str]] = {}
    for column in found:
        values = {c: row.shown for c, row in column.items()}
        if not any(values.items() >= earlier.items() for earlier in works.values()):
            works[place(next(iter(column.values())))] = values
    return pd.DataFrame(works).reindex([*CATEGORIES, "mean"])


def quoted_spread(quoting: str, method: str, metric: str, seeds: int) -> pd.DataFrame:
    """A method's scores as another work prints them, beside its own paper's mean over `seeds` and its spread.

    A row per category: `category`, `own`, `sd`, `quoted` and `half`, half of the interval in which one more
    run lies with a probability of 95 %; categories that lack one of them are left out.
    """
    rows = []
    for category in CATEGORIES:
        own, other = (reported(method, metric, category, paper=paper) for paper in (method, quoting))
        if own and other and own.spread:
            _, high = interval(own.number, (own.spread**2 * (1 + 1 / seeds), seeds - 1))
            rows.append((category, own.number, own.spread, other.number, high - own.number))
    return pd.DataFrame(rows, columns=["category", "own", "sd", "quoted", "half"])


def reimplementations(method: str, metric: Metric) -> pd.DataFrame:
    """A method's scores as others printed them who wrote it again: a row per category, a column per work."""
    others = pd.read_csv(REIMPLEMENTATIONS)
    others = others[(others["metric"] == metric) & (others["method"] == method)]
    table = others.pivot_table(index="category", columns="work", values="value", sort=False)
    return table.reindex(list(CATEGORIES))


def stpm_by_work(metric: Metric) -> pd.DataFrame:
    """STPM as its authors' README prints it, and as others did who wrote it again: `reimplementations`."""
    own = {name: printed.number for name in CATEGORIES if (printed := reported("stpm", metric, name))}
    table = reimplementations("stpm", metric)
    table.insert(0, "authors' README", pd.Series(own))
    return table

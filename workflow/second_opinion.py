"""A second pair of eyes: the study's headline numbers from the raw records, without a line of stlib.

    python workflow/second_opinion.py            # print what it finds
    python workflow/second_opinion.py README.md  # and compare with the tables there; status 1 if one differs
    python workflow/second_opinion.py README.md build/_build/html/book/intro.html  # and the landing page's

Means over seeds are taken from the records' metrics; image AUROC is counted again, pair by pair, from the
scores of the single images. Tolerances are typed here a second time, from book/protocol.md. Of a gain that
several seeds stand behind, the interval is not repeated: seeds are drawn at random for it.
"""

import csv
import html
import json
import re
import sys
from functools import cache
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parent.parent
TOLERANCES = {"image_auroc": 0.020, "pixel_auroc": 0.010}
NAMES = {"image AUROC": "image_auroc", "pixel AP": "pixel_ap", "IAP": "iap", "IAP@90": "iap90"}
NAMES["pixel AUROC"] = "pixel_auroc"
ALLOWED = TOLERANCES | {"pixel_ap": 0.050, "iap": 0.050, "iap90": 0.100}
TITLES = {"stpm": "STPM", "et_stpm": "ET-STPM", "destseg": "DeSTSeg", "pfadseg": "PFADSeg"}
# Where the compared value is printed, first choice first.
SOURCES = {
    ("stpm", "image_auroc"): ["stpm", "et_stpm", "pfadseg"],
    ("stpm", "pixel_auroc"): ["et_stpm", "stpm", "pfadseg"],
    "et_stpm": ["et_stpm"],
    "destseg": ["destseg", "pfadseg"],
    "pfadseg": ["pfadseg"],
}


def main(readme: str | None = None, landing: str | None = None) -> int:
    """Print the table; complain about every cell of the two files that differs. Returns the exit status."""
    printed = read_reported()
    found = {}
    for method, runs in read_records().items():
        for (category, metric), scores in sorted(runs.items()):
            told = first_printed(printed, method, metric, category)
            found[method, category, metric] = row = (
                told,
                mean(scores),
                len(scores),
                verdict(scores, told, metric),
            )
            told_text = "-" if told is None else f"{told:.3f}"
            print(f"{TITLES[method]:8} {category:12} {metric:12} {told_text} | {row[1]:.3f} | {row[2:]}")
    problems = compare(found, Path(readme).read_text()) if readme else []
    problems += compare_landing(Path(landing).read_text()) if landing else []
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def read_records() -> dict:
    """Method -> (category, metric) -> scores: finished runs of the paper's schedule, no reservations."""
    runs: dict = {}
    for path in sorted((ROOT / "results/records/paper").rglob("*.json")):
        record = json.loads(path.read_text())
        if record["status"] != "finished" or record["variant"] or reserved(record):
            continue
        check_image_auroc(path, record)
        for metric in TOLERANCES:
            if metric in record["metrics"]:
                place = runs.setdefault(record["method"], {}).setdefault((record["category"], metric), [])
                place.append(record["metrics"][metric])
    return runs


def reserved(record: dict) -> bool:
    """Incomplete images, another teacher, or a teacher fine-tuned on less than the paper's."""
    tuned = record["teacher"].get("tuned")
    weak = (
        tuned
        and tuned["epochs"]
        and (
            len(tuned["categories"]) < 15
            or any(name.startswith("layer4") for name in record["teacher"]["missing"])
        )
    )
    return bool(record["dataset"]["gaps"] or record["teacher"]["source"] in ("demo", "random") or weak)


def check_image_auroc(path: Path, record: dict) -> None:
    """Share of (defective, good) pairs in the right order, ties one half. Raises ValueError if another."""
    scores = record["image_scores"]
    good = [s["score"] for s in scores if s["image"].startswith("good/")]
    bad = [s["score"] for s in scores if not s["image"].startswith("good/")]
    won = sum((b > g) + 0.5 * (b == g) for b in bad for g in good)
    counted = won / (len(good) * len(bad))
    if abs(counted - record["metrics"]["image_auroc"]) > 2e-4:  # scores are kept with six digits
        raise ValueError(f"{path}: image AUROC {record['metrics']['image_auroc']}, counted {counted}")


@cache
def read_reported(variant: str = "") -> dict:
    """(paper, method, metric, category) -> printed value as a fraction."""
    values = {}
    for path in (ROOT / "results/reported").glob("*.csv"):
        for row in csv.DictReader(path.open()):
            if row["variant"] == variant:
                value = float(row["value"]) / (100 if row["unit"] == "percent" else 1)
                values.setdefault((row["paper"], row["method"], row["metric"], row["category"]), value)
    return values


def first_printed(printed: dict, method: str, metric: str, category: str) -> float | None:
    """The value that the study compares with."""
    papers = SOURCES.get((method, metric)) or SOURCES.get(method) or [method, *TITLES]
    found = [printed.get((paper, method, metric, category)) for paper in papers]
    return next((value for value in found if value is not None), None)


def verdict(scores: list[float], told: float | None, metric: str) -> str:
    """The rule of book/protocol.md."""
    if told is None:
        return "not reported"
    difference = round(mean(scores) - told, 9)
    word = "agrees" if abs(difference) <= TOLERANCES[metric] else "lower" if difference < 0 else "higher"
    return word if len(scores) >= 3 else f"{word} (provisional)"


def compare(found: dict, readme: str) -> list[str]:
    """Every cell of README's tables against `found`."""
    problems, seen = [], set()
    for method, title in TITLES.items():
        table = re.search(rf"^\| {re.escape(title)} \|.*?(?=\n\n)", readme, re.MULTILINE | re.DOTALL)
        for line in table[0].splitlines()[2:] if table else []:
            category, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            for metric, shown in zip(TOLERANCES, (cells[:3], cells[3:]), strict=True):
                if (method, category, metric) not in found:
                    continue
                told, value, _, word = found[method, category, metric]
                expected = ["-" if told is None else f"{told:.3f}", f"{value:.3f}", word]
                actual = [shown[0], shown[1].split(" ")[0], shown[2]]
                seen.add((method, category, metric))
                if actual != expected:
                    problems.append(
                        f"{title}, {category}, {metric}: README has {actual}, the records give {expected}"
                    )
    return problems + [f"{key}: not in the README" for key in found if key not in seen]


def compare_landing(page: str) -> list[str]:
    """Every row of the landing page's table of claims against the raw records."""
    table = next(
        t for t in re.findall(r"<table.*?</table>", page, re.DOTALL) if "over STPM, pixel AUROC" in t
    )
    runs = [json.loads(path.read_text()) for path in sorted((ROOT / "results/records/paper").rglob("*.json"))]
    runs = [run for run in runs if run["status"] == "finished"]
    problems = []
    for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)[1:]:
        cells = [re.split(r"<[^>]+>", c) for c in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)]
        claim, *shown = [[html.unescape(part) for part in cell if part] for cell in cells]
        who, metric = claim[0].rsplit(", ", 1)
        make = level if who.endswith(" reaches") else gain
        expected = make(who.removesuffix(" reaches"), NAMES[metric], runs)
        actual = [part for cell in shown for part in cell if part != "-"]
        if lacking := [part for part in expected if part not in actual]:
            problems.append(f"landing page, {claim[0]}: the records give {lacking}, the page has {actual}")
    return problems


def level(title: str, metric: str, runs: list[dict]) -> list[str]:
    """What must stand in the row of a method that reaches a score."""
    method = next(name for name, shown in TITLES.items() if shown == title)
    printed = read_reported()
    expected = [f"{first_printed(printed, method, metric, 'mean'):.3f}"]
    own = [r for r in runs if r["method"] == method and not r["variant"]]
    clean: dict = {}
    for run in own:
        if not reserved(run) and metric in run["metrics"]:
            clean.setdefault(run["category"], []).append(run)
    if not clean:
        return [*expected, *(["not comparable", f"labelled runs: {len(own)}"] if own else ["not run"])]
    told = mean(first_printed(printed, method, metric, category) for category in clean)
    value = mean(mean(r["metrics"][metric] for r in group) for group in clean.values())
    draws = zip(*(mean_draws([r["bootstrap"][metric] for r in group]) for group in clean.values()))
    low, high = ends([mean(draw) for draw in draws])
    gap = round(value - told, 9)
    word = "agrees" if abs(gap) <= ALLOWED[metric] else "lower" if gap < 0 else "higher"
    return [
        *expected,
        *(f"{told:.3f}", f"{value:.3f}", f"{low:.3f} to {high:.3f}", f"{word} {signed(gap)}"),
        *(["provisional"] if min(map(len, clean.values())) < 3 else []),
        f"{len(clean)} of 15 categories, {sum(map(len, clean.values()))} runs",
    ]


def gain(title: str, metric: str, runs: list[dict]) -> list[str]:
    """What must stand in the row of a method that beats another."""
    names = {shown: name for name, shown in TITLES.items()}
    second, first = (names[part] for part in title.split(" over "))
    printed = read_reported()
    # PFADSeg's baseline is the first row of its ablation
    left = (second, "none") if (second, first) == ("pfadseg", "destseg") else (first, "")
    rows = read_reported("none") if left[1] else {}

    def claimed(category: str) -> float | None:
        above = printed.get((second, second, metric, category))
        below = printed.get((second, first, metric, category), rows.get((second, second, metric, category)))
        return None if above is None or below is None else above - below

    sides = [
        {
            (r["category"], r["seed"]): r
            for r in runs
            if (r["method"], r["variant"]) == key and r["bootstrap"].get(metric)
        }
        for key in (left, (second, ""))
    ]
    pairs: dict = {}
    for place, run in sides[0].items():
        other = sides[1].get(place)
        if other and run["dataset"]["fingerprint"] == other["dataset"]["fingerprint"]:
            pairs.setdefault(place[0], []).append((run, other))
    expected = [signed(claimed("mean"))]
    if not pairs:
        return [*expected, "not run"]
    here = [claimed(category) for category in pairs]
    expected += [signed(mean(here))] if None not in here else []
    by_category = [
        mean(b["metrics"][metric] - a["metrics"][metric] for a, b in group) for group in pairs.values()
    ]
    expected.append(signed(mean(by_category)))
    if all(len(group) == 1 for group in pairs.values()):
        draws = [
            [y - x for x, y in zip(a["bootstrap"][metric], b["bootstrap"][metric])]
            for ((a, b),) in pairs.values()
        ]
        low, high = ends([mean(draw) for draw in zip(*draws)])
        digits = 4 if any(0 < abs(end) < 0.0005 for end in (low, high)) else 3
        expected.append(f"{signed(low, digits)} to {signed(high, digits)}")
    return [*expected, f"{len(pairs)} categories, {sum(map(len, pairs.values()))} pairs of runs"]


def mean_draws(replicates: list[list[float]]) -> list[float]:
    """Mean over runs of every replicate."""
    return [mean(draw) for draw in zip(*replicates)]


def ends(draws: list[float]) -> tuple[float, float]:
    """2.5th and 97.5th percentile, interpolated between neighbours."""
    ordered = sorted(draws)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        below = int(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])

    return at(0.025), at(0.975)


def signed(value: float, digits: int = 3) -> str:
    """With its sign; what rounds to nothing has none."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Recounting the study's numbers from the raw records: the arithmetic of `second_opinion.py`.

Not a line of stlib or study. Tolerances and rules are typed here a second time, from book/protocol.md; of a
library only Student's distribution is used.
"""

import csv
from functools import cache
from math import inf, sqrt
from pathlib import Path
from statistics import mean, variance

from scipy.stats import t as student

ROOT = Path(__file__).resolve().parent.parent
TOLERANCES = {"image_auroc": 0.020, "pixel_auroc": 0.010, "pixel_ap": 0.050, "iap": 0.050, "iap90": 0.100}
SHOWN = ("image_auroc", "pixel_auroc")  # in README's tables
NAMES = {"image AUROC": "image_auroc", "pixel AUROC": "pixel_auroc", "pixel AP": "pixel_ap"}
NAMES |= {"IAP": "iap", "IAP@90": "iap90"}
CATEGORIES = ["carpet", "grid", "leather", "tile", "wood", "bottle", "cable", "capsule", "hazelnut"]
CATEGORIES += ["metal_nut", "pill", "screw", "toothbrush", "transistor", "zipper"]
TITLES = {"stpm": "STPM", "et_stpm": "ET-STPM", "destseg": "DeSTSeg", "pfadseg": "PFADSeg"}
# Where the compared value is printed, first choice first.
SOURCES = {
    "stpm": ["stpm", "et_stpm", "destseg"],
    "et_stpm": ["et_stpm"],
    "destseg": ["destseg", "pfadseg"],
    "pfadseg": ["pfadseg"],
}


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


def check_image_auroc(record: dict) -> None:
    """Share of (defective, good) pairs in the right order, ties one half. Raises ValueError if another."""
    scores = record["image_scores"]
    good = [s["score"] for s in scores if s["image"].startswith("good/")]
    bad = [s["score"] for s in scores if not s["image"].startswith("good/")]
    won = sum((b > g) + 0.5 * (b == g) for b in bad for g in good)
    counted = won / (len(good) * len(bad))
    if abs(counted - record["metrics"]["image_auroc"]) > 2e-4:  # scores are kept with six digits
        raise ValueError(
            f"{record['path']}: image AUROC {record['metrics']['image_auroc']}, counted {counted}"
        )


@cache
def read_reported(variant: str = "") -> dict[tuple[str, ...], float]:
    """(paper, method, metric, category) -> printed value as a fraction."""
    values: dict[tuple[str, ...], float] = {}
    for path in (ROOT / "results/reported").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["variant"] == variant]
        for row in rows:
            value = float(row["value"]) / (100 if row["unit"] == "percent" else 1)
            values.setdefault((row["paper"], row["method"], row["metric"], row["category"]), value)
    return values


def first_printed(printed: dict, method: str, metric: str, category: str) -> float | None:
    """The value that the study compares with."""
    papers = SOURCES.get(method) or [method, *TITLES]
    found = [printed.get((paper, method, metric, category)) for paper in papers]
    return next((value for value in found if value is not None), None)


def verdict(scores: list[float], told: float | None, metric: str) -> str:
    """The rule of book/protocol.md as a status, with the difference beside its tolerance."""
    if told is None:
        return ""
    limit = TOLERANCES[metric]
    difference = round(mean(scores) - told, 9)
    word = "open"
    if len(scores) >= 3:
        spread, freedom = variance(scores), len(scores) - 1
        half = student.ppf(0.95, freedom) * sqrt(spread / len(scores))
        one_more = student.ppf(0.975, freedom) * sqrt(spread * (1 + 1 / len(scores)))
        if round(abs(difference) + half, 9) <= limit:
            word = "supported"
        elif round(abs(difference) - half, 9) > limit and abs(difference) > one_more:
            word = "contradicted"
    return f"{word}: {signed(difference)} of ±{limit:.3f}"


def couple(first: list[dict], second: list[dict], metric: str) -> dict:
    """Category -> seed -> the runs of both sides on the same images."""
    sides = [
        {(r["category"], r["seed"]): r for r in runs if r["bootstrap"].get(metric)}
        for runs in (first, second)
    ]
    pairs: dict = {}
    for (category, seed), run in sides[0].items():
        other = sides[1].get((category, seed))
        if other is None or rounded_otherwise(run, other):
            continue
        if run["dataset"]["fingerprint"] == other["dataset"]["fingerprint"]:
            pairs.setdefault(category, {})[seed] = (run, other)
    return pairs


def rounded_otherwise(a: dict, b: dict) -> bool:
    """Whether two sides with a segmentation net, whose scores precision moves, trained in two arithmetics."""
    moved = {a["method"], b["method"]} & {"destseg", "pfadseg"}
    if a["precision"] != b["precision"]:
        return moved == {a["method"], b["method"]}
    return bool(moved) and a["precision"] == "bf16" and on_cpu(a) != on_cpu(b)


def on_cpu(run: dict) -> bool:
    """Whether a CPU trained."""
    return bool(run["runtime"]["device"].startswith("CPU"))


def estimate(pairs: dict, metric: str) -> dict:
    """Mean difference over categories, its interval and p value, from two sources of chance."""
    seeds = {
        c: {s: b["metrics"][metric] - a["metrics"][metric] for s, (a, b) in g.items()}
        for c, g in pairs.items()
    }
    count = len(pairs)
    parts = []
    for group in pairs.values():
        draws = [
            [y - x for x, y in zip(a["bootstrap"][metric], b["bootstrap"][metric])] for a, b in group.values()
        ]
        means = [mean(draw) for draw in zip(*draws)]
        parts.append((variance(means) / count**2, len(means) - 1))
    sides = [
        {group[s][side]["teacher"]["pyramid_sha256"] for group in pairs.values() for s in group}
        for side in (0, 1)
    ]
    common = set.intersection(*(set(one) for one in seeds.values()))
    if any(len(side) > 1 for side in sides) and len(common) > 1:  # a teacher is shared by all categories
        values, share = [[mean(one[s] for one in seeds.values()) for s in common]], 1
    else:
        values, share = [list(one.values()) for one in seeds.values()], count**2
    parts += [(variance(v) / len(v) / share, len(v) - 1) for v in values if len(v) > 1]
    total = sum(part for part, _ in parts)
    unsure = sum(part**2 / freedom for part, freedom in parts)
    freedom = total**2 / unsure if unsure else inf
    value = mean(mean(one.values()) for one in seeds.values())
    half = student.ppf(0.975, freedom) * sqrt(total)
    p = 2 * student.sf(abs(value) / sqrt(total), freedom) if total else float(value == 0)
    return {
        "value": value,
        "low": value - half,
        "high": value + half,
        "p": p,
        "fewest": min(map(len, seeds.values())),
    }


def scored(method: str, metric: str, runs: list[dict], variant: str = "") -> dict[str, tuple]:
    """Category -> its printed score, and by seed the scores without reservations, where there are both."""
    printed = read_reported()
    found: dict = {}
    for run in runs:
        number = first_printed(printed, method, metric, run["category"])
        if (run["method"], run["variant"]) != (method, variant) or number is None:
            continue
        if not reserved(run) and metric in run["metrics"]:
            found.setdefault(run["category"], (number, {}))[1][run["seed"]] = run["metrics"][metric]
    return found


def distances(found: dict) -> dict[str, float]:
    """Category -> how far the mean over seeds of what `scored` found lies from the printed score."""
    return {category: mean(seeds.values()) - number for category, (number, seeds) in found.items()}


def paired(title: str, metric: str, runs: list[dict]) -> dict:
    """Everything about the claim that one method beats another; `pairs` by category, empty where none ran."""
    names, metric = {shown: name for name, shown in TITLES.items()}, NAMES[metric]
    second, first = (names[part] for part in title.split(" over "))
    printed = read_reported()
    # PFADSeg's baseline is the first row of its ablation
    left = (second, "none") if (second, first) == ("pfadseg", "destseg") else (first, "")
    rows = read_reported("none") if left[1] else {}

    def claimed(category: str) -> float | None:
        above = printed.get((second, second, metric, category))
        below = printed.get((second, first, metric, category), rows.get((second, second, metric, category)))
        return None if above is None or below is None else above - below

    kept = [[r for r in runs if (r["method"], r["variant"]) == key] for key in (left, (second, ""))]
    pairs, shared = couple(kept[0], kept[1], metric), False
    if second == "et_stpm":  # a teacher for every seed, or one for all: whichever gives more pairs
        others = couple(kept[0], of_one_teacher(runs), metric)
        if sum(map(len, others.values())) > sum(map(len, pairs.values())):
            pairs, shared = others, True
    here = [told for category in pairs if (told := claimed(category)) is not None]
    found = {"pairs": pairs, "paper": second, "all": claimed("mean"), "shared": shared}
    found["claims"] = {category: claimed(category) for category in pairs}
    found["here"] = mean(here) if pairs and len(here) == len(pairs) else None
    both = [run for group in pairs.values() for pair in group.values() for run in pair]
    sides = [pair for group in pairs.values() for pair in group.values()]
    found["reserved"] = any(map(reserved, both)) or any(arithmetic(a) != arithmetic(b) for a, b in sides)
    return found | (estimate(pairs, metric) if pairs else {})


def arithmetic(run: dict) -> tuple[str, bool]:
    """What the two sides of a pair should have in common: precision, and whether a CPU trained."""
    return run["precision"], on_cpu(run)


def of_one_teacher(runs: list[dict]) -> list[dict]:
    """ET-STPM's runs whose teacher is that of seed 0."""
    tuned = [r for r in runs if r["method"] == "et_stpm"]
    return [r for r in tuned if r["variant"] == "teacher=0" or (r["variant"], r["seed"]) == ("", 0)]


def ends(found: dict) -> str:
    """An interval; the sign tells the side of zero. With one seed it holds chance in the images only."""
    both = (f"{found[end]:+.3f}" if found[end] else "0.000" for end in ("low", "high"))
    alone = "images only: " if found["fewest"] == 1 else ""
    if alone and any(len(group) > 1 for group in found["pairs"].values()):
        alone = f"in part {alone}"
    return alone + " to ".join(both).replace("-", "\u2212")


def signed(value: float) -> str:
    """With its sign, a true minus; what rounds to nothing has none."""
    text = f"{value:+.3f}"
    return text.replace("-", "\u2212") if float(text) else text[1:]

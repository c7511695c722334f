"""A second pair of eyes: the study's headline numbers from the raw records, without a line of stlib.

    python workflow/second_opinion.py            # print what it finds
    python workflow/second_opinion.py README.md  # and compare with the tables there; status 1 if one differs
    python workflow/second_opinion.py README.md build/_build/html/book/intro.html  # and the landing page's

Means over seeds are taken from the records' metrics; image AUROC is counted again, pair by pair, from the
scores of the single images. Tolerances and rules are typed here a second time, from book/protocol.md: where
one more run has to be expected, whether equivalence is shown, the interval of a gain over images and seeds,
its answer, and the gain at the last epoch. Of a library only Student's distribution is used.
"""

import html
import json
import re
import sys
from pathlib import Path
from statistics import mean

from recount import (
    NAMES,
    ROOT,
    TITLES,
    TOLERANCES,
    check_image_auroc,
    couple,
    ends,
    estimate,
    first_printed,
    one_more,
    read_reported,
    reserved,
    signed,
    verdict,
)


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
                expected = ["" if told is None else f"{told:.3f}", f"{value:.3f}", word]
                actual = [shown[0], shown[1].partition(" ")[0], shown[2]]
                seen.add((method, category, metric))
                if actual != expected:
                    problems.append(
                        f"{title}, {category}, {metric}: README has {actual}, the records give {expected}"
                    )
    return problems + [f"{key}: not in the README" for key in found if key not in seen]


def compare_landing(page: str) -> list[str]:
    """Every row of the landing page's table of claims, and ET-STPM's epochs, against the raw records."""
    table = next(
        t for t in re.findall(r"<table.*?</table>", page, re.DOTALL) if "over STPM, pixel AUROC" in t
    )
    runs = [json.loads(path.read_text()) for path in sorted((ROOT / "results/records/paper").rglob("*.json"))]
    runs = [run for run in runs if run["status"] == "finished"]
    rows = []
    for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)[1:]:
        cells = [re.split(r"<[^>]+>", c) for c in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)]
        claim, *shown = [[html.unescape(part).strip() for part in cell if part.strip()] for cell in cells]
        rows.append((claim[0], [part for cell in shown for part in cell if part != "-"]))
    gains = {}
    for name, _ in rows:
        who, metric = name.rsplit(", ", 1)
        if " over " in who:
            gains[name] = paired(who, NAMES[metric], runs)
    problems = []
    for name, actual in rows:
        who, metric = name.rsplit(", ", 1)
        expected = (
            gain(name, gains) if name in gains else level(who.removesuffix(" reaches"), NAMES[metric], runs)
        )
        if lacking := [part for part in expected if part not in actual]:
            problems.append(f"landing page, {name}: the records give {lacking}, the page has {actual}")
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())
    return problems + [
        f"landing page: the records give {told!r}" for told in epochs(runs) if told not in text
    ]


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
    scores = [{r["seed"]: r["metrics"][metric] for r in group} for group in clean.values()]
    value = mean(mean(one.values()) for one in scores)
    whole = len(scores[0]) > 1 and all(one.keys() == scores[0].keys() for one in scores)
    means = [mean(one[seed] for one in scores) for seed in scores[0]] if whole else [value]
    word, _, gap = verdict(means, told, metric).partition(": ")
    return [
        *expected,
        *(f"{told:.3f}", f"{value:.3f}", word.removesuffix(" (provisional)")),
        *([one_more(means)] if whole else []),
        *([f"{gap}; provisional"] if min(map(len, clean.values())) < 3 else [gap]),
        f"{len(clean)} of 15 categories, {sum(map(len, clean.values()))} runs",
    ]


def paired(title: str, metric: str, runs: list[dict]) -> dict:
    """Everything about the claim that one method beats another; `pairs` by category, empty where none ran."""
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

    kept = [[r for r in runs if (r["method"], r["variant"]) == key] for key in (left, (second, ""))]
    pairs = couple(*kept, metric)
    here = [claimed(category) for category in pairs]
    found = {"pairs": pairs, "paper": second, "all": claimed("mean")}
    found["here"] = mean(here) if here and None not in here else None
    return found | (estimate(pairs, metric) if pairs else {})


def gain(name: str, gains: dict) -> list[str]:
    """What must stand in the row of a method that beats another; the claims of one paper are a family."""
    own = gains[name]
    expected = [signed(own["all"])]
    if not own["pairs"]:
        return [*expected, "not run"]
    expected += [signed(own["here"])] if own["here"] is not None else []
    runs = sum(map(len, own["pairs"].values()))
    expected += [signed(own["value"]), ends(own), f"{len(own['pairs'])} categories, {runs} pairs of runs"]
    family = sorted(
        (g["p"], n) for n, g in gains.items() if g["pairs"] and g["paper"] == own["paper"] and g["fewest"] > 2
    )
    adjusted, highest = {}, 0.0
    for place, (p, who) in enumerate(family):
        highest = adjusted[who] = max(highest, min(1, p * (len(family) - place)))
    claim = own["all"] if own["here"] is None else own["here"]
    if own["fewest"] < 3:
        answer = "too few seeds"
    elif adjusted[name] < 0.05:
        answer = "gain" if own["value"] > 0 else "loss"
    elif own["low"] <= 0 <= own["high"] and not own["low"] <= claim <= own["high"]:
        answer = "not as claimed"
    else:
        answer = "inconclusive"
    return [*expected, answer]


def epochs(runs: list[dict]) -> list[str]:
    """ET-STPM minus STPM with one teacher for all seeds: at the chosen epoch, and at the last."""
    told = []
    stpm = [r for r in runs if (r["method"], r["variant"]) == ("stpm", "")]
    tuned = [
        r
        for r in runs
        if r["method"] == "et_stpm" and (r["variant"] == "teacher=0" or (r["variant"], r["seed"]) == ("", 0))
    ]
    for metric in TOLERANCES:
        pairs = couple(stpm, tuned, metric)
        if pairs:
            found = estimate(pairs, metric)
            last = mean(
                mean(
                    b["sensitivity"]["checkpoint=last"][metric] - a["sensitivity"]["checkpoint=last"][metric]
                    for a, b in g.values()
                )
                for g in pairs.values()
            )
            told.append(f"{signed(found['value'])} ({ends(found)})")
            told.append(f"{signed(last)} at the last one")
    return told


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

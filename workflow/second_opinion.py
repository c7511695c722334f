"""A second pair of eyes: the study's headline numbers from the raw records, without a line of stlib.

    python workflow/second_opinion.py            # print what it finds
    python workflow/second_opinion.py README.md  # and compare with the answers there; status 1 if one differs
    python workflow/second_opinion.py README.md build/_build/html/book/intro.html  # and the landing page's

Means over seeds are taken from the records' metrics; image AUROC is counted again, pair by pair, from the
scores of the single images. Tolerances and rules are typed here a second time, from book/protocol.md: whether
equivalence is shown, the interval of a gain over images and seeds, status, the gain at the last epoch. So are
the words around the numbers of the sentences. Of a library only Student's distribution is used.
"""

import html
import json
import re
import sys
from functools import cache
from pathlib import Path
from statistics import mean

from recount import (
    CATEGORIES,
    NAMES,
    ROOT,
    SHOWN,
    TITLES,
    TOLERANCES,
    check_image_auroc,
    couple,
    distances,
    ends,
    first_printed,
    paired,
    read_reported,
    reserved,
    scored,
    signed,
    verdict,
)

GAINS = [f"ET-STPM over STPM, {metric}" for metric in ("image AUROC", "pixel AUROC")]
GAINS += [f"PFADSeg over DeSTSeg, {metric}" for metric in ("image AUROC", "pixel AP", "IAP")]
FAMILIES = [*GAINS, "PFADSeg over DeSTSeg, IAP@90", "PFADSeg over STPM, pixel AP", "PFADSeg over STPM, IAP"]
LEVELS = {"STPM": ("image AUROC", "pixel AUROC")} | dict.fromkeys(("DeSTSeg", "PFADSeg"), ("pixel AP", "IAP"))


def main(readme: str | None = None, landing: str | None = None) -> int:
    """Print the table; complain about every cell of the two files that differs. Returns the exit status."""
    printed = read_reported()
    found = {}
    for method, runs in read_records().items():
        for (category, metric), scores in sorted(runs.items()):
            told = first_printed(printed, method, metric, category)
            row = (told, mean(scores), len(scores), verdict(scores, told, metric))
            found[method, category, metric] = row
            told_text = "-" if told is None else f"{told:.3f}"
            print(f"{TITLES[method]:8} {category:12} {metric:12} {told_text} | {row[1]:.3f} | {row[2:]}")
    problems = []
    if readme:
        text = Path(readme).read_text(encoding="utf-8")
        problems += compare(found, text) + compare_sentences("README", text)
    if landing:
        page = Path(landing).read_text(encoding="utf-8")
        text = html.unescape(re.sub(r"</?strong>", "", page))
        text = re.sub(r"<[^>]+>", " ", text).replace("\u2019", "'")
        problems += compare_landing(page) + compare_sentences("landing page", text)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def read_records() -> dict:
    """Method -> (category, metric) -> scores for README's tables: as published, without reservations."""
    runs: dict = {}
    for record in read_runs():
        if record["variant"] or reserved(record):
            continue
        if record["method"] not in TITLES:  # of another backbone than the printed number
            continue
        check_image_auroc(record)
        for metric in SHOWN:
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
            for metric, shown in zip(SHOWN, (cells[:3], cells[3:]), strict=True):
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
    """Every row of the landing page's table of claims against the raw records."""
    table = next(t for t in re.findall(r"<table.*?</table>", page, re.DOTALL) if "ET-STPM over STPM" in t)
    runs = read_runs()
    rows = []
    for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)[1:]:
        cells = [re.split(r"<[^>]+>", c) for c in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)]
        claim, *shown = [[html.unescape(part).strip() for part in cell if part.strip()] for cell in cells]
        rows.append((", ".join(claim), [part for cell in shown for part in cell]))
    gains = all_gains(runs)
    problems = []
    for name, actual in rows:
        who, metric, *table = name.split(", ")
        if table:
            expected = by_rows(who, metric, "pfadseg" if table == ["its own table"] else "destseg")
        else:
            expected = gain(name, gains) if name in GAINS else level(who, NAMES[metric], runs)
        if expected != actual:
            problems.append(f"landing page, {name}: the records give {expected}, the page has {actual}")
    return problems


def compare_sentences(where: str, text: str) -> list[str]:
    """Every number of the sentences on gains and scores, but for the coverage at their ends."""
    runs, words = read_runs(), " ".join(text.replace("**", "").split())
    gains = all_gains(runs)
    told = [of_all(gains, runs)]
    for status in ("supported", "contradicted", "open"):
        for who in ("ET-STPM", "PFADSeg"):
            names = [n for n in GAINS if n.startswith(who) and gains[n]["pairs"]]
            told.append(of_gains([n for n in names if gain(n, gains)[0] == status], gains, runs))
        for title, metrics in LEVELS.items() if status != "supported" else ():
            keys = [NAMES[m] for m in metrics if level(title, NAMES[m], runs)[0] == status]
            told.append(of_levels(title, keys, runs))
    return [f"{where}: the records give {part!r}" for part in told if part not in words]


def all_gains(runs: list[dict]) -> dict[str, dict]:
    """Every claim of `FAMILIES`, those of one paper being tested together, with what was found."""
    return {name: paired(*name.partition(", ")[::2], runs) for name in FAMILIES}


@cache
def read_runs() -> list[dict]:
    """The finished runs of the papers' schedules, deviations included, each with the `path` of its record."""
    paths = sorted((ROOT / "results/records/paper").rglob("*.json"))
    runs = [json.loads(path.read_bytes()) | {"path": path} for path in paths]
    return [run for run in runs if run["status"] == "finished"]


def claimed(found: dict) -> str:
    """What the paper prints, in the words of the sentences."""
    if found["here"] is None:
        return f"{signed(found['all'])} over 15 categories"
    if abs(found["here"] - found["all"]) < 0.005:
        return signed(found["here"])
    return f"{signed(found['all'])} over 15 categories, {signed(found['here'])} on these"


def by_rows(title: str, metric: str, paper: str) -> list[str]:
    """What must stand in the row that counts a gain by printed rows, the rival's printed by `paper`."""
    names = {shown: name for name, shown in TITLES.items()}
    second, first = (names[part] for part in title.split(" over "))
    printed = read_reported()
    keys = ((second, second), (paper, first))
    sides = [[printed[(*key, NAMES[metric], c)] for c in CATEGORIES] for key in keys]
    gains = [above - below for above, below in zip(*sides, strict=True)]
    higher, lower = (sum(round(sign * gain, 6) > 0 for gain in gains) for sign in (1, -1))
    return [f"higher in {higher}, lower in {lower}", f"{higher + lower}/15, as printed"]


def level(title: str, metric: str, runs: list[dict]) -> list[str]:
    """What must stand in the row of a method that reaches a score."""
    method = next(name for name, shown in TITLES.items() if shown == title)
    printed = read_reported()
    everywhere = f"{first_printed(printed, method, metric, 'mean'):.3f}"
    clean = scored(method, metric, runs)
    if not clean:
        own = [r for r in runs if r["method"] == method and not r["variant"]]
        return [*(["open"] if own else []), everywhere]
    told = mean(number for number, _ in clean.values())
    scores = [seeds for _, seeds in clean.values()]
    value = mean(mean(one.values()) for one in scores)
    whole = len(scores[0]) > 1 and all(one.keys() == scores[0].keys() for one in scores)
    means = [mean(one[seed] for one in scores) for seed in scores[0]] if whole else [value]
    fewest = min(map(len, scores))
    word, _, gap = verdict(means, told, metric).partition(": ")
    seeds = f"{len(clean)}/15, {seeds_of(scores)}"
    return [word if fewest >= 3 else "open", f"{value:.3f}", gap, f"{told:.3f}", seeds]


def gain(name: str, gains: dict) -> list[str]:
    """What must stand in the row of a method that beats another; the claims of one paper are a family."""
    own = gains[name]
    if not own["pairs"]:
        return [signed(own["all"])]
    family = sorted(
        (g["p"], n) for n, g in gains.items() if g["pairs"] and g["paper"] == own["paper"] and g["fewest"] > 2
    )
    adjusted, highest = {}, 0.0
    for place, (p, who) in enumerate(family):
        highest = adjusted[who] = max(highest, min(1, p * (len(family) - place)))
    claim = own["all"] if own["here"] is None else own["here"]
    if own["fewest"] < 3 or own["reserved"]:
        status = "open"
    elif adjusted[name] < 0.05:
        status = "supported" if own["value"] > 0 else "contradicted"
    else:
        without = own["low"] <= 0 <= own["high"] and not own["low"] <= claim <= own["high"]
        status = "contradicted" if without else "open"
    shown = [status, signed(own["value"]), ends(own)]
    shown += [signed(claim), *(["all 15"] if own["here"] is None else [])]
    if own["here"] is not None and abs(own["here"] - own["all"]) >= 0.005:
        shown.append(f"all 15: {signed(own['all'])}")
    shown += [f"{len(own['pairs'])}/15, {seeds_of(list(own['pairs'].values()))}"]
    shown += ["one teacher for all seeds"] if own["shared"] else []
    return shown + (["not the paper's setting"] if own["reserved"] else [])


def of_all(gains: dict, runs: list[dict]) -> str:
    """How many claims have which status, and why those that are open are."""
    found = [
        (gain(name, gains)[0], bool(own["reserved"]), own["fewest"])
        for name, own in gains.items()
        if own["pairs"] and name in GAINS
    ]
    for title, metrics in LEVELS.items():
        method = next(name for name, shown in TITLES.items() if shown == title)
        if any(r["method"] == method and not r["variant"] for r in runs):
            clean = [scored(method, NAMES[metric], runs) for metric in metrics]
            fewest = [min((len(seeds) for _, seeds in one.values()), default=0) for one in clean]
            statuses = [level(title, NAMES[metric], runs)[0] for metric in metrics]
            found += zip(statuses, [not one for one in clean], fewest, strict=True)
    left = [(reserved, fewest) for status, reserved, fewest in found if status == "open"]
    few = sum(not reserved and fewest < 3 for reserved, fewest in left)
    setting = sum(reserved for reserved, _ in left)
    counts = [
        f"{n} {'is' if n == 1 else 'are'} {status}"
        for status in ("supported", "contradicted", "open")
        for n in [sum(one[0] == status for one in found)]
    ]
    why = [(few, "with fewer than three seeds"), (setting, "not in the paper's setting")]
    why.append((len(left) - few - setting, "not proven either way"))
    reasons = ", ".join(f"{n} {words}" for n, words in why if n)
    return f"Of {len(found)} headline claims {', '.join(counts)}" + (f": {reasons}." if reasons else ".")


def of_gains(names: list[str], gains: dict, runs: list[dict]) -> str:
    """The numbers of a sentence on gains that share their status."""
    parts, last, longer = [], "", {}
    for name in names:
        found, metric = gains[name], name.partition(", ")[2]
        parts.append(f"{metric} {signed(found['value'])} (printed {claimed(found)})")
        if found["paper"] == "et_stpm":
            last += at_last_epoch(found, metric)
            longer[metric] = both_longer(NAMES[metric], runs)
    text = ", ".join(parts) + "." * bool(parts) + last
    if longer := {metric: one for metric, one in longer.items() if one}:
        counts = " or ".join(map(str, sorted(set(map(len, longer.values())))))
        told = ", ".join(f"{metric} {signed(mean(map(mean, one)))}" for metric, one in longer.items())
        seeds = seeds_of(next(iter(longer.values())))
        text += f" If both train for 200 epochs ({counts} categories, {seeds}): {told}."
    return text


def at_last_epoch(found: dict, metric: str) -> str:
    """The gain at the last epoch and where it is farthest from zero, if it has another sign there."""
    gains = {
        category: mean(last(b)[NAMES[metric]] - last(a)[NAMES[metric]] for a, b in group.values())
        for category, group in found["pairs"].items()
    }
    value, far = mean(gains.values()), max(gains, key=lambda category: abs(gains[category]))
    if value * found["value"] >= 0:
        return ""
    return (
        f" Tested at the last epoch, the gain in {metric} is {signed(value)}, on {far} {signed(gains[far])}."
    )


def last(run: dict) -> dict:
    """The scores of its last epoch."""
    return run["sensitivity"]["checkpoint=last"]


def both_longer(key: str, runs: list[dict]) -> list[list[float]]:
    """By category, ET-STPM's gains of every seed where both sides train for 200 epochs."""
    longer = [r for r in runs if r["variant"] == "epochs=200"]
    plain, tuned = ([r for r in longer if r["method"] == name] for name in ("stpm", "et_stpm"))
    groups = couple(plain, tuned, key).values()
    return [[b["metrics"][key] - a["metrics"][key] for a, b in group.values()] for group in groups]


def of_levels(title: str, keys: list[str], runs: list[dict]) -> str:
    """The numbers of a sentence on scores that share a status which is not 'supported'."""
    method = next(name for name, shown in TITLES.items() if shown == title)
    parts, places, longer = [], [], []
    counts: list = []
    several = sum(bool(scored(method, key, runs)) for key in keys) > 1
    for key in keys:
        away = distances(scored(method, key, runs))
        if not away:
            continue
        far = max(away, key=lambda category: abs(away[category]))
        outside = len(away) > 1 and abs(round(away[far], 9)) > TOLERANCES[key]
        parts.append(signed(mean(away.values())))
        if outside:
            name = next(shown for shown, known in NAMES.items() if known == key)
            places.append(f"{f'{name} ' if several else ''}on {far} {signed(away[far])}")
        long = scored(method, key, runs, "epochs=200")
        if long.keys() == away.keys():
            longer.append(signed(mean(distances(long).values())))
            counts = counts or [seeds for _, seeds in long.values()]
    if not parts:
        return ""
    text = f"{' and '.join(parts)} from the printed {'one' if len(parts) == 1 else 'ones'}"
    text += f" ({', '.join(places)})." if places else "."
    if longer:
        text += " After 200 epochs instead of the paper's 100, as its authors' command says "
        text += f"({seeds_of(counts)}): {', '.join(longer)}."
    return text


def seeds_of(groups: list) -> str:
    """How many seeds the categories have."""
    low, high = min(map(len, groups)), max(map(len, groups))
    return f"{low} to {high} seeds" if low != high else f"{low} seed{'s' if low > 1 else ''}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""A second pair of eyes: the study's headline numbers from the raw records, without a line of stlib.

    python workflow/second_opinion.py            # print what it finds
    python workflow/second_opinion.py README.md  # and compare with the tables there; status 1 if one differs

Means over seeds are taken from the records' metrics; image AUROC is counted again, pair by pair, from the
scores of the single images. Tolerances are typed here a second time, from book/protocol.md.
"""

import csv
import json
import re
import sys
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parent.parent
TOLERANCES = {"image_auroc": 0.020, "pixel_auroc": 0.010}
TITLES = {"stpm": "STPM", "et_stpm": "ET-STPM", "destseg": "DeSTSeg", "pfadseg": "PFADSeg"}
# Where the compared value is printed, first choice first.
SOURCES = {
    ("stpm", "image_auroc"): ["stpm", "et_stpm", "pfadseg"],
    ("stpm", "pixel_auroc"): ["et_stpm", "stpm", "pfadseg"],
    "et_stpm": ["et_stpm"],
    "destseg": ["destseg", "pfadseg"],
    "pfadseg": ["pfadseg"],
}


def main(readme: str | None) -> int:
    """Print the table; with a README, complain about every cell that differs. Returns the exit status."""
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


def read_reported() -> dict:
    """(paper, method, metric, category) -> printed value as a fraction."""
    values = {}
    for path in (ROOT / "results/reported").glob("*.csv"):
        for row in csv.DictReader(path.open()):
            if not row["variant"]:
                value = float(row["value"]) / (100 if row["unit"] == "percent" else 1)
                values.setdefault((row["paper"], row["method"], row["metric"], row["category"]), value)
    return values


def first_printed(printed: dict, method: str, metric: str, category: str) -> float | None:
    """The value that the study compares with."""
    papers = SOURCES.get((method, metric)) or SOURCES.get(method, [])
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))

"""How much area other rules mark than this study's, on the mask files at hand and on masks of official size.

python benchmarks/masks.py --data MVTEC_AD [--save]

Where the files are smaller than the official ones, masks of SIDE pixels are drawn again: enlarged, bicubic,
and cut at one half. They stand for the originals, on which 'any' is the official STPM code's rule. Their
overlap with the rules on the files at hand says which of these comes near it.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from side_by_side import asked, options, report, show

from stlib.data.images import open_image
from stlib.data.layout import scan
from stlib.data.masks import MASK_RULES, read_mask
from stlib.paths import DATA

SIDE, SMALL = 1024, 256


def count(file: Path, folder: Path) -> Counter[str]:
    """Pixels that every rule marks, on the file and redrawn; common with the official rule, and in either."""
    enlarged = open_image(file).convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    large = folder / "mask.png"
    Image.fromarray(np.where(np.asarray(enlarged) >= 128, 255, 0).astype(np.uint8)).save(large)
    official = read_mask(large, SMALL, "any")
    found: Counter[str] = Counter()
    for rule in MASK_RULES:
        at_hand, redrawn = read_mask(file, SMALL, rule), read_mask(large, SMALL, rule)
        found[f"at hand {rule}"] = int(at_hand.sum())
        found[f"redrawn {rule}"] = int(redrawn.sum())
        found[f"common {rule}"] = int((at_hand & official).sum())
        found[f"either {rule}"] = int((at_hand | official).sum())
    return found


def shares(counts: Counter[str]) -> dict[str, dict[str, float]]:
    """By rule: the area over that of 'half', at hand and redrawn, and the overlap with the official rule."""
    return {
        rule: {
            "at_hand": counts[f"at hand {rule}"] / counts["at hand half"],
            "redrawn": counts[f"redrawn {rule}"] / counts["redrawn half"],
            "overlap": counts[f"common {rule}"] / counts[f"either {rule}"],
        }
        for rule in MASK_RULES
    }


def main(arguments: argparse.Namespace) -> None:
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for category in sorted(path.parent.parent.name for path in arguments.data.glob("*/train/good")):
            masks = [item.mask for item in scan(arguments.data, category).test if item.mask is not None]
            counts[category] = sum((count(mask, Path(folder)) for mask in masks), Counter())
    counts["all"] = sum(counts.values(), Counter())
    found = {name: shares(some) for name, some in counts.items()}
    show({f"{name}, {rule}": values for name, rules in found.items() for rule, values in rules.items()})
    report("masks", arguments, {"side": SIDE, "categories": found})


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("--data", type=Path, default=DATA / "mvtec_ad", help="dataset root")
    main(asked(parser))

"""What bfloat16 at inference does to the metrics of trained detectors, beside their exact maps.

python benchmarks/rounding.py --data MVTEC_AD A.safetensors B.safetensors [--save]    (of `stlib run --save`)
"""

import argparse
import math
from pathlib import Path

from side_by_side import asked, options, report, show

from stlib.data.mvtec import load_category
from stlib.detector import Detector
from stlib.methods import get_method
from stlib.paths import DATA
from stlib.run.evaluation import evaluate


def metrics(detector: Detector, data: Path) -> dict[str, dict[str, float]]:
    """Every defined metric with the maps in fp32 ('exact') and what bf16 changes ('change')."""
    category = load_category(data, detector.info.category, image_size=detector.image_size)
    exact = evaluate(detector.maps(category.test), category).metrics
    rounded = evaluate(detector.maps(category.test, precision="bf16"), category).metrics
    return {
        name: {"exact": value, "change": rounded[name] - value}
        for name, value in exact.items()
        if not math.isnan(value)
    }


def main(arguments: argparse.Namespace) -> None:
    found = {}
    for file in arguments.detectors:
        detector = Detector.load(file).on(arguments.device)
        info = detector.info
        name = f"{get_method(info.method).title}, {info.category}, seed {info.seed}, {info.profile} schedule"
        found[name] = metrics(detector, arguments.data)
        print(name)
        show(found[name])
    report("rounding", arguments, found)


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("detectors", nargs="+", type=Path, help="files that `stlib run --save` wrote")
    parser.add_argument("--data", type=Path, default=DATA / "mvtec_ad", help="dataset root")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    main(asked(parser))

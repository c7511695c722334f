"""Student-teacher anomaly detectors on MVTec AD: STPM, ET-STPM, DeSTSeg and PFADSeg, reproduced.

The front door. From images to metrics:

    bottle = stlib.load_category("data/mvtec_ad", "bottle")
    detector = stlib.fit("stpm", bottle, teacher="torchvision", device="cuda")
    maps = detector.maps(bottle.test)
    print(stlib.evaluate(maps, bottle))

And from a trained detector to decisions on photographs:

    detector = stlib.Detector.load("bottle.safetensors")
    for found in stlib.inspect(detector, "photos"):
        print(found.path, found.score, found.anomalous)

Names are imported on first use (PEP 562): `import stlib` loads no PyTorch, and neither does `stlib.records`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stlib.data.mvtec import Category, load_category
    from stlib.demo.dataset import make_demo
    from stlib.detector import Detector
    from stlib.inspection import Inspected, inspect
    from stlib.nn.maps import Maps
    from stlib.run.evaluation import Evaluation, evaluate
    from stlib.run.fit import fit
    from stlib.run.fitted import FittedDetector, RunFailed

__version__ = "0.1.0"

_HOMES = {
    "Category": "stlib.data.mvtec",
    "Detector": "stlib.detector",
    "Evaluation": "stlib.run.evaluation",
    "FittedDetector": "stlib.run.fitted",
    "Inspected": "stlib.inspection",
    "Maps": "stlib.nn.maps",
    "RunFailed": "stlib.run.fitted",
    "evaluate": "stlib.run.evaluation",
    "fit": "stlib.run.fit",
    "inspect": "stlib.inspection",
    "load_category": "stlib.data.mvtec",
    "make_demo": "stlib.demo.dataset",
}
"""Where each exported name is defined."""

__all__ = [
    "Category",
    "Detector",
    "Evaluation",
    "FittedDetector",
    "Inspected",
    "Maps",
    "RunFailed",
    "__version__",
    "evaluate",
    "fit",
    "inspect",
    "load_category",
    "make_demo",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'stlib' has no attribute '{name}': it exports {', '.join(_HOMES)}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

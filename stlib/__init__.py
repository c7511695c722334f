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

if TYPE_CHECKING:  # `as` says that a name is exported: the list below is made when the module is loaded
    from stlib.data.mvtec import Category as Category, load_category as load_category
    from stlib.demo.dataset import make_demo as make_demo
    from stlib.detector import Detector as Detector
    from stlib.inspection import Inspected as Inspected, inspect as inspect
    from stlib.nn.maps import Maps as Maps
    from stlib.run.evaluation import Evaluation as Evaluation, evaluate as evaluate
    from stlib.run.fit import fit as fit
    from stlib.run.fitted import FittedDetector as FittedDetector, RunFailed as RunFailed

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

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'stlib' has no attribute '{name}': it exports {', '.join(_HOMES)}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""What a trained detector's maps are worth: metrics, their spread, and how far each choice moves them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from torch import Tensor

from stlib.bootstrap import replicates
from stlib.data.mvtec import Category, with_mask_rule
from stlib.data.splits import unseen_indices
from stlib.methods import Method
from stlib.metrics import PixelRanking, image_metrics, label_regions, pixel_metrics
from stlib.nn.maps import Maps
from stlib.protocol import METRICS, Metric
from stlib.records.schema import ImageScore

Name = TypeVar("Name", bound=str)


def measured(category: Category, method: Method, maps: Maps) -> dict[str, object]:
    """The measured part of a record: the fields from `metrics` to `bootstrap`, computed where it trained."""
    maps = maps.to(method.execution.device)
    found = evaluate(maps, category)
    defined = _defined(found)
    draws = replicates(found.ranking, maps.image, category.labels) if defined else {}
    # A metric that some draw leaves undefined has no interval: dropping the draw would break the pairing.
    whole = [name for name in defined if not any(map(math.isnan, draws[name]))]
    return {
        "metrics": defined,
        "undefined": {name: _reason(category, name) for name in METRICS if name not in defined},
        "sensitivity": _sensitivity(category, method, maps),
        "image_scores": _image_scores(category, maps.image),
        "pixel_curves": rounded(found.ranking.curves()),
        "bootstrap": rounded({name: draws[name] for name in whole}),
    }


@dataclass(frozen=True)
class Evaluation:
    """All metrics of one set of maps, and the ranking of the pixels that they were read from.

    `print` shows a line per metric.
    """

    metrics: Mapping[Metric, float]
    """Fractions in [0, 1], by name; NaN for a metric that the images leave undefined."""
    ranking: PixelRanking = field(repr=False)
    """Every pixel of the test set, ranked; its `curves()` are what ROC and precision-recall plots show."""

    def __str__(self) -> str:
        """A line per metric: the words that readers know it by, and the value or a dash."""
        width = max(map(len, METRICS.values()))
        values = {name: "-" if math.isnan(v) else f"{v:.3f}" for name, v in self.metrics.items()}
        return "\n".join(f"{METRICS[name]:{width}}  {value}" for name, value in values.items())


def evaluate(maps: Maps, category: Category, masks: Tensor | None = None) -> Evaluation:
    """Measure `maps` of the category's test images exactly, against its masks or other ones.

    The metrics of pixels and instances need no threshold grid and no sampling (`stlib.metrics`). `masks` is
    (M, S, S) bool. Raises ValueError when there are not as many maps as images, or of another size, and
    FloatingPointError for scores that are not finite.

    >>> import stlib
    >>> brick = stlib.load_category(stlib.make_demo(), "brick", image_size=64)
    >>> maps = stlib.Maps(brick.masks[:, None].float(), brick.masks.float(), brick.labels.float())
    >>> print(stlib.evaluate(maps, brick))  # the masks themselves as maps: nothing can be better
    image AUROC    1.000
    image AP       1.000
    pixel AUROC    1.000
    pixel AP       1.000
    best pixel F1  1.000
    AUPRO@0.3      1.000
    IAP            1.000
    IAP@90         1.000
    """
    regions = label_regions(category.masks if masks is None else masks)
    ranking = PixelRanking(maps.pixel, regions)
    return Evaluation(image_metrics(maps.image, category.labels) | pixel_metrics(ranking), ranking)


def observed(category: Category, method: Method, steps: int) -> dict[Metric, float]:
    """A point of the learning curve: the test set's metrics after so many `steps` of the last stage.

    Up to 0 the map is the student's distances alone, where a method tells them apart: its segmentation net
    has learnt nothing yet.
    """
    maps = method.maps(category.test)
    if steps <= 0:
        maps = method.alternatives(maps).get("maps=distances", maps)
    values = _defined(evaluate(maps.to(method.execution.device), category))
    return {name: _round(value) for name, value in values.items()}


def _sensitivity(category: Category, method: Method, maps: Maps) -> dict[str, dict[Metric, float]]:
    """The trained model measured again with one choice changed at a time.

    Only metrics are kept: a ranking holds every pixel of the test set, on the device.
    """
    others = method.alternatives(maps)
    found = {name: _defined(evaluate(other, category)) for name, other in others.items()}
    # the rules 'any' and 'full' are not what they say where masks were resized
    found["masks=80/255"] = _defined(evaluate(maps, category, with_mask_rule(category, "80/255")))
    if half := unseen_indices(category.layout):
        part = Maps(*(tensor[half] for tensor in maps))
        found["test=untouched"] = _defined(evaluate(part, _part(category, half)))
    names = list(method.snapshots)
    for other in names[1:]:
        method.use(other)
        name = other if "=" in other else f"checkpoint={other}"
        again = method.maps(category.test).to(method.execution.device)
        found[name] = _defined(evaluate(again, category))
    if names[1:]:
        method.use(names[0])
    return found


def _defined(found: Evaluation) -> dict[Metric, float]:
    """The metrics that have a value."""
    return {name: value for name, value in found.metrics.items() if not math.isnan(value)}


def _part(category: Category, indices: list[int]) -> Category:
    """The category with some of its test images only."""
    layout = replace(category.layout, test=[category.layout.test[i] for i in indices])
    return replace(category, test=category.test[indices], masks=category.masks[indices], layout=layout)


def _reason(category: Category, metric: Metric) -> str:
    """Why a metric of this category has no value."""
    if not len(category.test):
        return "there are no test images"
    if not category.labels.any():
        return "the test set holds no defective image"
    if metric.startswith("image"):
        return "the test set holds no normal image"
    masked = any(item.mask for item in category.layout.test)
    told = "no mask marks a defective pixel" if masked else "the defective images have no masks"
    return category.layout.mask_gap() or told


def _image_scores(category: Category, scores: Tensor) -> list[ImageScore]:
    items = zip(category.layout.test, scores.tolist(), strict=True)
    return [ImageScore(image=category.layout.name_of(item), score=_round(score)) for item, score in items]


def _round(value: float) -> float:
    """Six significant digits: what float32 scores carry, and files that diff well."""
    return float(f"{value:.6g}")


def rounded(series: Mapping[Name, list[float]]) -> dict[Name, list[float]]:
    """Series as they go into a record: six significant digits."""
    return {name: [_round(value) for value in values] for name, values in series.items()}

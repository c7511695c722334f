"""What a threshold promised and what it kept; tiles are put together to photographs."""

from collections.abc import Iterable

import pandas as pd

from stlib.records.schema import Record
from study.analysis.runs import auroc

TILES = "tiles"
"""The category of `workflow/own_parts.py` whose images are `<part>/<photograph>-<tile>`."""


def photographs(record: Record) -> pd.DataFrame:
    """The test photographs of a run, each image one of them but for tiles.

    `score`, the highest of a photograph, and `defective`, whether any part of it is.
    """
    images = []
    for item in record.image_scores:
        kind, _, name = item.image.partition("/")
        name = name.rpartition(".")[0]
        # a good and a defective image may share a name, tiles of one photograph do
        key = name.rpartition("-")[0] if record.category == TILES else f"{kind}/{name}"
        images.append((key, item.score, kind != "good"))
    return pd.DataFrame(images, columns=["photograph", "score", "defective"]).groupby("photograph").max()


def decisions(records: Iterable[Record]) -> pd.DataFrame:
    """A row per finished run with a threshold, counted in photographs.

    `auroc` of the photographs, `good` and `defective` ones, `false_alarms` and `found` above the threshold;
    `held_out` images behind it, and the share of good images that it lets expect above it, `expected`, with
    its interval, `low` and `high`: of images as the detector sees them, so of tiles where there are tiles;
    the `epoch` of `epochs` that the held-out images chose; `aupro` of the images, and their `image_size`.
    """
    rows: list[dict[str, object]] = []
    for record in records:
        if record.status != "finished" or record.threshold is None or not record.image_scores:
            continue
        shown = photographs(record)
        good, defective = (
            shown.loc[shown["defective"] == side, "score"].to_numpy() for side in (False, True)
        )
        low, high = record.threshold.interval()
        row = {name: getattr(record, name) for name in ("method", "category", "variant", "profile", "seed")}
        row |= {
            "epoch": record.history.selected.get("epoch") if record.history else None,
            "epochs": record.config.get("epochs"),
            "image_size": record.dataset.image_size,
            "trained": record.dataset.train_images - record.threshold.images,
            "auroc": auroc(good, defective),
            "aupro": record.metrics.get("aupro"),
            "good": len(good),
            "defective": len(defective),
            "false_alarms": int((good > record.threshold.value).sum()),
            "found": int((defective > record.threshold.value).sum()),
            "held_out": record.threshold.images,
            "expected": record.threshold.false_alarms,
            "low": low,
            "high": high,
        }
        rows.append(row)
    return pd.DataFrame(rows, dtype=object)


def pooled(frame: pd.DataFrame) -> pd.DataFrame:
    """`decisions` summed over seeds: per `method` and `image_size` a row for the demo, one per own category.

    Of the recipe itself, and of the variant that holds images out of a memory.
    """
    if frame.empty:
        return frame
    named = frame["variant"].str.replace(r",?image_size=\d+$", "", regex=True)
    frame = frame[named.isin(["", "held-out=20%"])]
    what = frame["category"].where(frame["profile"] != "demo", "demo")
    groups = frame.infer_objects().groupby(["method", what.rename("what"), "image_size"], sort=False)
    sums = groups[["good", "defective", "false_alarms", "found"]].sum()
    return sums.join(groups[["auroc", "aupro", "expected"]].mean()).assign(runs=groups.size()).reset_index()

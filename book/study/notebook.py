"""What the cells of notebooks/run.ipynb show: each function is one cell."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from markupsafe import Markup
from matplotlib.figure import Figure

from stlib.data.images import read_image, read_mask
from stlib.methods import get_method
from stlib.methods.training import Execution
from stlib.nn.backbone import load_teacher, prepare
from stlib.paths import ROOT
from stlib.protocol import CATEGORIES, METRICS, PROFILES
from stlib.records.reported import reported
from stlib.records.schema import Record
from stlib.records.store import write_record
from stlib.run.experiment import RunResult, prepare_teacher, run
from stlib.run.fitted import RunFailed
from stlib.run.teacher_cache import Teacher
from study import figures
from study.figures import images
from study.parameters import Plan
from study.tables import table


def recipe(plan: Plan) -> Markup:
    """Everything that the numbers depend on, as a table."""
    spec = plan.spec
    config = get_method(spec.method).recipe(spec.profile, spec.variant).model_dump()
    config |= {f"tuning: {name}": value for name, value in config.pop("tuning", {}).items()}
    teacher = Path(spec.teacher).name
    values: dict[str, object] = {
        "method": get_method(spec.method).title,
        "variant": spec.variant or "as published",
    }
    values |= {"category": spec.category, "seed": spec.seed}
    values |= {"profile": f"{spec.profile}: {PROFILES[spec.profile]}", "teacher": teacher}
    return _pairs(values | {"device": spec.device, "precision": spec.precision} | config, "What is run")


def dataset(plan: Plan) -> Markup:
    """How many images there are of each kind, and what is missing from the official dataset."""
    kinds = Counter(item.defect for item in plan.layout.test)
    counts = {"train/good": len(plan.layout.train)} | {f"test/{kind}": n for kind, n in sorted(kinds.items())}
    gaps = "; ".join(plan.layout.missing_images()) or "none"
    return _pairs(counts | {"gaps": gaps}, f"Images of {plan.layout.category}, {plan.layout.dataset} dataset")


def samples(plan: Plan, side: int = 256) -> Figure:
    """The first training image and the first test image of up to three kinds of defect, outlined."""
    first = {item.defect: item for item in reversed(plan.layout.test) if item.mask is not None}
    items = [first[kind] for kind in sorted(first)[:3]]
    images = [read_image(path, side) for path in [plan.layout.train[0], *(item.image for item in items)]]
    masks = [None, *(read_mask(item.mask, side) for item in items if item.mask)]
    return figures.samples(images, masks, ["train/good", *(f"test/{item.defect}" for item in items)])


def train(plan: Plan) -> RunResult:
    """Train, score and measure. A diverging training leaves a record that says so, and raises RunFailed."""
    try:
        return run(plan.spec, runs=plan.runs, records=plan.records)
    except RunFailed as failure:
        write_record(failure.record, plan.records)
        raise


def train_each(plans: Sequence[Plan]) -> list[RunResult]:
    """`train` for every plan in turn; every record is written as its run ends."""
    results = []
    for plan in plans:
        result = train(plan)
        _keep(plan, result)
        results.append(result)
    return results


def _keep(plan: Plan, result: RunResult) -> Path:
    """Write the record, and beside the checkpoints the maps that a gallery of several methods shows."""
    path = result.save(plan.records)
    category, maps = result.category, result.maps
    names = [f"{item.defect}/{item.image.name}" for item in category.layout.test]
    chosen = images.first_of_each(names)
    kept = images.KeptMaps(
        result.record.method,
        category.fingerprint,
        tuple(names[place] for place in chosen),
        category.test[chosen].permute(0, 2, 3, 1).numpy(),
        category.masks[chosen].numpy(),
        maps.pixel[chosen].numpy(),
    )
    images.write(kept, images.path_of(result.record, plan.runs))
    return path


def gallery(result: RunResult) -> Figure:
    """The test images that `figures.gallery_rows` names, with ground truth and anomaly map."""
    category, maps = result.category, result.maps
    rows = figures.gallery_rows(maps.image.numpy(), category.labels.numpy())
    chosen = list(rows.values())
    items = [category.layout.test[index] for index in chosen]
    return figures.gallery(
        category.test[chosen].permute(0, 2, 3, 1).numpy(),
        category.masks[chosen].numpy(),
        maps.pixel[chosen].numpy(),
        [f"{item.defect}/{item.image.name}" for item in items],
        rows=list(rows),
    )


def teacher_features(plan: Plan) -> Figure:
    """Mean activation per level of the teacher before and after fine-tuning, on the first defective image."""
    spec = plan.spec
    config = get_method(spec.method).recipe(spec.profile, spec.variant)
    if get_method(spec.method).tuning is None:
        raise TypeError(f"{spec.method} does not fine-tune its teacher")
    source = Teacher(*load_teacher(spec.teacher))
    execution = Execution(torch.device(spec.device), spec.precision)
    tuned = prepare_teacher(spec, source, execution, plan.runs)
    item = next(item for item in plan.layout.test if item.mask is not None)
    image = read_image(item.image, config.image_size)
    x = prepare(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
    before, after = (
        [level[0].mean(0).numpy() for level in net(x)] for net in (source.network, tuned.network)
    )
    return figures.feature_maps(image, before, after)


def metrics(record: Record) -> Markup:
    """The run's metrics, each beside the number that is reported for it."""
    known = record.category in CATEGORIES
    asked = {"category": record.category, "variant": record.variant}
    rows = [
        {
            "metric": m,
            "value": record.metrics.get(m),
            "printed": reported(record.method, m, **asked) if known else None,
        }
        for m in METRICS
    ]
    columns = {
        "Metric": "metric|named",
        "This run": "value",
        "Reported": "{{ printed.exact if printed }}",
        "Difference": "{{ (value - printed.number)|signed if printed and value is not none }}",
        "Printed in": "{{ printed.source if printed }}",
    }
    caption = (
        "{{ record.method }}{{ ' ' ~ record.variant if record.variant }}, {{ record.category }}, "
        "seed {{ record.seed }}: "
        "{{ record.labels()|join('; ') or 'full schedule and dataset' }}"
    )
    return table(rows, caption, columns, record=record)


def save(plan: Plan, result: RunResult) -> Markup:
    """Keep the record and say where it is and what it was made from."""
    record, path = result.record, _keep(plan, result)
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    values = {"record": shown, "dataset": record.dataset.fingerprint[:12], "device": record.runtime.device}
    values |= {"teacher": f"{record.teacher.source}, {record.teacher.pyramid_sha256[:12]}"}
    values |= {"training": f"{record.runtime.train_seconds:.0f} s", "torch": record.runtime.versions["torch"]}
    return _pairs(values, "Where the numbers are and what made them")


def _pairs(values: Mapping[str, object], caption: str) -> Markup:
    rows = [{"name": name.replace("_", " "), "value": str(value)} for name, value in values.items()]
    return table(rows, "{{ caption }}", {"Name": "name", "Value": "value"}, caption=caption)

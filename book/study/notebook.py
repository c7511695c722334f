"""What the cells of the notebooks show: each function is one cell."""

import gc
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from IPython.display import display
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stlib.data.mvtec import Category, load_category
from stlib.data.synthesis import AnomalySynthesis
from stlib.data.textures import load_textures
from stlib.methods import get_method
from stlib.methods.training import Execution
from stlib.nn.backbone import load_teacher, prepare
from stlib.nn.maps import Maps, resize
from stlib.paths import ROOT
from stlib.protocol import METRICS, PROFILES, Metric
from stlib.records.schema import Record
from stlib.run.experiment import RunResult
from stlib.run.fit import fit
from stlib.run.fitted import FittedDetector
from stlib.run.teacher_cache import Teacher, prepare_teacher
from study import figures
from study.analysis import paired, runs
from study.analysis.comparison import RunGroup
from study.analysis.reported import METHOD_NAMES, reported
from study.columns import LABELS, PAIRED
from study.maps import choose_maps, first_of_each, path_of_maps, read_maps, write_maps
from study.planned import Plan
from study.tables import named, say, table


def recipe(plan: Plan) -> Markup:
    """Everything that the numbers depend on, as a table."""
    spec = plan.spec
    config = get_method(spec.method).recipe(spec.profile, spec.variant, spec.seed).model_dump()
    config |= {f"tuning: {name}": value for name, value in config.pop("tuning", {}).items()}
    teacher = Path(spec.teacher).name
    values: dict[str, object] = {
        "method": get_method(spec.method).title,
        "variant": spec.variant or "as published",
    }
    values |= {"category": spec.category, "seed": spec.seed}
    values |= {"profile": f"{spec.profile}: {PROFILES[spec.profile]}", "teacher": teacher}
    return _pairs(values | {"device": spec.device, "precision": spec.precision} | config, "What is run")


def dataset(category: Category) -> Markup:
    """How many images there are of each kind, and what is missing from the official dataset."""
    layout = category.layout
    kinds = Counter(item.defect for item in layout.test)
    counts = {"train/good": len(layout.train)} | {f"test/{kind}": n for kind, n in sorted(kinds.items())}
    gaps = "; ".join(layout.missing_images()) or "none"
    return _pairs(counts | {"gaps": gaps}, f"Images of {category.name}, {layout.dataset} dataset")


def samples(category: Category) -> Figure:
    """The first training image and the first test image of up to three kinds of defect, outlined."""
    names = _names(category)
    chosen = [place for place in first_of_each(names) if category.labels[place]][:3]
    pictures = torch.cat([category.train[:1], category.test[chosen]]).permute(0, 2, 3, 1).numpy()
    masks = [None, *(mask if mask.any() else None for mask in category.masks[chosen].numpy())]
    kinds = [names[place].partition("/")[0] for place in chosen]
    return figures.samples(list(pictures), masks, ["train/good", *(f"test/{kind}" for kind in kinds)])


def keep(plan: Plan, detector: FittedDetector, record: Record, maps: Maps) -> Path:
    """Write the record; beside the checkpoints the maps that a picture of several methods shows."""
    path = detector.save_record(record, plan.records)
    shown = _names(detector.category), *_pictures(detector.category)
    layers = resize(maps.layers, maps.pixel.shape[-1])
    kept = choose_maps(record, *shown, maps=maps.pixel.numpy(), layers=layers.numpy())
    write_maps(kept, path_of_maps(record.path, plan.runs))
    return path


def run_each(plans: Sequence[Plan]) -> tuple[RunResult, ...]:
    """The steps of notebooks/run.ipynb for every plan in turn; each record is written as its run ends.

    What is recorded is not run again, but for the last plan. Only its result is returned and kept: one with
    all textures takes a gigabyte. Without plans there is none.
    """
    for plan in plans[:-1]:
        if plan.recorded:
            told = "{{ s.method|named }}{{ ', ' ~ s.variant|named if s.variant }}: recorded, not run again"
            display(say(told, s=plan.spec))  # type: ignore[no-untyped-call]
        else:
            _run(plan)
            gc.collect()  # a detector and what watches its training hold each other
    return tuple(map(_run, plans[-1:]))


def _run(plan: Plan) -> RunResult:
    category = load_category(plan.spec.data, plan.spec.category, image_size=plan.image_size)
    detector = fit(plan.spec.method, category, **plan.options, progress=True)
    result = RunResult.of(detector)
    keep(plan, detector, result.record, result.maps)
    return result


def gallery(category: Category, maps: Maps) -> Figure | Markup:
    """The test images that `figures.gallery_rows` names, with ground truth and anomaly map."""
    rows = figures.gallery_rows(maps.image.numpy(), category.labels.numpy())
    if not rows:
        return say("{{ name }} has no test images to show.", name=category.name)
    chosen = list(rows.values())
    names, (pictures, masks) = _names(category), _pictures(category)
    return figures.gallery(
        pictures[chosen],
        masks[chosen],
        maps.pixel[chosen].numpy(),
        [names[place] for place in chosen],
        rows=list(rows),
    )


def _names(category: Category) -> list[str]:
    return [category.layout.name_of(item) for item in category.layout.test]  # as records name them


def _pictures(category: Category) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(M, S, S, 3) test images and their (M, S, S) masks."""
    return category.test.permute(0, 2, 3, 1).numpy(), category.masks.numpy()


def teacher_features(plan: Plan, category: Category) -> Figure:
    """Mean activation per level of the teacher before and after fine-tuning.

    On the first defective image, or the first of those that there are.
    """
    spec = plan.spec
    source = Teacher(*load_teacher(spec.teacher))
    execution = Execution(torch.device(spec.device), spec.precision)
    tuned = prepare_teacher(spec, source, execution, plan.runs)
    image = torch.cat([category.test[category.labels], category.test, category.train])[:1]
    x = prepare(image)
    before, after = (
        [level[0].mean(0).numpy() for level in net(x)] for net in (source.network, tuned.network)
    )
    return figures.feature_maps(image[0].permute(1, 2, 0).numpy(), before, after)


def metrics(record: Record) -> Markup:
    """The run's metrics, each beside the number that is reported for it."""
    official = record.dataset.name == "MVTec AD"  # own parts may bear a name of its categories
    known = official and record.method in METHOD_NAMES
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


def synthesis(category: Category, count: int = 3) -> Figure:
    """How synthetic anomalies are made, on the first training images, with the demo's textures."""
    textures, _ = load_textures("demo", category.train.shape[-1])
    known = "" if category.layout.dataset == "other" else category.name  # as in a run
    make = AnomalySynthesis(textures, known)
    batch = make(category.train[:count], torch.Generator().manual_seed(0))
    clean, corrupted, texture = (
        part.permute(0, 2, 3, 1).numpy() for part in (batch.clean, batch.corrupted, batch.texture)
    )
    return figures.synthesis(clean, batch.mask.numpy(), texture, corrupted)


def origin(record: Record, path: Path) -> Markup:
    """Where the record is and what it was made from."""
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    values = {"record": shown, "dataset": record.dataset.fingerprint[:12], "device": record.runtime.device}
    values |= {"teacher": f"{record.teacher.source}, {record.teacher.pyramid_sha256[:12]}"}
    values |= {"training": f"{record.runtime.train_seconds:.0f} s", "torch": record.runtime.versions["torch"]}
    return _pairs(values, "Where the numbers are and what made them")


def methods(plans: Sequence[Plan], *, run_missing: bool) -> Markup:
    """The methods that are compared, whether each one's record is there, and how other runs of it differ."""
    columns = {
        "Method": "spec.method|named",
        "Record": "{{ 'is there' if row.recorded else 'is made now' if run_missing else "
        "'is missing: run_missing = True makes it' }}"
        "{{ '; runs of other ' ~ row.others|join(', ') ~ ' are shown, too' if row.others }}",
    }
    return table(plans, _COMPARED, columns, first=plans[0].spec, run_missing=run_missing)


def scores(plans: Sequence[Plan]) -> Markup:
    """The methods' mean scores over the recorded seeds, each above the number that its paper prints."""
    first = plans[0].spec
    official = plans[0].layout.dataset == "MVTec AD"
    rows = runs.means(_recorded(plans), [_group(plan) for plan in plans], first.category, official=official)
    cell = (
        "{{ row.METRIC|score }}{% if printed.get('METRIC') %}<br><small>printed {{ printed.METRIC.exact }}"
        "</small>{% endif %}"
    )
    columns = {"Method": "method|named"}
    columns |= {name: cell.replace("METRIC", metric) for metric, name in METRICS.items()}
    columns |= {"Seeds": "{{ seeds|join(', ') or 'not run' }}"}
    labels = list(dict.fromkeys(rows["labels"].explode().dropna()))
    caption = _COMPARED + ": means over the recorded seeds" + LABELS
    return table(rows, caption, columns, first=first, labels=labels)


def differences(plans: Sequence[Plan], metric: Metric) -> Markup:
    """Every method against every earlier one, on the same images and seeds."""
    records = _recorded(plans)
    found = {
        f"{named(b.method)} minus {named(a.method)}": paired.pairs(records, a, b, metric)
        for a, b in itertools.combinations([_group(plan) for plan in plans], 2)
    }
    if not any(found.values()):
        why = dict.fromkeys(run.undefined[metric] for run in records if metric in run.undefined)
        told = (
            "No two methods have {{ metric|named }} on equal images and seeds"
            "{% for one in why %}; {{ one }}{% endfor %}."
        )
        return say(told, metric=metric, why=why)
    caption = _COMPARED + ": {{ metric|named }}" + LABELS
    return table(paired.frame(found), caption, PAIRED, first=plans[0].spec, metric=metric)


def side_by_side(plans: Sequence[Plan]) -> Figure | Markup:
    """The maps of all methods on the same test images; only runs of this computer have left some."""
    places = [path_of_maps(r.path, p.runs) for p in plans for r in p.runs_recorded() if r.seed == p.spec.seed]
    kept = [maps for place in places if place.is_file() and (maps := read_maps(place)).names]
    return figures.side_by_side(kept) if kept else say("No run of this computer has left maps.")


_COMPARED = "{{ first.category }}, {{ first.profile }} schedule"


def _group(plan: Plan) -> RunGroup:
    return RunGroup(plan.spec.method, plan.spec.variant, plan.spec.profile)


def _recorded(plans: Sequence[Plan]) -> list[Record]:
    return [run for plan in plans for run in plan.runs_recorded()]


def _pairs(values: Mapping[str, object], caption: str) -> Markup:
    rows = [{"name": name.replace("_", " "), "value": str(value)} for name, value in values.items()]
    return table(rows, "{{ caption }}", {"Name": "name", "Value": "value"}, caption=caption)

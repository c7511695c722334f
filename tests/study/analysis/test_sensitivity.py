"""What one changed choice does: which runs count, what is paired, and how it stands beside the claims."""

import numpy as np
import pytest

from study import figures
from study.analysis import claims, sensitivity
from study.analysis.sensitivity import effects, group


def changed(**scores):
    """A sensitivity block with one choice, 'checkpoint=last'."""
    return {"checkpoint=last": scores}


def last(found):
    return {effect.category: effect for effect in found["last epoch"]}


def test_effects_are_means_over_seeds_then_over_categories(make_record):
    runs = [
        make_record("bottle", 0, 0.90, sensitivity=changed(pixel_auroc=0.91)),
        make_record("bottle", 1, 0.80, sensitivity=changed(pixel_auroc=0.83)),
        make_record("grid", 0, 0.70, sensitivity=changed(pixel_auroc=0.66)),
    ]
    found = last(effects(group(runs, "stpm"), "pixel_auroc"))
    assert list(found) == ["grid", "bottle", "mean of 2"]
    assert found["bottle"].change == pytest.approx(0.02)
    assert found["grid"].change == pytest.approx(-0.04)
    mean = found["mean of 2"]
    assert (mean.change, mean.low, mean.high) == pytest.approx((-0.01, -0.04, 0.02))
    assert not mean.seeds  # the range of categories: no interval stands behind it


def test_labelled_runs_stay_apart(make_record):
    runs = [make_record("bottle"), make_record("pill", gaps=["x"]), make_record("grid", profile="short")]
    assert [r.category for r in group(runs, "stpm").runs] == ["bottle"]
    assert [r.category for r in group(runs, "stpm", labelled=True).runs] == ["pill"]


def test_what_cannot_move_a_metric_is_left_out(make_record):
    runs = group([make_record()], "stpm")
    image, pixel = (effects(runs, metric) for metric in ("image_auroc", "pixel_auroc"))
    assert not any(name.startswith("mask") for name in image)
    assert any(name.startswith("mask") for name in pixel)
    assert "score: mean of the 100 largest" in image
    assert "score: mean of the 100 largest" not in pixel
    incomplete = group([make_record(undefined={"image_auroc": "no good image"})], "stpm")
    assert effects(incomplete, "image_auroc") == {}


def test_a_table_has_a_row_for_what_was_run_and_for_the_gains_claimed_of_the_method(make_record):
    runs = group([make_record()], "stpm")
    found = effects(runs, "iap")
    empty = {name for name, some in found.items() if not some}
    assert not empty
    table = sensitivity.overview(runs).set_index("Choice")
    assert not any("PFADSeg over DeSTSeg" in name for name in table.index)  # of other networks
    assert table.loc["claimed: ET-STPM over STPM", "pixel AUROC"].change == pytest.approx(0.007)
    assert table.loc["mask: at least 80 of 255", "image AUROC"] is None
    assert sum(table.index.str.startswith("mask")) == 1  # 'any' and 'full', in every record, are not shown
    assert sensitivity.overview(group([], "stpm")).empty
    labelled = sensitivity.overview(group([make_record(gaps=["x"])], "stpm", labelled=True))
    assert not labelled["Choice"].str.startswith("claimed").any()


def test_a_seed_is_paired_with_the_first_seed_of_the_same_category(make_record):
    runs = [make_record("bottle", s, v) for s, v in ((0, 0.90), (1, 0.93), (2, 0.88))]
    found = effects(group([*runs, make_record("grid", 1, 0.5)], "stpm"), "pixel_auroc")
    assert [e.category for e in found["seed 1 instead of 0"]] == ["bottle", "mean of 1"]
    assert found["seed 1 instead of 0"][-1].change == pytest.approx(0.03)
    assert found["seed 2 instead of 0"][-1].change == pytest.approx(-0.02)
    assert found["seed 2 instead of 0"][-1].seeds


def test_the_other_precision_is_paired_by_category_and_seed(make_record):
    noise = list(0.91 + np.random.default_rng(3).uniform(-0.02, 0.02, 200))
    runs = [
        make_record("bottle", 0, 0.90, spread=0.0),
        make_record("bottle", 1, 0.80),
        make_record("bottle", 0, 0.91, precision="fp32", variant="precision=fp32", bootstrap={"iap": noise}),
        make_record("bottle", 2, 0.10, precision="fp32", variant="precision=fp32"),
    ]
    chosen = group(runs, "stpm")
    assert len(chosen.runs) == 2  # the other precision is no second run of the seed
    mean = effects(chosen, "iap")["trained with precision=fp32"][-1]
    assert mean.change == pytest.approx(0.01)
    assert mean.low < 0 < mean.high  # of the replicates of seed 0 alone


def test_a_variant_in_the_same_precision_changes_nothing_and_is_no_pair(make_record):
    runs = [make_record(), make_record(variant="precision=bf16")]
    assert effects(group(runs, "stpm"), "iap")["trained with precision=bf16"] == []


def test_claims_stand_beside_the_effects(make_record):
    claim = claims.claimed("pixel_auroc", "stpm")
    assert claim == {"ET-STPM over STPM": pytest.approx(0.977 - 0.970)}
    below = make_record(value=0.9, sensitivity=changed(pixel_auroc=0.894))
    above = make_record(value=0.9, sensitivity=changed(pixel_auroc=0.892))

    def against(*runs):
        (found,) = (c for c in sensitivity.against_claims(group(runs, "stpm")) if c.metric == "pixel_auroc")
        return found

    small, large = against(below), against(above)
    assert (small.large, large.large) == ([], ["last epoch"])
    other = make_record("grid", value=0.9, sensitivity=changed(pixel_auroc=0.909))
    both = against(above, other)
    assert both.sizes["last epoch"] == pytest.approx(0.0085)  # though their mean is next to nothing
    assert both.gain == claim["ET-STPM over STPM"]


def test_a_table_per_category_has_every_choice_that_was_run(make_record):
    runs = [make_record("bottle", s, 0.9) for s in (0, 1)] + [make_record("grid", 0, 0.8)]
    table = sensitivity.by_category(group(runs, "stpm"), "pixel_auroc").set_index("Choice").T
    assert list(table.index) == ["grid", "bottle"]
    *read_again, seed = table.loc["grid"]
    assert [effect.change for effect in read_again] == pytest.approx([-0.05] * 3)
    assert seed is None  # grid has no second seed
    assert sensitivity.by_category(group([], "stpm"), "pixel_auroc").empty


def test_the_picture_has_a_mark_per_effect_and_claim(make_record):
    runs = group([make_record("bottle", s, 0.9) for s in (0, 1)], "stpm")
    metrics = ("image_auroc", "pixel_auroc")
    figure = figures.choice_effects(
        {m: effects(runs, m) for m in metrics}, {m: claims.claimed(m, "stpm") for m in metrics}
    )
    panel = figure.axes[1]
    marks = [line.get_marker() for line in panel.lines]
    assert (marks.count("s"), marks.count("o"), marks.count("D")) == (3, 1, 1)
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows[-1] == "ET-STPM over STPM"


def test_readings_show_every_run_and_its_other_maps(make_record):
    runs = [make_record("bottle", 0, 0.9, method=method) for method in ("pfadseg", "destseg")]
    frame = sensitivity.readings(runs, "iap")
    assert [run.method for run in frame["run"]] == ["pfadseg", "destseg"]  # none takes the other's place
    assert frame.iloc[0, 1:].to_dict() == {"as tested": 0.9, "sum of the levels": pytest.approx(0.85)}

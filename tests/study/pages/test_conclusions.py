"""What the conclusions say, on made records."""

import pytest

from study import figures
from study.analysis import claims
from study.pages import conclusions
from study.tables import NOT_RUN


def test_a_level_names_mean_interval_and_every_judged_category(make_record):
    # printed for STPM: bottle 0.988, grid 0.990 pixel AUROC; the tolerance is 0.010
    runs = [make_record("bottle", value=0.988), make_record("grid", value=0.970)]
    text = conclusions.levels_text(runs, "stpm").splitlines()[1]
    source = "arXiv:2512.18219 Table III"
    assert text.startswith(f"- **STPM, pixel AUROC**: 0.970 in {source}. On 2 of 15 categories it is 0.979,")
    assert "beside 0.989 printed for these: **agrees**, provisional." in text
    assert text.endswith("grid lower (-0.020); bottle agrees (0.000).")
    wide = [make_record("grid", value=0.970, spread=0.05)]
    assert (
        conclusions.levels_text(wide, "stpm")
        .splitlines()[1]
        .endswith("grid lower (-0.020, inside the interval).")
    )


def test_labelled_runs_alone_conclude_nothing(make_record):
    runs = [make_record(value=0.9, gaps=["test/good: 0 of 20 images"])]
    text = conclusions.levels_text(runs, "stpm")
    assert text.endswith("Nothing that can be judged; runs with a label: 1.")
    assert conclusions.levels_text([], "stpm").startswith("- **STPM, not run**: image AUROC (0.955 in ")


def test_every_question_has_an_answer(make_record):
    table = conclusions.overview_html([], claims.claim_results([]))
    assert table.count(f"<td>{NOT_RUN}</td>") == 5
    assert table.count("not run") == 5 + len(conclusions.SCORES_COMPARED)
    runs = [make_record(value=0.90, spread=0.0), make_record(value=0.91, spread=0.0, method="et_stpm")]
    table = conclusions.overview_html(runs, claims.claim_results(runs))
    assert "ET-STPM over STPM, pixel AUROC: higher on one seed" in table
    assert "<td>categories: 1; seeds: 1</td>" in table


def test_two_seeds_of_one_method_say_what_chance_does(make_record):
    runs = [make_record(seed=0, value=0.90, spread=0.0), make_record(seed=1, value=0.92, spread=0.0)]
    found = conclusions.chance_pairs(runs, "stpm", "pixel_auroc")
    assert list(found) == ["STPM, seed 1 instead of 0"]
    assert found["STPM, seed 1 instead of 0"][-1].difference == pytest.approx(0.02)


def test_epochs_are_held_against_two(make_record):
    runs = [
        make_record(value=0.90, method="et_stpm", spread=0.0),
        make_record(value=0.93, method="et_stpm", variant="e=10", spread=0.0),
    ]
    lines = conclusions.epochs_text(runs, "pixel_auroc").splitlines()
    assert lines[1] == "- pixel AUROC, **not run**: 1 instead of 2, 3 instead of 2, 5 instead of 2."
    assert lines[0] == (
        "- 10 instead of 2, pixel AUROC: +0.030, 95 % interval +0.030 to +0.030, on bottle: "
        "**higher on one seed** (provisional)."
    )


def test_a_teacher_is_described_by_its_best_epoch(teacher):
    series = {"accuracy": [0.5, 0.9, 0.9], "weight_change_layer3": [0.0, 0.02, 0.03]}
    text = conclusions.teachers_text([teacher.model_copy(update={"curves": series})])
    assert "0.900, is first reached after epoch 1" in text
    assert "changed by 2.0% of the weights' norm, after epoch 2 by 3.0%" in text


def test_modules_stand_beside_the_printed_rows(make_record):
    runs = [
        make_record(value=0.70, method="pfadseg", variant="none", spread=0.0),
        make_record(value=0.75, method="pfadseg", variant="RCM", spread=0.0),
    ]
    first = conclusions.modules_text(runs, "pixel_ap").splitlines()[0]
    assert first.startswith("- none → RCM, pixel AP: the paper prints -0.019; +0.050, 95 % interval")
    measured, printed = conclusions.module_differences(runs, "pixel_ap")
    assert printed["none → control"] is None  # our own row
    assert len(figures.forest(measured, printed).axes[0].get_yticks()) == 6


def test_a_claim_is_drawn_by_category_or_as_printed(make_record):
    runs = [
        make_record(name, value=value, method=method)
        for name, first, second in (("bottle", 0.90, 0.91), ("transistor", 0.80, 0.85))
        for method, value in (("stpm", first), ("et_stpm", second))
    ]
    measured, printed = conclusions.gain_differences(claims.claim_results(runs))
    assert measured["transistor, pixel AUROC"][0].difference == pytest.approx(0.05)
    assert printed["transistor, pixel AUROC"] == pytest.approx(0.869 - 0.825)
    assert printed["mean of 2, pixel AUROC"] == pytest.approx(((0.981 - 0.988) + (0.869 - 0.825)) / 2)
    assert measured["PFADSeg over STPM, pixel AP"] == []
    assert printed["PFADSeg over STPM, pixel AP"] > 0


def test_a_claim_is_told_without_the_category_that_carries_it(make_record):
    runs = [
        make_record(name, value=value, method=method, spread=0.0)
        for name, first, second in (("bottle", 0.90, 0.91), ("grid", 0.90, 0.91), ("transistor", 0.80, 0.70))
        for method, value in (("stpm", first), ("et_stpm", second))
    ]
    text = conclusions.without_largest_text(runs, claims.claim_results(runs))
    assert len(text.splitlines()) == 2  # image and pixel AUROC; nothing else was run
    line = "- ET-STPM over STPM, pixel AUROC, without transistor, which moves the mean most: "
    assert f"{line}the paper prints -0.002 for the others; +0.010, 95 %" in text

"""Claims, the ablation, the teacher's epochs and the schedules, on made records."""

import pandas as pd
import pytest

from stlib.methods import pfadseg
from stlib.protocol import ABLATION_ROWS
from stlib.records.schema import History
from study.analysis import ablation, answers, claims, schedules, teacher_epochs


@pytest.fixture
def et_runs(make_record):
    """STPM and ET-STPM on two categories; the gains differ."""
    return [
        make_record("bottle", 0, 0.90),
        make_record("transistor", 0, 0.80),
        make_record("bottle", 0, 0.91, method="et_stpm"),
        make_record("transistor", 0, 0.85, method="et_stpm"),
    ]


def test_a_claim_stands_beside_the_printed_gain_of_the_same_categories(et_runs):
    image, pixel, *_ = results = answers.gains_found(et_runs)
    assert (image.claim.metric, image.reported_here) == ("image_auroc", None)  # only means are printed
    assert pixel.reported_all == pytest.approx(0.977 - 0.970)
    assert pixel.reported_here == pytest.approx(((0.981 - 0.988) + (0.869 - 0.825)) / 2)
    assert pixel.pairs[-1].difference == pytest.approx(0.03)
    frame = claims.frame(results).set_index("name")
    row = frame.loc["ET-STPM over STPM, pixel AUROC"]
    assert (row["categories"], row["pairs"], row["decision"]) == (2, 2, "too few seeds")
    assert frame.loc["PFADSeg over STPM, IAP", ["decision", "pairs"]].isna().all()


def test_the_claims_of_one_paper_are_adjusted_together(make_record):
    runs = [make_record("bottle", s, 0.90, spread=0.0) for s in range(3)]
    runs += [make_record("bottle", s, 0.91 + s / 500, spread=0.0, method="et_stpm") for s in range(3)]
    image, pixel = (item.pairs for item in answers.gains_found(runs)[:2])
    alone = image[0].p_value  # the category's own; the mean of one category repeats it
    assert [pairs[-1].p_value for pairs in (image, pixel)] == pytest.approx([2 * alone, 2 * alone])
    shown = [teacher_epochs.tested_epochs(runs, runs[3:], m).iloc[-1] for m in ("image_auroc", "pixel_auroc")]
    assert [row["p_value"] for row in shown] == pytest.approx([2 * alone, 2 * alone])
    assert image[-1].claim == pytest.approx(0.971 - 0.955)  # only means are printed
    assert pixel[-1].claim == pytest.approx(0.981 - 0.988)


def test_the_baseline_of_pfadseg_is_the_first_row_of_its_ablation(make_record):
    runs = [
        make_record(value=0.7, method="pfadseg", variant="none"),
        make_record(value=0.8, method="pfadseg"),
    ]
    by_name = {f.claim.name: f for f in answers.gains_found(runs)}
    image = by_name["PFADSeg over DeSTSeg, image AUROC"]
    assert image.reported_all == pytest.approx(0.989 - 0.984)  # the baseline is printed in Table 4 only
    assert image.pairs[-1].difference == pytest.approx(0.1)


def test_the_rows_of_the_ablation_are_the_variants_of_pfadseg():
    assert {v for v in ABLATION_ROWS.values() if v} == set(pfadseg.ROWS)
    assert set(ablation.CHOICES) == set(pfadseg.CHOICES)
    assert {name for step in ablation.STEPS for name in step} <= set(ABLATION_ROWS)


def test_a_row_of_the_ablation_is_a_mean_over_categories_without_labelled_runs(make_record):
    row = {"method": "pfadseg", "variant": "RCM"}
    runs = [make_record("bottle", seed, value, **row) for seed, value in enumerate((0.5, 0.7))]
    runs += [make_record("grid", value=0.9, **row), make_record("plate", dataset="other", value=0.1, **row)]
    runs += [make_record("bottle", 2, 0.0, gaps=["x"], **row)]
    sizes = dict.fromkeys(ABLATION_ROWS, 1)
    found = ablation.rows(runs, "paper", sizes).set_index("label")
    assert found.loc["RCM", list(ablation.COLUMNS)].tolist() == pytest.approx([0.75] * 3)
    assert found.loc["RCM", "runs"] == runs[:3]
    assert found.loc["control", "runs"] == []
    assert pd.isna(found.loc["control", "iap"])
    assert "incomplete dataset: x" not in found.attrs["remarks"]
    # of own parts every run has a label: their table would be empty
    shown = ablation.rows(runs, "paper", sizes, ["plate"], labelled=True)
    assert shown.set_index("label").loc["RCM", "iap"] == 0.1
    assert "other data" in shown.attrs["remarks"]


def test_steps_of_the_ablation_are_printed_but_for_our_own_row():
    printed = ablation.printed_steps("pixel_ap")
    assert printed["no modules → RCM"] == pytest.approx(-0.019)
    assert printed["no modules → control"] is None


def test_scores_against_epochs_start_at_stpm(et_runs):
    frame = teacher_epochs.against_epochs(et_runs, "pixel_auroc")
    bottle = frame[frame["category"] == "bottle"]
    assert list(bottle["epochs"]) == [0, 2]
    assert list(bottle["difference"]) == pytest.approx([0, 0.01])


def test_a_category_without_stpm_is_held_against_its_equal_with_0_epochs(make_record):
    runs = [
        make_record("bottle", value=0.90),
        make_record("grid", value=0.80, method="et_stpm", variant="e=0"),
        make_record("grid", value=0.85, method="et_stpm"),
        make_record("bottle", value=0.92, method="et_stpm"),
        make_record("bottle", value=0.10, method="et_stpm", variant="e=0"),
    ]
    frame = teacher_epochs.against_epochs(runs, "pixel_auroc").set_index(["category", "epochs"])
    assert frame.loc[("grid", 2), "difference"] == pytest.approx(0.05)
    assert frame.loc[("bottle", 2), "difference"] == pytest.approx(0.02)
    (bottle, grid, _) = teacher_epochs.changes(runs, "pixel_auroc")["2 epochs"]
    assert {bottle.category: bottle.difference, grid.category: grid.difference} == pytest.approx(
        {"bottle": 0.02, "grid": 0.05}
    )


def test_the_tested_epoch_can_turn_a_gain_into_a_loss(make_record):
    # pixel AUROC printed for ET-STPM over STPM: bottle -0.007, transistor +0.044
    runs = []
    for name in ("bottle", "transistor"):
        for seed, last in enumerate((0.01, 0.02, -0.09)):
            variant = "teacher=0" if seed else ""
            runs.append(make_record(name, seed, 0.90, spread=0.0, sensitivity=ended(0.90)))
            tuned = {"method": "et_stpm", "variant": variant, "sensitivity": ended(0.90 + last)}
            runs.append(make_record(name, seed, 0.918 + seed / 1000, spread=0.0, **tuned))
    runs.append(make_record("bottle", 1, 0.5, method="et_stpm"))  # with a teacher of its own
    one = teacher_epochs.one_teacher(runs)
    places = [(name, seed) for name in ("bottle", "transistor") for seed in range(3)]
    assert sorted((r.category, r.seed) for r in one) == places
    found = teacher_epochs.tested_epochs(runs, one, "pixel_auroc").set_index("category")
    mean = found.loc["mean of 2"]
    assert (mean["decision"], mean["difference"]) == ("gain", pytest.approx(0.019))
    assert mean["last"] == pytest.approx(-0.02)
    assert mean["last_by_seed"] == pytest.approx([0.01, 0.02, -0.09])
    assert found["claim"].tolist() == pytest.approx([-0.007, 0.044, 0.0185])
    assert found["as_claimed"].tolist() == [False, False, True]
    assert teacher_epochs.tested_epochs(runs, [], "pixel_auroc").empty
    fewer = [r for r in one if (r.category, r.seed) != ("bottle", 2)]  # a mean of the categories' own means
    mean = teacher_epochs.tested_epochs(runs, fewer, "pixel_auroc").set_index("category").loc["mean of 2"]
    assert mean["last"] == pytest.approx((0.015 - 0.02) / 2)
    assert mean["last_by_seed"] == pytest.approx([0.01, 0.02])


def test_fresh_statistics_stand_beside_the_running_ones_where_both_runs_measured_them(make_record):
    names = ("checkpoint=last", "statistics=anew", "statistics=anew,checkpoint=last")
    shown = {"stpm": (0.90, 0.88, 0.91, 0.89), "et_stpm": (0.93, 0.50, 0.93, 0.94)}
    runs = []
    for method, (value, *others) in shown.items():
        read = {name: {"pixel_auroc": other} for name, other in zip(names, others, strict=True)}
        runs.append(make_record("capsule", 1, value, method=method, sensitivity=read))
        runs.append(make_record("capsule", 0, value, method=method, sensitivity=ended(value)))  # before it
    assert runs[2].history is not None
    curves = runs[2].history.curves | {"val_score": [0.02, 0.01, 0.2]}
    runs[2] = runs[2].model_copy(update={"history": runs[2].history.model_copy(update={"curves": curves})})
    tuned = teacher_epochs.epochs_group(2).of(runs)
    found = teacher_epochs.with_statistics_anew(runs, tuned, "pixel_auroc")
    (row,) = found.to_dict("records")
    assert (row.pop("category"), row.pop("seed"), row.pop("jumped")) == ("capsule", 1, ["et_stpm"])
    assert row == pytest.approx({"chosen": 0.03, "last": -0.38, "chosen_anew": 0.02, "last_anew": 0.05})
    assert teacher_epochs.with_statistics_anew(runs[:2], [], "pixel_auroc").empty


@pytest.mark.parametrize(
    ("anew", "closer", "together"),
    [
        ((0.02, 0.01), True, True),
        ((0.04, 0.01), True, False),  # closer, but three times as far apart as at the chosen epoch
        ((0.01, 0.01), True, True),
        ((-0.35, -0.36), False, True),
    ],
)
def test_the_rule_on_what_turns_the_last_epoch_judges_seeds_with_a_jump_and_how_far_the_seeds_lie_apart(
    anew, closer, together
):
    seeds = {"jumped": [["stpm"], []], "chosen": [0.02, 0.01], "last": [-0.3, 0.01], "last_anew": anew}
    other = {"jumped": [[]], "chosen": [0.9], "last": [0.9], "last_anew": [0.9]}  # is not far from itself
    pairs = pd.concat(
        [pd.DataFrame(seeds).assign(category="grid"), pd.DataFrame(other).assign(category="pill")]
    )
    found = teacher_epochs.turned_by_statistics(pairs)
    assert (found["closer"], found["together"]) == (closer, together)
    assert found["apart"]["last"] == pytest.approx(0.31)
    assert teacher_epochs.turned_by_statistics(pairs[~pairs["jumped"].astype(bool)]) == {}  # nothing to turn
    assert teacher_epochs.turned_by_statistics(pairs.iloc[[0, 2]]) == {}  # nor seeds that lie apart


def ended(value):
    return {"checkpoint=last": {"pixel_auroc": value}}


def test_the_sources_of_chance_stand_side_by_side(make_record):
    runs = [make_record("bottle", seed, 0.90) for seed in range(3)]
    runs += [make_record("bottle", s, 0.92 + 0.02 * s, method="et_stpm") for s in range(3)]
    runs += [make_record("bottle", s, 0.92 + 0.01 * s, method="et_stpm", variant="teacher=0") for s in (1, 2)]
    (row,) = teacher_epochs.sources_of_chance(runs, "pixel_auroc").to_dict("records")
    assert (row["one"], row["own"]) == (pytest.approx(0.01), pytest.approx(0.02))
    assert (row["one_seeds"], row["own_seeds"]) == (3, 3)
    assert teacher_epochs.sources_of_chance(runs[:3], "pixel_auroc").empty


def test_both_schedules_stand_beside_the_printed_number(make_record):
    # printed by the authors' README for capsule: 0.985730 pixel AUROC
    runs = [make_record("capsule", s, 0.97 + s / 1000) for s in range(2)]
    assert schedules.schedules(runs).empty
    runs += [make_record("capsule", 0, 0.985, variant="epochs=200")]
    found = schedules.schedules(runs).set_index("metric").loc["pixel_auroc"]
    assert (found["first"], found["second"], found["printed"]) == (0.97, 0.985, 0.985730)
    assert (found["seeds"], found["nearer"], found["decision"]) == ((0,), 200, "too few seeds")
    assert (found["among"], found["among_long"]) == ([0.97, 0.971], [0.985])
    runs += [make_record("pill", variant=name, gaps=["x"]) for name in ("", "epochs=200")]
    labelled = schedules.schedules(runs)
    assert labelled[labelled["category"] == "pill"]["printed"].isna().all()
    assert labelled.attrs["labels"] == ["incomplete dataset: x"]
    level = [make_record("capsule", value=v, variant=n) for v, n in ((0.98, ""), (0.98, "epochs=200"))]
    assert schedules.schedules(level)["nearer"].isna().all()


def test_a_tuned_teacher_and_a_longer_training_are_compared_on_the_same_runs(make_record):
    paper = [make_record(name, value=0.90) for name in ("bottle", "grid")]
    tuned = [make_record(name, value=0.94, method="et_stpm") for name in ("bottle", "grid")]
    assert schedules.tuned_or_longer(paper + tuned).empty
    long = make_record("grid", value=0.93, variant="epochs=200")
    found = schedules.tuned_or_longer([*paper, *tuned, long]).set_index(["metric", "category"])
    row = found.loc["pixel_auroc", "grid"]
    assert (row["short"], row["first"], row["second"]) == (0.90, 0.93, 0.94)
    assert (row["gain"], row["difference"]) == pytest.approx((0.04, 0.01))
    assert "bottle" not in found.index.get_level_values("category")


def test_convergence_is_the_lowest_error_so_far_over_the_lowest_of_all_where_both_methods_were_run(
    make_record,
):
    def trained(method, *errors, **fields):
        history = History(steps=1, images_seen=1, selected={}, curves={"val_score": list(errors)})
        return make_record("grid", method=method, variant="epochs=200", history=history, **fields)

    stpm, tuned = trained("stpm", 8.0, 2.0, 6.0), trained("et_stpm", 3.0, 6.0, 1.0)
    found = schedules.convergence([stpm, tuned, trained("stpm", 1.0, seed=1), make_record("grid")])
    assert found.groupby("method")["ratio"].agg(list).to_dict() == {"stpm": [4, 1, 1], "et_stpm": [3, 3, 1]}
    assert set(found["seed"]) == {0}
    assert schedules.convergence([stpm]).empty


def test_leakage_needs_both_parts_of_the_test_set(make_record):
    half = {"test=untouched": {"pixel_auroc": 0.88}}
    runs = [
        make_record(value=0.90, method="et_stpm", sensitivity=half),
        make_record(
            value=0.95,
            method="et_stpm",
            variant="data=B",
            sensitivity={"test=untouched": {"pixel_auroc": 0.87}},
        ),
        make_record(value=0.95, method="et_stpm", variant="data=C"),
    ]
    found = teacher_epochs.leakage(runs, "pixel_auroc")
    assert list(found["variant"]) == ["B"]
    assert found.iloc[0][["all", "untouched"]].tolist() == pytest.approx([0.05, -0.01])
    leaks = teacher_epochs.leaks(runs[:2], "pixel_auroc")
    assert (leaks["B minus A"][-1].difference, leaks["C minus A"]) == (pytest.approx(0.05), [])


def test_leakage_is_read_from_the_teacher_of_seed_0_where_a_seed_has_none_of_its_own(make_record):
    def run(variant, value):
        half = {"test=untouched": {"pixel_auroc": value}}
        return make_record(seed=1, value=value, method="et_stpm", variant=variant, sensitivity=half)

    runs = [run("teacher=0", 0.90), run("data=B,teacher=0", 0.95)]
    (found,) = teacher_epochs.leakage(runs, "pixel_auroc").to_dict("records")
    assert (found["seed"], found["variant"], found["all"]) == (1, "B", pytest.approx(0.05))
    (found,) = teacher_epochs.leakage([run("", 0.92), *runs], "pixel_auroc").to_dict("records")
    assert found["all"] == pytest.approx(0.05)  # a teacher of its own is no partner of seed 0's
    both = [run("", 0.92), run("data=B", 0.93), *runs]
    (found,) = teacher_epochs.leakage(both, "pixel_auroc").to_dict("records")
    assert found["all"] == pytest.approx(0.01)
    ((pair, _),) = [teacher_epochs.leaks(both, "pixel_auroc")["B minus A"]]
    assert pair.difference == pytest.approx(0.01)


def test_printed_rows_are_counted_category_by_category():
    checked = [claim for claim in claims.CLAIMS if claim.name.startswith("PFADSeg over DeSTSeg")]
    table = claims.printed_wins(checked).set_index("name")
    # by hand from PFADSeg's Table 2: seven categories higher, eight lower; image AUROC has no rows
    row = table.loc["PFADSeg over DeSTSeg, pixel AP"]
    assert row[["higher", "equal", "lower"]].tolist() == [7, 0, 8]
    means = row[["textures", "objects", "without_best"]].tolist()
    assert means == pytest.approx([0.0324, -0.0084, -0.0034], abs=1e-4)
    assert row[["best", "worst"]].tolist() == ["carpet", "transistor"]
    assert row["p_value"] > table["p_value"].min()
    assert not table.index.str.contains("image AUROC").any()


def test_rows_are_compared_at_the_steps_that_both_were_watched_at(make_record):
    def watched(variant, scores, **changes):
        curve = {step: {"pixel_ap": score} for step, score in scores.items()}
        past = History(steps=4, images_seen=4, selected={}, curves={}, learning_curve=curve)
        return make_record(method="pfadseg", variant=variant, history=past, **changes)

    runs = [
        watched("none", {0: 0.2, 2: 0.5, 3: 0.9, 4: 0.6}),
        watched("", {0: 0.1, 2: 0.4, 4: 0.7}),
        watched("", {0: 0.3}, seed=1),  # its row 1 was not run
        watched("none", {0: 0.3}, profile="short"),
    ]
    seen = ablation.along_training(runs, "pixel_ap")
    assert seen["step"].tolist() == [0, 2, 4]
    assert seen["difference"].tolist() == pytest.approx([-0.1, -0.1, 0.1])
    assert set(seen["seed"]) == {0}
    assert ablation.sides(seen) == {"above and below": ["bottle, seed 0"]}
    assert ablation.sides(seen[seen["step"] < 4]) == {"below": ["bottle, seed 0"]}
    assert ablation.sides(seen[seen["step"] == 4].assign(seed=2)) == {"above": ["bottle, seed 2"]}
    assert ablation.along_training([], "pixel_ap").empty
    assert ablation.moved_together(seen).empty  # these runs end before a score should have come to rest


def test_rows_that_moved_together_are_pairs_and_their_last_change_counts():
    steps = [0, 2000, 3000, 4000] * 2
    along = pd.DataFrame({"category": "pill", "seed": [0] * 4 + [1] * 4, "step": steps})
    along = along.assign(
        none=[0, 0.4, 0.5, 0.3, 0, 0.1, 0.1, 0.2], whole=[0, 0.4, 0.6, 0.5, 0, 0.2, 0.5, 0.1]
    )
    both = ablation.moved_together(along)
    assert both[["category", "seed"]].values.tolist() == [["pill", 0], ["pill", 1]]
    assert both["none"].tolist() == pytest.approx([-0.2, 0.1])
    assert both["whole"].tolist() == pytest.approx([-0.1, -0.4])


def test_rows_of_the_ablation_are_means_over_the_same_categories_and_seeds(make_record):
    def run(variant, seed, value):
        return make_record("grid", seed, value, method="pfadseg", variant=variant)

    none = [run("none", seed, value) for seed, value in enumerate((0.2, 0.9))]
    found = ablation.rows([*none, run("", 0, 0.3)], "paper", dict.fromkeys(ABLATION_ROWS, 1)).set_index(
        "label"
    )
    assert found.loc["none", "iap"] == 0.2  # the mean of both would lie above all modules
    assert found.loc["none", "runs"] == none[:1]
    assert found.attrs["beside"] == {"none": none[1:]}
    fp32 = make_record("grid", 0, 0.3, method="pfadseg", variant="RCM", precision="fp32")
    unlike = ablation.rows([*none, run("", 0, 0.3), fp32], "paper", dict.fromkeys(ABLATION_ROWS, 1))
    assert unlike.attrs["left_out"] == [("grid", 0)]  # nor are two precisions held against each other
    apart = ablation.rows([none[1], run("", 0, 0.3)], "paper", dict.fromkeys(ABLATION_ROWS, 1))
    assert apart.attrs["beside"] == {}  # nothing is shared: every row shows what it has


def test_what_two_precisions_leave_out_is_told(make_record):
    runs = [
        make_record(name, method="pfadseg", variant=variant, precision=precision)
        for name, other in (("pill", "bf16"), ("grid", "fp32"))
        for variant, precision in (("none", other), ("", "fp32"))
    ]
    ((base, whole),) = ablation.unpaired(runs)
    assert (base.category, base.precision, whole.precision) == ("pill", "bf16", "fp32")
    steps = ablation.steps(runs, "iap", "paper")["no modules → all modules"]
    assert [pair.category for pair in steps[:-1]] == ["grid"]
    rows = ablation.rows(runs, "paper", dict.fromkeys(ABLATION_ROWS, 1))  # in which eyes compare the rows
    assert {run.category for group in rows["runs"] for run in group} == {"grid"}
    assert rows.attrs["left_out"] == [("pill", 0)]


def test_a_late_change_is_the_last_thousand_steps(make_record):
    scores = {0: 0.2, 1000: 0.9, 2000: 0.6, 3000: 0.7, 4000: 0.55}
    curve = {step: {"iap": score} for step, score in scores.items()}
    past = History(steps=7000, images_seen=4, selected={}, curves={}, learning_curve=curve)
    short = past.model_copy(update={"learning_curve": {0: {"iap": 0.1}, 300: {"iap": 0.2}}})
    runs = [make_record(method="destseg", history=history) for history in (past, short)]
    choice = make_record(method="pfadseg", variant="none+zero-init", history=past)
    changes = ablation.late_changes([*runs, choice, make_record()], "iap")
    (seen,) = changes[["before", "last", "change", "apart", "spread"]].values.tolist()
    assert seen == pytest.approx([0.7, 0.55, -0.15, 1000, 0.15])

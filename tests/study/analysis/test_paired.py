"""Differences of paired runs: which runs are paired, what the interval covers, and the answer."""

from dataclasses import replace

import numpy as np
import pytest

from study.analysis.comparison import RunGroup
from study.analysis.paired import adjusted, frame, match_runs, pairs
from study.analysis.sensitivity import other_seeds

FIRST, SECOND = RunGroup("stpm"), RunGroup("et_stpm")


def test_only_runs_with_the_same_category_seed_and_data_are_paired(make_record):
    runs = [
        make_record("bottle", 0),
        make_record("bottle", 1),
        make_record("bottle", 0, method="et_stpm"),
        make_record("grid", 0),
        make_record("grid", 1, method="et_stpm"),
        make_record("pill", 0),
        make_record("pill", 0, method="et_stpm", status="failed"),
    ]
    found = pairs(runs, FIRST, SECOND, "pixel_auroc")
    assert [(p.category, p.seeds) for p in found] == [("bottle", (0,)), ("mean of 1", (0,))]
    other = runs[2].model_copy(
        update={"dataset": runs[2].dataset.model_copy(update={"fingerprint": "f" * 64})}
    )
    assert pairs([runs[0], other], FIRST, SECOND, "pixel_auroc") == []


def test_the_difference_is_second_minus_first(make_record):
    runs = [make_record("bottle", s, 0.90 + 0.01 * s) for s in (0, 1)]
    runs += [make_record("bottle", s, 0.95 + 0.01 * s, method="et_stpm") for s in (0, 1)]
    pair = pairs(runs, FIRST, SECOND, "pixel_auroc")[0]
    assert (pair.first, pair.second) == (pytest.approx(0.905), pytest.approx(0.955))
    assert pair.difference == pytest.approx(0.05)


def test_shared_noise_of_the_test_images_cancels(make_record):
    # both sides hold the same noise of +-0.2: unpaired, a gain of 0.01 would drown in it
    runs = [make_record(value=0.7, spread=0.2), make_record(value=0.71, spread=0.2, method="et_stpm")]
    pair = pairs(runs, FIRST, SECOND, "pixel_auroc")[0]
    assert (pair.low, pair.high) == (pytest.approx(0.01), pytest.approx(0.01))


@pytest.mark.parametrize(("shift", "answer"), [(0.02, "gain"), (-0.02, "loss"), (0.0, "inconclusive")])
def test_the_answer_follows_from_the_interval_and_needs_three_seeds(make_record, shift, answer):
    noise = {"pixel_auroc": list(0.9 + shift + np.random.default_rng(5).uniform(-0.01, 0.01, 200))}
    runs = [make_record(seed=s, value=0.9, spread=0.0) for s in range(3)]
    runs += [make_record(seed=s, value=0.9 + shift, method="et_stpm", bootstrap=noise) for s in range(3)]
    pair = pairs(runs, FIRST, SECOND, "pixel_auroc")[0]
    assert pair.decision == answer
    # the replicates' own standard deviation, and Student's t with their 199 degrees of freedom
    half = 1.972 * np.std(noise["pixel_auroc"], ddof=1)
    assert (pair.low, pair.high) == pytest.approx((shift - half, shift + half), abs=1e-5)
    for few in (runs[:2] + runs[3:5], runs[::3]):
        assert pairs(few, FIRST, SECOND, "pixel_auroc")[0].decision == "too few seeds"


@pytest.mark.parametrize(
    ("claim", "answer", "held"),
    [(None, "inconclusive", None), (0.005, "inconclusive", True), (0.03, "not as claimed", False)],
)
def test_a_claim_that_the_interval_does_not_hold_is_told(make_record, claim, answer, held):
    runs = [make_record("bottle", s, 0.9, spread=0.0) for s in range(3)]
    gains = (0.003, -0.003, 0.001)
    runs += [make_record("bottle", s, 0.9 + gains[s], spread=0.0, method="et_stpm") for s in range(3)]
    pair = replace(pairs(runs, FIRST, SECOND, "pixel_auroc")[0], claim=claim)
    assert (pair.decision, pair.as_claimed) == (answer, held)
    assert replace(pair, low=0.001, p_value=0.01).decision == "gain"  # smaller than claimed, but there
    assert replace(pair, seeds=(0, 1)).as_claimed is None


def test_a_family_of_claims_is_adjusted_for_those_that_can_be_tested(make_record):
    runs = [make_record("bottle", s, 0.9, spread=0.0) for s in range(3)]
    runs += [make_record("bottle", s, 0.91 + s / 1000, spread=0.0, method="et_stpm") for s in range(3)]
    pair = pairs(runs, FIRST, SECOND, "pixel_auroc")[0]
    few = replace(pair, seeds=(0,), p_value=1e-9)
    found = adjusted([replace(pair, p_value=0.03), few, replace(pair, p_value=0.02)])
    assert [one.p_value for one in found] == pytest.approx([0.04, 1e-9, 0.04])
    assert [one.decision for one in found] == ["gain", "too few seeds", "gain"]
    assert adjusted([replace(pair, p_value=0.03)] * 2)[0].decision == "inconclusive"


def test_seeds_that_disagree_widen_the_interval(make_record):
    runs = [make_record("bottle", s, 0.9, spread=0.0) for s in range(3)]
    gains = (0.05, 0.05, -0.05)
    runs += [make_record("bottle", s, 0.9 + gains[s], spread=0.0, method="et_stpm") for s in range(3)]
    pair = pairs(runs, FIRST, SECOND, "pixel_auroc")[0]
    assert pair.low < 0 < pair.high  # without chance in the training the interval would be a point


def test_the_mean_covers_the_paired_categories_only(make_record):
    runs = [make_record(c, 0, v) for c, v in (("bottle", 0.9), ("grid", 0.8), ("pill", 0.1))]
    runs += [make_record(c, 0, v, method="et_stpm") for c, v in (("bottle", 0.92), ("grid", 0.86))]
    *_, mean = pairs(runs, FIRST, SECOND, "iap")
    assert mean.category == "mean of 2"
    assert mean.difference == pytest.approx(0.04)


def test_labels_come_along(make_record):
    runs = [make_record(gaps=["test/good: 0 of 12 images"]), make_record(method="et_stpm")]
    assert pairs(runs, FIRST, SECOND, "iap")[0].labels == ("incomplete dataset: test/good: 0 of 12 images",)


def test_conditions_that_the_sides_do_not_share_are_told(make_record):
    runs = [make_record(), make_record(method="et_stpm", precision="fp32")]
    pair = pairs(runs, FIRST, SECOND, "iap")[0]
    assert pair.labels == ("the sides trained in different precisions",)
    named = runs[0].teacher.model_copy(update={"source": "other.pth"})
    other = make_record(method="et_stpm").model_copy(update={"teacher": named})
    told = "the sides had different teachers' files"
    assert pairs([runs[0], other], FIRST, SECOND, "iap")[0].labels == (told,)
    on_gpu = runs[0].runtime.model_copy(update={"device": "NVIDIA H100"})
    other = runs[1].model_copy(update={"runtime": on_gpu, "precision": "bf16"})
    assert pairs([runs[0], other], FIRST, SECOND, "iap")[0].labels == ("the sides ran on a CPU and a GPU",)


def test_a_method_that_precision_moves_is_paired_in_one_arithmetic_only(make_record):
    def made(method, device, precision, variant="", seed=0):
        run = make_record(method=method, precision=precision, variant=variant, seed=seed)
        return run.model_copy(update={"runtime": run.runtime.model_copy(update={"device": device})})

    def paired(method, first, second):
        runs = [made(method, *first), made("pfadseg" if method == "stpm" else method, *second, "RCM")]
        return bool(pairs(runs, RunGroup(method), RunGroup(runs[1].method, "RCM"), "iap"))

    cpu, gpu = "CPU, test", "NVIDIA H100"
    for method in ("destseg", "pfadseg", "stpm"):  # stpm against pfadseg, the others against themselves
        assert not paired(method, (cpu, "bf16"), (gpu, "bf16"))
        assert not paired(method, (gpu, "bf16"), (cpu, "bf16"))
        assert paired(method, (gpu, "bf16"), (gpu, "bf16"))
        assert paired(method, (cpu, "fp32"), (gpu, "fp32"))
        for others in (((cpu, "bf16"), (gpu, "tf32")), ((cpu, "fp32"), (cpu, "bf16"))):
            assert paired(method, *others) == (method == "stpm")  # one side only: told in a label
    bf16, fp32 = ([made("pfadseg", cpu, precision)] for precision in ("bf16", "fp32"))
    assert len(match_runs(bf16, fp32, other_precision=True)) == 1
    seeds = other_seeds([made("pfadseg", cpu, "bf16"), made("pfadseg", gpu, "bf16", seed=1)], "iap")
    assert list(seeds.values()) == [[]]
    two = [made("stpm", cpu, "bf16"), made("et_stpm", gpu, "bf16")]
    assert pairs(two, FIRST, SECOND, "iap")[0].labels == ("the sides ran on a CPU and a GPU",)


def test_runs_are_matched_by_category_and_seed_or_by_category_alone(make_record):
    first = [make_record("pill", 1), make_record("bottle", 0), make_record("grid", 0, status="failed")]
    second = [make_record(r.category, r.seed, method="et_stpm") for r in (*first, first[1])]
    found = match_runs(first, second)
    assert [(a.category, a.seed, b.method) for a, b in found] == [
        ("bottle", 0, "et_stpm"),
        ("pill", 1, "et_stpm"),
    ]
    assert found[0][1] is second[-1]  # the last of several in one place
    again = [make_record("bottle", 1), make_record("pill", 2, bootstrap={})]
    assert [(a.seed, b.seed) for a, b in match_runs(first, again, other_seed=True)] == [(0, 1), (1, 2)]
    assert [b.seed for _, b in match_runs(first, again, "iap", other_seed=True)] == [1]


def test_a_frame_has_a_row_per_pair_and_none_for_what_was_not_run(make_record):
    runs = [make_record(value=0.9, gaps=["x"]), make_record(value=0.95, method="et_stpm")]
    both = {"a": pairs(runs, FIRST, SECOND, "iap"), "b": []}
    found = frame(both)
    assert list(found["name"]) == ["a"]  # with one category the mean repeats it
    assert list(found["decision"]) == ["too few seeds"]
    assert found.attrs["labels"] == ["incomplete dataset: x"]
    assert frame({"a": []}).empty

"""Differences of paired runs: which runs are paired, what the interval covers, and the answer."""

import numpy as np
import pytest

from study.analysis.paired import RunGroup, behind, frame, match_runs, pairs
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
    assert pair.decision == "higher on one seed"


@pytest.mark.parametrize(
    ("shift", "one", "two"),
    [
        (0.02, "higher on one seed", "gain"),
        (-0.02, "lower on one seed", "loss"),
        (0.0, "no difference to be seen", "no difference to be seen"),
    ],
)
def test_the_answer_follows_from_the_interval_and_needs_two_seeds(make_record, shift, one, two):
    noise = {"pixel_auroc": list(0.9 + shift + np.random.default_rng(5).uniform(-0.01, 0.01, 200))}
    runs = [make_record(seed=s, value=0.9, spread=0.0) for s in (0, 1)]
    runs += [make_record(seed=s, value=0.9 + shift, method="et_stpm", bootstrap=noise) for s in (0, 1)]
    pair = pairs(runs, FIRST, SECOND, "pixel_auroc")[0]
    assert pair.decision == two
    assert pair.provisional
    assert pairs(runs[::2], FIRST, SECOND, "pixel_auroc")[0].decision == one


def test_seeds_that_disagree_widen_the_interval(make_record):
    runs = [make_record("bottle", s, 0.9, spread=0.0) for s in range(3)]
    gains = (0.05, 0.05, -0.05)
    runs += [make_record("bottle", s, 0.9 + gains[s], spread=0.0, method="et_stpm") for s in range(3)]
    pair = pairs(runs, FIRST, SECOND, "pixel_auroc")[0]
    assert pair.low < 0 < pair.high  # without drawing seeds again the interval would be a point
    assert not pair.provisional


@pytest.mark.parametrize("seeds", [2, 3])
def test_chance_in_the_training_is_rarely_called_a_gain(make_record, seeds):
    # no true difference and no noise of the images: one in twenty may be called one, by luck
    random = np.random.default_rng(1)
    called = 0
    for _ in range(100):
        shifts = random.normal(0, 0.01, seeds)
        runs = [make_record(seed=s, value=0.8, spread=0.0) for s in range(seeds)]
        runs += [
            make_record(seed=s, value=0.8 + shift, spread=0.0, method="et_stpm")
            for s, shift in enumerate(shifts)
        ]
        called += pairs(runs, FIRST, SECOND, "iap")[0].decision != "no difference to be seen"
    assert called <= 12  # the plain bootstrap over seeds: half of them with two, a third with three


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


def test_bf16_of_a_cpu_and_of_a_gpu_is_paired_only_where_it_is_one_arithmetic(make_record):
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
        assert paired(method, (cpu, "bf16"), (gpu, "tf32"))  # other words, which the labels tell
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


def test_a_frame_has_a_row_per_pair_and_one_for_what_was_not_run(make_record):
    runs = [make_record(value=0.9, gaps=["x"]), make_record(value=0.95, method="et_stpm")]
    both = {"a": pairs(runs, FIRST, SECOND, "iap"), "b": []}
    found = frame(both)
    assert list(found["name"]) == ["a", "b"]  # with one category the mean repeats it
    assert list(found["decision"].fillna("-")) == ["higher on one seed", "-"]
    assert found.attrs["labels"] == ["incomplete dataset: x"]
    assert behind(both) == ({1}, {1}, True)
    assert frame({"a": []}).empty

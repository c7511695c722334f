"""The first page's answers: which runs stand behind them, and what settles nothing."""

import pytest

from study.analysis.answers import answers, first


def of(found, method, metric="pixel_auroc", kind="gain"):
    (one,) = (a for a in found if (a.method, a.metric, a.kind) == (method, metric, kind))
    return one


def test_without_runs_only_the_papers_own_rows_have_an_answer():
    found = answers([])
    assert [(a.method, a.status) for a in found if a.status] == [("pfadseg", "contradicted")]
    assert of(found, "pfadseg", "pixel_ap", "rows").higher == 7
    assert len(first(found)) == 8


def test_a_claim_with_runs_is_never_left_out(make_record):
    runs = [make_record(seed=seed, method="pfadseg") for seed in range(3)]
    shown = first(answers(runs), 3)
    assert of(shown, "pfadseg", "iap", "level").status


def test_a_gain_is_read_from_whichever_teachers_give_more_pairs(make_record):
    stpm = [make_record(seed=seed, value=0.97) for seed in range(3)]
    own = make_record(method="et_stpm", value=0.98)
    shared = [make_record(seed=seed, method="et_stpm", variant="teacher=0", value=0.98) for seed in (1, 2)]
    alone = of(answers([*stpm, own]), "et_stpm")
    assert (alone.seeds, alone.one_teacher, alone.status) == (1, False, "open")
    together = of(answers([*stpm, own, *shared]), "et_stpm")
    assert (together.seeds, together.one_teacher) == (3, True)
    assert together.here == pytest.approx(together.last)  # the factory gives all scores one distance


def test_labelled_runs_settle_nothing(make_record):
    runs = [
        make_record(seed=seed, method=method, value=value, gaps=["x"])
        for seed in range(3)
        for method, value in (("stpm", 0.9), ("et_stpm", 0.95))
    ]
    found = answers(runs)
    assert of(found, "et_stpm").status == "open"
    assert of(found, "stpm", kind="level").status == "open"
    assert of(found, "stpm", kind="level").here is None

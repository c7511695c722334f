"""What is counted of a run's threshold, in photographs."""

import pytest

from stlib.decision import threshold_from
from stlib.records.schema import ImageScore
from study.analysis.decisions import decisions, pooled


@pytest.fixture
def run(make_record):
    def make(category, scores, seed=0, **fields):
        images = [ImageScore(image=name, score=score) for name, score in scores.items()]
        limit = threshold_from([0.1, 0.2, 0.3, 0.5])
        return make_record(category, seed, dataset="other", image_scores=images, threshold=limit, **fields)

    return make


WHOLE = {"good/a/0.jpg": 0.2, "good/b/0.jpg": 0.6, "dent/a/0.jpg": 0.4, "dent/c/1.jpg": 0.9}
TILES = {"good/a/0-0.png": 0.6, "good/a/0-1.png": 0.2, "good/c/1-0.png": 0.1, "dent/c/1-1.png": 0.4}


def test_a_photograph_is_anomalous_above_the_threshold(run):
    (row,) = decisions([run("part", WHOLE)]).to_dict("records")
    assert (row["good"], row["defective"], row["false_alarms"], row["found"]) == (2, 2, 1, 1)
    assert (row["auroc"], row["held_out"], row["expected"]) == (0.75, 4, pytest.approx(0.2))


def test_tiles_count_as_the_photograph_that_they_are_of(run):
    (row,) = decisions([run("tiles", TILES)]).to_dict("records")
    assert (row["good"], row["defective"], row["false_alarms"], row["found"]) == (1, 1, 1, 0)
    assert row["auroc"] == 0


def test_runs_without_a_threshold_and_variants_are_left_out_and_seeds_are_summed(run, make_record):
    longer = [run("part", WHOLE, variant=name) for name in ("epochs=200", "epochs=200,image_size=512")]
    frame = decisions([make_record(), run("part", WHOLE), run("part", WHOLE, seed=1), *longer])
    (row,) = pooled(frame).to_dict("records")
    assert (row["what"], row["runs"], row["good"], row["false_alarms"]) == ("part", 2, 4, 2)
    assert pooled(decisions([])).empty


@pytest.mark.parametrize("held_out", [False, True])
def test_larger_images_are_counted_apart(run, held_out):
    named = ["held-out=20%", "held-out=20%,image_size=512"] if held_out else ["", "image_size=512"]
    small, large = (run("part", WHOLE, variant=name) for name in named)
    large = large.model_copy(update={"dataset": large.dataset.model_copy(update={"image_size": 512})})
    rows = pooled(decisions([small, large])).to_dict("records")
    assert [(row["image_size"], row["runs"]) for row in rows] == [(256, 1), (512, 1)]

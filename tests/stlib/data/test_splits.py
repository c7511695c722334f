"""Which test images a fine-tuning sees, and which stay untouched."""

from pathlib import Path

import pytest
import torch
from sklearn.model_selection import train_test_split

from stlib.data import layout as layouts
from stlib.data.layout import Layout
from stlib.data.splits import seen_anomalies, split_train, unseen_indices
from stlib.protocol import CATEGORIES


def layout(good: int, cracked: int, dented: int = 0) -> Layout:
    """Files that need not exist: only their names are read."""

    def items(defect: str, count: int) -> list[layouts.TestItem]:
        return [layouts.TestItem(Path(f"test/{defect}/{i:03}.png"), defect, None) for i in range(count)]

    test = [*items("cracked", cracked), *items("dented", dented), *items("good", good)]
    return Layout("plate", Path(), [Path("train/good/000.png")], test)


ANOMALIES = [(0, 0, 0), (1, 0, 1), (2, 0, 1), (2, 1, 2), (5, 3, 4), (40, 33, 37)]


@pytest.mark.parametrize(("cracked", "dented", "half"), ANOMALIES)
def test_a_sees_no_test_image_b_half_of_the_anomalous_ones_rounded_up_and_c_all(
    cracked: int, dented: int, half: int
):
    where = layout(9, cracked, dented)
    anomalous = [item for item in where.test if item.defect != "good"]
    seen = seen_anomalies(where, "B")
    assert seen == [item for item in anomalous if item in seen]  # none good, none twice, in order
    assert len(seen) == half
    assert (seen_anomalies(where, "A"), seen_anomalies(where, "C")) == ([], anomalous)


@pytest.mark.parametrize(("cracked", "dented", "half"), ANOMALIES)
def test_untouched_is_what_b_does_not_see_every_good_image_included(cracked: int, dented: int, half: int):
    where = layout(9, cracked, dented)
    left = [where.test[i] for i in unseen_indices(where)]
    seen = seen_anomalies(where, "B")
    assert sorted(unseen_indices(where)) == unseen_indices(where)
    assert {item.image for item in left} | {item.image for item in seen} == {i.image for i in where.test}
    assert len(left) == len(where.test) - half
    assert sum(item.defect == "good" for item in left) == 9


def test_the_half_is_random_but_always_the_same():
    torch.manual_seed(99)  # the caller's random state must not matter
    names = [item.image.stem for item in seen_anomalies(layout(2, 12), "B")]
    assert names == ["000", "004", "005", "007", "008", "009"]
    assert {item.defect for item in seen_anomalies(layout(2, 20, 20), "B")} == {"cracked", "dented"}


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.25, 0.5])
@pytest.mark.parametrize("seed", [0, 7])
def test_the_split_is_scikit_learns_at_any_size(fraction: float, seed: int):
    official = (category.train_good for category in CATEGORIES.values())
    for count in (*range(2, 60), *official):
        expected = train_test_split(range(count), test_size=fraction, random_state=seed)
        assert list(split_train(count, fraction=fraction, seed=seed)) == expected


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_to_hold_one_out_are_refused(count: int):
    with pytest.raises(
        ValueError, match=f"train/good holds {count} image: one to learn from and one to hold"
    ):
        split_train(count)

"""The queue lists what is missing, most useful first."""

from stlib.protocol import CATEGORIES, SEEDS_FOR_A_VERDICT
from stlib.study.queue import METHODS, Cell, missing, queue_text
from stlib.study.records import Record


def record(category: str, seed: int, **changes: object) -> Record:
    """The few fields that the queue reads."""
    fields = {"method": "stpm", "variant": "", "category": category, "seed": seed, "profile": "paper"}
    return Record.model_construct(**{**fields, "status": "finished", **changes})


def test_everything_is_missing_at_first() -> None:
    assert len(missing([])) == len(METHODS) * len(CATEGORIES) * SEEDS_FOR_A_VERDICT


def test_images_at_hand_come_first_and_first_seeds_before_others() -> None:
    cells = missing([], at_hand=["zipper", "pill"])
    assert [(cell.category, cell.seed) for cell in cells[:4]] == [
        ("pill", 0),
        ("zipper", 0),
        ("pill", 1),
        ("zipper", 1),
    ]
    assert [cell.seed for cell in cells[6:]] == sorted(cell.seed for cell in cells[6:])


def test_only_a_finished_run_at_the_paper_schedule_counts() -> None:
    records = [record("pill", 0), record("grid", 0, status="failed"), record("wood", 0, profile="short")]
    left = missing(records)
    assert Cell("stpm", "pill", 0) not in left
    assert {Cell("stpm", "grid", 0), Cell("stpm", "wood", 0), Cell("stpm", "pill", 1)} <= set(left)


def test_the_text_counts_and_gives_commands() -> None:
    text = queue_text([record("pill", 0)], at_hand=["grid"])
    assert "1 of 45 wanted runs are recorded" in text
    assert "| 1 | stpm | grid | 0 | yes | `stlib run stpm grid --seed 0 --profile paper` |" in text
    assert "`stlib run stpm pill --seed 0" not in text

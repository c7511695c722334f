"""The cost of the missing runs, by hand."""

import pytest

from stlib.records.schema import Record, Runtime
from study.plan.estimate import estimate, total
from study.plan.grid import Cell

MISSING = [Cell("stpm", "pill", 0), Cell("stpm", "grid", 0), Cell("pfadseg", "pill", 0, "RCM")]


@pytest.fixture
def made(make_record):
    """A record of given duration and device."""

    def make(device: str, train: float, threads: int = 1, **fields: object) -> Record:
        record = make_record(**fields)
        runtime = record.runtime.model_dump() | {
            "device": device,
            "train_seconds": train,
            "evaluate_seconds": 10.0,
            "threads": threads,
        }
        update = {"runtime": Runtime.model_validate(runtime), "config": fields.get("config", {"steps": 7000})}
        return record.model_copy(update=update)

    return make


def test_without_records_everything_is_unknown():
    costs = estimate(MISSING, [])
    assert [(c.method, c.processor, c.runs, c.seconds, c.hours) for c in costs] == [
        ("stpm", "GPU", 2, None, None),
        ("stpm", "CPU", 2, None, None),
        ("pfadseg", "GPU", 1, None, None),
        ("pfadseg", "CPU", 1, None, None),
    ]
    assert total(costs, "GPU") == (0.0, 3)


def test_the_median_of_the_records_times_the_runs(made):
    records = [
        made("NVIDIA H100", 170.0, threads=16),
        made("NVIDIA H100", 350.0, threads=16),
        made("NVIDIA H100", 9990.0, threads=16),
        made("CPU, AMD EPYC", 1790.0, threads=4),
    ]
    gpu, cpu, *rest = estimate(MISSING, records)
    assert gpu.seconds == 360.0
    assert gpu.hours == pytest.approx(2 * 360 / 3600)  # one GPU, whatever the number of threads
    assert gpu.source == "3 records on NVIDIA H100, bf16"
    assert cpu.seconds == 1800.0
    assert cpu.hours == pytest.approx(2 * 1800 * 4 / 3600)  # four cores
    assert cpu.source == "1 record on CPU, AMD EPYC, bf16"
    assert total([gpu, cpu, *rest], "CPU") == (pytest.approx(4.0), 1)


def test_a_recipe_that_counts_epochs_takes_longer_with_more_images(made):
    bottle = made("NVIDIA H100", 199.0, config={"epochs": 100})  # 209 s for its 209 images
    gpu, _ = estimate([Cell("stpm", "pill", 0), Cell("stpm", "toothbrush", 0)], [bottle])
    assert gpu.hours == pytest.approx((267 + 60) / 3600)
    assert gpu.seconds == pytest.approx((267 + 60) / 2)
    gpu, _ = estimate([Cell("stpm", "washer", 0)], [bottle])  # not of MVTec AD: as the record
    assert gpu.seconds == pytest.approx(209)


def test_failed_runs_and_other_profiles_say_nothing(made):
    records = [made("CPU", 5.0, status="failed"), made("CPU", 5.0, profile="demo", dataset="demo")]
    assert all(cost.hours is None for cost in estimate(MISSING, records))


def test_a_variant_counts_as_its_method(made):
    *_, gpu, _ = estimate(MISSING, [made("NVIDIA H100", 3590.0, method="pfadseg")])
    assert (gpu.method, gpu.hours) == ("pfadseg", pytest.approx(1.0))

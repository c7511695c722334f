"""What all trainings share. The switches of a precision are the process's: no GPU is needed to read them."""

from collections.abc import Iterator

import pytest
import torch

from stlib.methods.training import Execution
from stlib.protocol import Precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    Execution(CPU)


@pytest.mark.parametrize(
    ("device", "precision", "rounded"),
    [
        (CPU, "fp32", False),
        (CPU, "bf16", False),
        (GPU, "fp32", False),
        (GPU, "tf32", True),
        (GPU, "bf16", False),
    ],
)
def test_float32_is_rounded_to_tf32_if_and_only_if_asked_to(
    device: torch.device, precision: Precision, rounded: bool
):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not rounded
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    Execution(device, precision)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (rounded, rounded)
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)


@pytest.mark.parametrize(
    ("device", "precision"), [(CPU, "fp32"), (CPU, "bf16"), (GPU, "fp32"), (GPU, "tf32")]
)
def test_autocast_is_for_bf16_only(device: torch.device, precision: Precision):
    with Execution(device, precision).autocast():
        assert torch.is_autocast_enabled(device.type) == (precision == "bf16")


def test_tf32_on_a_cpu_is_refused_instead_of_computing_something_else():
    with pytest.raises(
        ValueError, match="'tf32' is for a GPU, and the device is 'cpu': choose device cuda or"
    ):
        Execution(CPU, "tf32")
    with pytest.raises(ValueError, match="unknown precision 'fp16': choose fp32, tf32, bf16"):
        Execution(CPU, "fp16")

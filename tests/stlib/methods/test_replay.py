"""The bookkeeping around a CUDA graph, whose stand-in runs its function again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from stlib.methods import replay
from stlib.methods.replay import WARM, Replayed

GPU = torch.device("cuda", 0)


class Graph:
    """Replays what was called between its opening and its closing, on the same tensors."""

    again: Callable[[], None]
    made = replays = 0

    def replay(self) -> None:
        Graph.replays += 1
        self.again()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    Graph.made = Graph.replays = 0

    class Stream:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def wait_stream(self, other: object) -> None:
            pass

    @contextmanager
    def record(graph: Graph, stream: Stream) -> Iterator[None]:
        Graph.made += 1
        Net.recording = graph
        yield
        Net.recording = None

    stands_in = SimpleNamespace(
        Stream=Stream, CUDAGraph=Graph, graph=record, stream=nullcontext, device=nullcontext,
        current_stream=lambda _: Stream(GPU),
    )  # fmt: skip
    monkeypatch.setattr(replay, "torch", SimpleNamespace(cuda=stands_in))


class Net:
    """`gradients` doubles its input into `grad` and returns a tensor that a replay overwrites."""

    recording: Graph | None = None

    def __init__(self) -> None:
        self.grad, self.calls = torch.zeros(2), 0

    def gradients(self, x: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        value = torch.zeros(())

        def launch() -> None:
            self.grad.copy_(2 * x)
            value.copy_(x.sum())

        if self.recording:
            self.recording.again = launch
        else:
            launch()
        return {"loss": value}


def test_from_the_fourth_call_on_the_recording_sees_every_new_input(cuda: None):
    net, replayed = Net(), Replayed(GPU)
    losses = []
    for step in range(WARM + 3):
        losses.append(replayed(net.gradients, torch.full((2,), float(step)))["loss"])
        assert torch.equal(net.grad, torch.full((2,), 2.0 * step))
    assert [loss.item() for loss in losses] == [2.0 * step for step in range(WARM + 3)]  # none overwritten
    assert (net.calls, Graph.made, Graph.replays) == (WARM + 1, 1, 3)
    replayed.start_over()
    replayed(net.gradients, torch.ones(2))
    assert (net.calls, Graph.made) == (WARM + 2, 1)


def test_without_a_gpu_every_call_is_the_call():
    net, replayed = Net(), Replayed(torch.device("cpu"))
    for step in range(WARM + 3):
        assert replayed(net.gradients, torch.full((2,), float(step)))["loss"].item() == 2 * step
    assert net.calls == WARM + 3

"""The gradients of a training step as a CUDA graph.

PFADSeg's networks launch thousands of small kernels a step, and a GPU waits for Python between them. Recorded
once, they are launched as one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Gradients = Callable[..., dict[str, Tensor]]
"""Sets the gradients to None, then computes them from tensors of fixed shapes; returns values to log."""

WARM = 3
"""Calls before the recording: libraries choose kernels and reserve memory in them."""


class Replayed:
    """Calls a function of gradients; on a GPU, from the fourth call on, replays what the fourth one launched.

    Always the same function: the graph is its. The same kernels run on the same numbers, so the results are
    those of the calls, to the last bit where the kernels are reproducible (benchmarks/replay.py).
    """

    def __init__(self, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]
        self.warm = WARM
        self.start_over()

    def start_over(self) -> None:
        """Forget the recording and free its memory, but for gradients that are still in parameters."""
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.values: dict[str, Tensor] = {}

    def __call__(self, gradients: Gradients, *inputs: Tensor) -> dict[str, Tensor]:
        """The values of `gradients(*inputs)`, whose gradients are then in the parameters."""
        if self.stream is None:
            return gradients(*inputs)
        self.calls += 1
        if self.calls <= self.warm:
            with _beside(self.stream):  # autograd remembers the stream that it ran on: it must be this one
                return gradients(*inputs)
        graph = self.graph or self._record(self.stream, gradients, inputs)
        for kept, given in zip(self.inputs, inputs, strict=True):
            kept.copy_(given)
        graph.replay()
        return {name: value.clone() for name, value in self.values.items()}

    def _record(
        self, stream: torch.cuda.Stream, gradients: Gradients, inputs: tuple[Tensor, ...]
    ) -> torch.cuda.CUDAGraph:
        kept, graph = [given.clone() for given in inputs], torch.cuda.CUDAGraph()
        with torch.cuda.device(stream.device), torch.cuda.graph(graph, stream=stream):
            values = gradients(*kept)
        self.inputs, self.values, self.graph = kept, values, graph
        return graph


@contextmanager
def _beside(stream: torch.cuda.Stream) -> Iterator[None]:
    """What is launched goes to `stream`, after all work before and before all work after."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)

"""A step's gradients as a CUDA graph.

PFADSeg's networks launch thousands of small kernels a step: a GPU waits for Python most of the time. Recorded
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
    """Calls `gradients`; on a GPU, from the fourth call on, by replaying what the fourth one launched.

    The results are those of the calls themselves: the same kernels run on the same numbers.
    """

    def __init__(self, gradients: Gradients, device: torch.device) -> None:
        self.gradients = gradients
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.graph: torch.cuda.CUDAGraph | None = None
        self.warm = WARM
        self.calls = 0
        self.inputs: list[Tensor] = []
        self.values: dict[str, Tensor] = {}

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The values of `gradients(*inputs)`, whose gradients are then in the parameters."""
        if self.stream is None:
            return self.gradients(*inputs)
        self.calls += 1
        if self.calls <= self.warm:
            with _beside(self.stream):  # autograd remembers the stream that it ran on: it must be this one
                return self.gradients(*inputs)
        if self.graph is None:
            self._record(self.stream, inputs)
        for kept, given in zip(self.inputs, inputs, strict=True):
            kept.copy_(given)
        assert self.graph is not None
        self.graph.replay()
        return {name: value.clone() for name, value in self.values.items()}

    def _record(self, stream: torch.cuda.Stream, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = [given.clone() for given in inputs]
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream):
            self.values = self.gradients(*self.inputs)

    def release(self) -> None:
        """Free the recording's memory; the next calls start over."""
        self.graph, self.calls, self.inputs, self.values = None, 0, [], {}


@contextmanager
def _beside(stream: torch.cuda.Stream) -> Iterator[None]:
    """What is launched goes to `stream`, after all work before and before all work after."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)

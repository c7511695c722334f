"""What PatchCore, PaDiM and SPADE share: they look at the good images once and train nothing."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from stlib.data.splits import split_train
from stlib.methods.entry import Method, MethodEntry
from stlib.methods.training import Execution, Recipe
from stlib.nn.backbone import ResNet18Pyramid, features
from stlib.nn.maps import Maps
from stlib.protocol import Profile
from stlib.records.schema import History


class MemoryRecipe(Recipe):
    """What every recipe without training has."""

    batch_size: PositiveInt = 8
    """Images that go through the network at once: it bounds the memory and changes no result."""
    held_out: float = Field(0.0, ge=0, lt=1, exclude_if=lambda share: share == 0)
    """Share of the good images that is not remembered but gives the threshold; none in the papers."""


HOLD_OUT = {"held-out=20%": {"held_out": 0.2}}
"""The variant that every method without training has: for own parts, where a score needs a decision."""


def held_out(config: Recipe, count: int) -> list[int]:
    """Of `count` good images, those that are not remembered."""
    assert isinstance(config, MemoryRecipe)
    return split_train(count, fraction=config.held_out)[1] if config.held_out else []


class MemoryNetwork(nn.Module):
    """A teacher, and what is remembered of its features of good images."""

    remembered: tuple[str, ...]
    """The names of buffers whose size depends on the good images: they take that of saved ones."""

    def __init__(self, teacher: nn.Module | None) -> None:
        super().__init__()
        self.teacher = teacher or ResNet18Pyramid()

    @abstractmethod
    def remember(self, levels: list[Tensor], seed: int) -> None:
        """Fill the memory from the teacher's features of N good images: (N, C, h, w) per level."""

    @abstractmethod
    def forward(self, images: Tensor) -> Maps:
        """(B, 3, S, S) uint8 -> `Maps`; `layers` are the distances before they are smoothed."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: object) -> None:
        for name in self.remembered:
            if (saved := state_dict.get(prefix + name)) is not None:
                self.register_buffer(name, torch.empty_like(saved))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class TrainingFree(Method):
    """The `Method` around a `MemoryNetwork`: its fit is one look at the good images."""

    def __init__(
        self,
        make: Callable[[Any, nn.Module], MemoryNetwork],
        config: MemoryRecipe,
        teacher: nn.Module,
        execution: Execution,
    ) -> None:
        super().__init__(execution, config.batch_size)
        self.config = config
        self.memory = execution.place(make(config, teacher))
        self.snapshots = {"memory": {}}  # a name and no weights: there is nothing to choose

    @property
    def network(self) -> MemoryNetwork:
        """What is deployed."""
        return self.memory

    def fit(self, train: Tensor, *, seed: int) -> History:
        """Remember (N, 3, S, S) uint8 normal images; `seed` is that of whatever the method draws."""
        held = set(held_out(self.config, len(train)))
        images = train[[index for index in range(len(train)) if index not in held]].to(self.execution.device)
        self.memory.remember(features(self.memory.teacher, images, self.config.batch_size), seed)
        self.execution.place(self.memory)
        self.execution.progress(len(images), len(images), "remembered")
        return History(steps=0, images_seen=len(images), curves={}, selected={})


def entry(
    title: str,
    profiles: Mapping[Profile, MemoryRecipe],
    network: Callable[..., MemoryNetwork],
    variants: Mapping[str, Mapping[str, object]],
    *,
    score_apart: bool = False,
) -> MethodEntry:
    """What the registry holds of a method without training; `network` takes a config and a teacher."""
    return MethodEntry(
        title,
        profiles,
        partial(TrainingFree, network),
        network,
        {**variants, **HOLD_OUT},
        held_out=held_out,
        training_free=True,
        score_apart=score_apart,
    )

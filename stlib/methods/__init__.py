"""The detectors, by name. A method is built from a config, a frozen teacher and an execution."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from stlib.methods import destseg, et_stpm, pfadseg, stpm
from stlib.methods.finetuning import Tuning
from stlib.methods.training import Recipe
from stlib.nn.maps import Maps
from stlib.protocol import PRECISIONS, Profile
from stlib.records.schema import History


class Method(Protocol):
    """What `stlib.run.experiment` needs of a detector."""

    snapshots: dict[str, dict[str, Tensor]]
    """Trained weights by name; the first is the one that the recipe tests."""

    @property
    def network(self) -> nn.Module:
        """What is deployed, with the weights in use: (B, 3, S, S) uint8 images -> `Maps`."""
        ...

    def fit(self, train: Tensor, *, seed: int) -> History:
        """Train on (N, 3, S, S) uint8 normal images."""
        ...

    def use(self, snapshot: str) -> None:
        """Choose among `snapshots`; `fit` leaves the one that the recipe tests in use."""
        ...

    def maps(self, images: Tensor) -> Maps:
        """Anomaly maps and scores of (M, 3, S, S) uint8 images, on the CPU."""
        ...

    def alternatives(self, maps: Maps) -> dict[str, Maps]:
        """The same maps read in other ways, by a short name of what differs; never selected from."""
        ...


@dataclass(frozen=True)
class MethodEntry:
    """What the registry holds of one method."""

    title: str
    """The name shown to readers."""
    profiles: Mapping[Profile, Recipe]
    """The recipe under each profile."""
    build: Callable[..., Method]
    """Called with (config, teacher, execution), and `synthesis` where `needs_textures`."""
    empty_network: Callable[[Recipe], nn.Module]
    """What a recipe deploys, waiting for trained weights."""
    variants: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Named deviations from the recipe: the fields that they change."""
    tuning: Callable[[Recipe], tuple[Tuning, int]] | None = None
    """How a recipe fine-tunes the teacher first, and for how many full epochs; None where it never does."""
    held_out: Callable[[Recipe, int], list[int]] = lambda _recipe, _count: []
    """Indices of those of so many training images that no weight is learnt from."""
    needs_textures: bool = False
    """True for a method that learns from synthetic anomalies, and so needs textures."""

    def recipe(self, profile: Profile, variant: str = "") -> Recipe:
        """The config of a run. Raises ValueError for a profile or variant that the method does not have."""
        if profile not in self.profiles:
            raise ValueError(
                f"{self.title} has no profile '{profile}': choose one of {', '.join(self.profiles)}"
            )
        if variant in PRECISIONS:
            variant = ""
        if variant and variant not in self.variants:
            known = ", ".join((*self.variants, *PRECISIONS))
            raise ValueError(f"{self.title} has no variant '{variant}': there are {known}")
        base = self.profiles[profile]
        return type(base).model_validate(_changed(base.model_dump(), self.variants.get(variant, {})))


def _changed(fields: Mapping[str, object], change: Mapping[str, object]) -> dict[str, object]:
    """`fields` with those in `change` replaced, nested ones too."""
    merged = dict(fields)
    for name, value in change.items():
        old = merged[name]
        merged[name] = _changed(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


METHODS: dict[str, MethodEntry] = {
    "stpm": MethodEntry(
        "STPM", stpm.PROFILES, stpm.STPM, stpm.empty_network, stpm.VARIANTS, held_out=stpm.held_out
    ),
    "et_stpm": MethodEntry(
        "ET-STPM",
        et_stpm.PROFILES,
        et_stpm.ETSTPM,
        stpm.empty_network,
        et_stpm.VARIANTS,
        et_stpm.tuning,
        stpm.held_out,
    ),
    "destseg": MethodEntry(
        "DeSTSeg", destseg.PROFILES, destseg.DeSTSeg, destseg.empty_network, needs_textures=True
    ),
    "pfadseg": MethodEntry(
        "PFADSeg",
        pfadseg.PROFILES,
        destseg.DeSTSeg,
        destseg.empty_network,
        pfadseg.VARIANTS,
        needs_textures=True,
    ),
}


def get_method(method: str) -> MethodEntry:
    """The registry's entry for `method`. Raises ValueError for an unknown name."""
    if method not in METHODS:
        raise ValueError(f"unknown method '{method}': choose one of {', '.join(METHODS)}")
    return METHODS[method]

"""What a method is, and what it says of itself at the end of its file: `METHOD = MethodEntry(...)`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError
from torch import Tensor, nn

from stlib.methods.finetuning import Tuning
from stlib.methods.training import Execution, Recipe
from stlib.nn.maps import Maps, in_batches
from stlib.protocol import IMAGE_SIZES, PRECISIONS, Profile
from stlib.records.schema import History


class Method(ABC):
    """A detector and its training: what `stlib.run.experiment` needs of a method."""

    def __init__(self, execution: Execution, batch_size: int) -> None:
        """`batch_size` images go through the network at once when maps are asked for."""
        self.execution, self.batch_size = execution, batch_size
        self.snapshots: dict[str, dict[str, Tensor]] = {}
        """Trained weights by name; the first is the one that the recipe tests. A record has the metrics of
        others as `checkpoint=NAME`, or as the name itself where it says what differs, as 'gamma=0' does."""

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """What is deployed, with the weights in use: (B, 3, S, S) uint8 images -> `Maps`."""

    @abstractmethod
    def fit(self, train: Tensor, *, seed: int) -> History:
        """Train on (N, 3, S, S) uint8 normal images.

        Records and saved detectors take for granted, and tests/stlib/methods/test_every_method.py asks:

        - First weights are drawn on the CPU under `seeded(seed)`; what an epoch or a step draws, such as the
          order of the images, comes from `generator(seed, place)`. Nothing else is drawn at random.
        - The teacher is left alone: only the student is ever in train mode, and in the optimiser.
        - Networks go to the device by `execution.place`, and train within `execution.autocast()`.
        - The training is `Resumable`: `kept` names all that it changes, `resume` comes when all of it has its
          first value, and `offer` after each epoch. `execution.progress` reports as often.
        - A loss that is not finite raises FloatingPointError, with the epoch or the step.
        - `snapshots` holds the trained weights, and the first of them is in use. Where there are several,
          `use` puts another one to work.
        - Nothing is learnt from the images that the entry's `held_out` names.
        """

    def use(self, snapshot: str) -> None:
        """Choose among several `snapshots`; `fit` leaves the one that the recipe tests in use."""
        raise NotImplementedError(f"{type(self).__name__} has several snapshots and no method `use`: add it")

    def maps(self, images: Tensor) -> Maps:
        """Anomaly maps and scores of (M, 3, S, S) uint8 images, on the CPU; in fp32, whatever trained."""
        return in_batches(self.network, images, self.batch_size, self.execution.device)

    def alternatives(self, maps: Maps) -> dict[str, Maps]:  # noqa: ARG002 - of those that have some
        """The same maps read in other ways, by a short name of what differs; never selected from."""
        return {}


@dataclass(frozen=True)
class MethodEntry:
    """What the registry holds of one method."""

    title: str
    """The name shown to readers."""
    profiles: Mapping[Profile, Recipe]
    """The recipe under each profile."""
    build: Callable[..., Method]
    """Called with (config, teacher, execution), and `synthesis` where `needs_textures`."""
    empty_network: Callable[..., nn.Module]
    """Called with a config: what the recipe deploys, waiting for trained weights."""
    variants: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Named deviations from the recipe: the fields that they change."""
    tuning: Callable[[Recipe], tuple[Tuning, int]] | None = None
    """How a recipe fine-tunes the teacher first, and for how many full epochs; None where it never does."""
    held_out: Callable[[Recipe, int], list[int]] = lambda _recipe, _count: []
    """Indices of those of so many training images that no weight is learnt from."""
    needs_textures: bool = False
    """True for a method that learns from synthetic anomalies, and so needs textures."""
    training_free: bool = False
    """True for a method that remembers the good images and trains nothing."""
    score_apart: bool = False
    """True for a method whose image score does not come from its map: a threshold of the one says nothing of
    the other."""

    def __post_init__(self) -> None:
        """Raise ValueError for a recipe that no trained detector could score by, and for a wrong variant."""
        for profile, recipe in self.profiles.items():
            if "batch_size" not in type(recipe).model_fields:
                raise ValueError(f"{self.title}'s recipe for '{profile}' has no field batch_size: add it")
            for variant in self.variants:
                try:
                    self.recipe(profile, variant)
                except ValidationError as error:
                    raise ValueError(f"{self.title}'s variant '{variant}': {error}") from error

    def recipe(self, profile: Profile, variant: str = "", seed: int = 0) -> Recipe:
        """The config of a run, whose `seed` is its fine-tuned teacher's too unless the variant names another.

        Every method has the variant 'image_size=512', also after one of its own and a comma. A fine-tuned
        teacher learns from images of that size, too.

        Raises ValueError for a profile or variant that the method does not have.
        """
        if profile not in self.profiles:
            raise ValueError(
                f"{self.title} has no profile '{profile}': choose one of {', '.join(self.profiles)}"
            )
        named, size = ("", {}) if variant in PRECISIONS else _size_apart(variant)
        if named and named not in self.variants:
            known = ", ".join((*self.variants, *PRECISIONS, "image_size=512"))
            raise ValueError(f"{self.title} has no variant '{variant}': there are {known}")
        base = self.profiles[profile]
        fields = base.model_dump()
        if self.tuning:
            fields["tuning"] |= {"seed": seed, **size}
        return type(base).model_validate(_changed(fields | size, self.variants.get(named, {})))


_SIZES = {f"image_size={side}": side for side in IMAGE_SIZES}


def _size_apart(variant: str) -> tuple[str, dict[str, int]]:
    """A variant without 'image_size=N' at its end, and the field that this changes.

    Raises ValueError for a size that the networks, which halve it five times, cannot take or nobody wants.
    """
    named, _, last = variant.rpartition(",")
    if not last.startswith("image_size="):
        return variant, {}
    if last not in _SIZES:
        raise ValueError(
            f"'{last}': choose a multiple of {IMAGE_SIZES.step} from {IMAGE_SIZES[0]} to {IMAGE_SIZES[-1]}"
        )
    return named, {"image_size": _SIZES[last]}


def _changed(fields: Mapping[str, object], change: Mapping[str, object]) -> dict[str, object]:
    """`fields` with those in `change` replaced, nested ones too."""
    merged = dict(fields)
    for name, value in change.items():
        old = merged.get(name)  # a field may be left out where it has its first value
        merged[name] = _changed(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged

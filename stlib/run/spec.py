"""What to run, and all that can be refused of it before any work."""

from dataclasses import dataclass, field
from pathlib import Path

from stlib.data.textures import texture_files
from stlib.methods import get_method
from stlib.methods.training import require_device
from stlib.protocol import PRECISIONS, Precision, Profile
from stlib.run.teacher_data import require_classes


@dataclass(frozen=True)
class RunSpec:
    """What to run. Everything that a result depends on is here or in the recipe of the profile."""

    method: str
    category: str
    seed: int = 0
    profile: Profile = field(kw_only=True)
    variant: str = ""
    """A named deviation from the method's recipe; empty for the recipe itself."""
    data: Path = Path("data/mvtec_ad")
    """Root of the dataset, in the layout of `stlib.data.layout`."""
    teacher: str = "demo"
    """'torchvision', 'demo', 'random' or a weight file."""
    textures: str | Path = "demo"
    """'demo' or the folder of DTD; for methods that learn from synthetic anomalies."""
    device: str = "cpu"
    precision: Precision = "fp32"

    def check(self) -> None:
        """Raise ValueError or FileNotFoundError for anything that cannot work, before any work is done."""
        entry = get_method(self.method)
        entry.recipe(self.profile, self.variant)
        if entry.needs_textures and self.profile != "demo" and self.textures == "demo":
            raise ValueError(
                f"profile '{self.profile}' of {entry.title} takes its textures from DTD: name its folder by "
                "--textures (`stlib data download dtd` fetches it)"
            )
        if PRECISIONS.get(self.variant, self.precision) != self.precision:
            raise ValueError(f"variant '{self.variant}' does not go with precision {self.precision}")
        if entry.training_free and self.precision != "fp32":
            raise ValueError(f"{entry.title} trains nothing: choose precision fp32, not {self.precision}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed {self.seed}: choose a whole number from 0 to {2**32 - 1}")
        require_device(self.device, self.precision)
        if entry.tuning and (self.data / self.category).is_dir():  # the demo may be made later
            require_classes(self.data)
        if entry.needs_textures and self.textures != "demo":
            texture_files(self.textures)

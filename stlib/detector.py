"""A trained detector as it is deployed: one file of weights and description, images in, anomaly maps out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from stlib.files import write_atomic
from stlib.methods import get_method
from stlib.methods.training import Execution
from stlib.nn.maps import Maps, in_batches
from stlib.protocol import Precision, Profile
from stlib.records.schema import TeacherInfo

_KEY = "stlib"
"""Under which a file's metadata holds the description."""


class DetectorInfo(BaseModel):
    """What a saved detector is; its record in `results/records` says how good it is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    method: str
    variant: str
    category: str
    seed: int
    profile: Profile
    config: Mapping[str, object]
    """The recipe, with `image_size`."""
    teacher: TeacherInfo


@dataclass(frozen=True)
class Detector:
    """What a detector is, and its network.

    Scores have no unit and no threshold: what counts as anomalous is the user's choice, made on images of
    their own, not on the benchmark's test set.
    """

    info: DetectorInfo
    network: nn.Module
    """(B, 3, S, S) uint8 images -> `Maps`."""

    @property
    def image_size(self) -> int:
        """Side of the input in pixels."""
        size = self.info.config["image_size"]
        assert isinstance(size, int)
        return size

    def maps(
        self,
        images: Tensor,
        *,
        batch_size: int | None = None,
        device: str | None = None,
        precision: Precision = "fp32",
    ) -> Maps:
        """Compute anomaly maps and image scores of (M, 3, S, S) uint8 RGB images; they come back on the CPU.

        `batch_size` images go through the network at once, by default as many as in its training. `device` is
        where the network runs, by default where it is: that of its training, or the CPU for a loaded one.
        Raises ValueError for other input.

        With `precision="bf16"` or, on a GPU, "tf32" the convolutions round their inputs: faster where the
        processor has it, and not exactly what the records measured.
        """
        side = self.image_size
        if images.dtype != torch.uint8 or images.shape[1:] != (3, side, side):
            raise ValueError(
                f"images are {tuple(images.shape)} of {images.dtype}: this detector takes "
                f"(M, 3, {side}, {side}) uint8 RGB, see `stlib.data.mvtec.read_images`"
            )
        where = torch.device(device) if device else next(self.network.parameters()).device
        network = self.network.to(where).to(memory_format=torch.channels_last)  # as the run measured it
        size = batch_size or self._batch_size
        with Execution(where, precision).autocast():
            return in_batches(network, images, size, where, tf32=precision == "tf32")

    @property
    def _batch_size(self) -> int:
        size = self.info.config["batch_size"]
        assert isinstance(size, int)
        return size

    @classmethod
    def untrained(cls, method: str, profile: Profile) -> "Detector":
        """The networks of a recipe with random weights: costs as much as a trained one, and knows nothing."""
        config = get_method(method).recipe(profile)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = get_method(method).empty_network(config)
            for name, buffer in network.named_buffers():
                if name.endswith("running_mean"):
                    buffer.normal_(0, 0.1)  # trivial statistics would hide a mistake in folding them
        info = DetectorInfo(
            method=method,
            variant="",
            category="none",
            seed=0,
            profile=profile,
            config=config.model_dump(mode="json"),
            teacher=TeacherInfo(source="random", file_sha256=None, pyramid_sha256="", missing=[]),
        )
        return cls(info, network.eval().requires_grad_(False))

    def save(self, path: Path | str) -> None:
        """Write weights and description as one safetensors file. Raises OSError when it cannot be written.

        >>> import stlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stlib.Detector.untrained("stpm", "demo").save(f"{folder}/brick.safetensors")
        ...     stlib.Detector.load(f"{folder}/brick.safetensors").image_size
        96
        """
        state = {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()
        }
        write_atomic(Path(path), save(state, metadata={_KEY: self.info.model_dump_json()}))

    @classmethod
    def load(cls, path: Path | str) -> "Detector":
        """Read what `save` wrote, on the CPU. Raises FileNotFoundError, or ValueError for any other file."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no detector at {path}: `stlib run ... --save {path}` makes one")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            info = DetectorInfo.model_validate_json(metadata[_KEY])
            entry = get_method(info.method)
            config = type(entry.profiles[info.profile]).model_validate(info.config)
            network = entry.empty_network(config)
            network.load_state_dict(state)
        except (SafetensorError, KeyError, ValidationError, RuntimeError) as error:
            raise ValueError(f"{path} is not a detector of this version ({error}): make it again") from error
        return cls(info, network.eval().requires_grad_(False))

    def export_onnx(self, path: Path) -> None:
        """Write an ONNX model: `images` (B, 3, S, S) uint8 -> `anomaly_map` (B, S, S), `image_score` (B,).

        Needs the packages onnx and onnxscript. Raises OSError when the file cannot be written.
        """
        example = torch.zeros(2, 3, self.image_size, self.image_size, dtype=torch.uint8)
        program = torch.onnx.export(
            _Outputs(self.network.cpu()).eval(),
            (example,),
            input_names=["images"],
            output_names=["anomaly_map", "image_score"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        part = path.with_name(path.name + ".part")
        program.save(part)
        part.replace(path)


def map_paths(files: Sequence[Path], folder: Path) -> list[Path]:
    """Where the map of every image goes. Raises ValueError when two images would write the same one."""
    paths = [folder / f"{file.parent.name}-{file.stem}.tiff" for file in files]
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        raise ValueError(
            f"two of the images would write the map {twice[0].name}: detect them one folder at a time"
        )
    return paths


def write_map(anomaly_map: Tensor, path: Path) -> None:
    """Write one (S, S) map as a float32 TIFF, the form that MVTec AD's own evaluation code reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(anomaly_map.numpy()).save(path)


class _Outputs(nn.Module):
    """What an exported model returns."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps: Maps = self.network(images)
        return maps.pixel, maps.image

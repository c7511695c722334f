"""A trained detector as it is deployed: one file of weights and description, images in, anomaly maps out."""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from stlib.decision import Threshold
from stlib.files import require_writable, write_atomic
from stlib.methods import get_method
from stlib.methods.training import seeded
from stlib.nn.maps import Maps, in_batches
from stlib.protocol import Precision, Profile, require_precision
from stlib.records.schema import TeacherInfo

_KEY = "stlib"
"""Under which a file's metadata holds the description."""
MARK = b'{"__metadata__":{"' + _KEY.encode() + b'":'
"""Of a detector's file among other files of tensors."""
_DECISION = "anomalous where image_score > threshold"
"""What an ONNX file says of itself, and is known by."""


class DetectorInfo(BaseModel, frozen=True, extra="ignore"):
    """What a saved detector is; its record in `results/records` says how good it is."""

    method: str
    variant: str
    category: str
    seed: int
    profile: Profile
    config: Mapping[str, Any]
    """The recipe; `maps` needs its `image_size` and `batch_size`."""
    teacher: TeacherInfo
    threshold: Threshold | None = None
    """Above which an image is anomalous: `stlib threshold` reads one from other good images."""
    training_images: list[str] = Field(default_factory=list, repr=False)
    """The `digests` of the training's images, held-out ones among them."""


def digests(images: Tensor) -> list[str]:
    """What each of (M, 3, S, S) uint8 images is known by: twelve digits of its pixels' SHA-256.

    Pixels as the network sees them, not files: a picture stays the same under another name or in another
    lossless format. Ten thousand images and as many others have an equal pair by chance once in a million.
    """
    return [hashlib.sha256(image.numpy().tobytes()).hexdigest()[:12] for image in images.cpu()]


@dataclass(frozen=True)
class Detector:
    """What a detector is, and its network.

    Scores have no unit: what counts as anomalous is told by `info.threshold`, from good images that the
    training held out, never from the benchmark's test set.
    """

    info: DetectorInfo
    network: nn.Module = field(repr=False)
    """(B, 3, S, S) uint8 images -> `Maps`."""

    @property
    def image_size(self) -> int:
        """Side of the input in pixels."""
        side: int = self.info.config["image_size"]
        return side

    def maps(self, images: Tensor, *, batch_size: int | None = None, precision: Precision = "fp32") -> Maps:
        """Compute anomaly maps and image scores of (M, 3, S, S) uint8 RGB images; they come back on the CPU.

        `batch_size` images go through the network at once, by default as many as in its training. It runs
        where it is: on the device of its training, or the CPU for a loaded one. `on` makes one elsewhere.
        Raises ValueError for other tensors, and TypeError for a path: `stlib.inspect` reads photographs.

        With `precision="bf16"` or, on a GPU, "tf32" convolutions and matrix products round their inputs:
        faster where the processor has it, and not exactly what the records measured.
        """
        if not isinstance(images, Tensor):
            raise TypeError(
                f"images are a {type(images).__name__}, and maps are made of a tensor: "
                "`stlib.inspect(detector, FOLDER)` scores photographs, `stlib.data.images.as_input(image, "
                "detector.image_size)[None]` makes a tensor of a PIL image in RGB"
            )
        side = self.image_size
        if images.dtype != torch.uint8 or images.shape[1:] != (3, side, side):
            raise ValueError(
                f"images are {tuple(images.shape)} of {images.dtype}: this detector takes "
                f"(M, 3, {side}, {side}) uint8 RGB, see `stlib.data.images.read_images`"
            )
        network = self.network.to(memory_format=torch.channels_last)  # as the run measured it
        where = next(network.parameters()).device
        size = batch_size or self.info.config["batch_size"]
        require_precision(precision, str(where))
        with torch.autocast(where.type, torch.bfloat16, enabled=precision == "bf16"):
            return in_batches(network, images, size, where, tf32=precision == "tf32")

    def on(self, device: str | None) -> "Detector":
        """This detector with a copy of its network on `device`; itself for None, and where it is there."""
        here, wanted = next(self.network.parameters()).device, torch.device(device or "cpu")
        if device is None or (wanted.type == here.type and wanted.index in (None, here.index)):
            return self
        return Detector(self.info, copy.deepcopy(self.network).to(wanted))

    @classmethod
    def untrained(cls, method: str, profile: Profile) -> "Detector":
        """The networks of a recipe with random weights: costs as much as a trained one, and knows nothing.

        Raises ValueError for a method without training: its cost depends on the images that it remembers.
        """
        entry = get_method(method)
        if entry.training_free:
            raise ValueError(f"{entry.title} remembers images: fit it to know what it costs")
        config = entry.recipe(profile)
        with seeded(0):
            network = entry.empty_network(config)
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

    def with_threshold(self, threshold: Threshold) -> "Detector":
        """The same network under another threshold."""
        return Detector(self.info.model_copy(update={"threshold": threshold}), self.network)

    def save(self, path: Path | str) -> None:
        """Write weights and description as one safetensors file.

        Raises OSError when it cannot be written, and for another kind of file that is there.

        >>> import stlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stlib.Detector.untrained("stpm", "demo").save(f"{folder}/brick.safetensors")
        ...     stlib.Detector.load(f"{folder}/brick.safetensors").image_size
        96
        """
        require_writable(Path(path), MARK)
        state = {
            name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()
        }
        write_atomic(Path(path), save(state, metadata={_KEY: self.info.model_dump_json()}))

    def equals(self, other: "Detector") -> bool:
        """Whether `other` is this detector, under whatever threshold."""
        own, others = self.network.state_dict(), other.network.state_dict()
        infos = {one.info.model_dump_json(exclude={"threshold"}) for one in (self, other)}
        return (
            len(infos) == 1
            and own.keys() == others.keys()
            and all(torch.equal(tensor.cpu(), others[name].cpu()) for name, tensor in own.items())
        )

    @classmethod
    def load(cls, path: Path | str) -> "Detector":
        """Read what `save` wrote, on the CPU. Raises FileNotFoundError, or ValueError for any other file."""
        path = Path(path)
        if path.is_dir():
            raise ValueError(f"{path} is a folder: name the detector's file first")
        if not path.is_file():
            raise FileNotFoundError(
                f"no detector at {path}: `stlib run ... --save {quote(str(path))}` makes one"
            )
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            info = DetectorInfo.model_validate_json(metadata[_KEY])
            entry = get_method(info.method)
            config = type(entry.profiles[info.profile]).model_validate(info.config)
            network = entry.empty_network(config)
            network.load_state_dict(state)
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path} is not a detector of this version ({error}): make it again") from error
        return cls(info, network.eval().requires_grad_(False))

    def export_onnx(self, path: Path | str) -> None:
        """Write an ONNX model: `images` (B, 3, S, S) uint8 -> `anomaly_map` (B, S, S), `image_score` (B,).

        Its metadata say how an image becomes an input, and the threshold. Needs the packages onnx and
        onnxscript. Raises OSError when the file cannot be written, and for another kind of file there.
        """
        path = Path(path)
        require_writable(path, _DECISION.encode())
        example = torch.zeros(2, 3, self.image_size, self.image_size, dtype=torch.uint8)
        program = torch.onnx.export(
            _Outputs(copy.deepcopy(self.network).cpu()).eval(),
            (example,),
            input_names=["images"],
            output_names=["anomaly_map", "image_score"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
        side, threshold = self.image_size, self.info.threshold
        card = {
            "input": f"uint8, batch x 3 x {side} x {side}",
            "resize": f"the whole image to {side} x {side}, bilinear with antialias (PIL's BILINEAR)",
            "colour_order": "RGB; grey images with three equal channels",
            "normalisation": "inside the model",
            "decision": f"{_DECISION}, and where it is no number",
            "threshold": str(threshold.value) if threshold else "",
            _KEY: self.info.model_dump_json(exclude={"training_images"}),
        }
        for key, value in card.items():
            model.metadata_props.add(key=key, value=value)
        write_atomic(path, model.SerializeToString())


class _Outputs(nn.Module):
    """What an exported model returns."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps: Maps = self.network(images)
        return maps.pixel, maps.image

"""ResNet-18 feature pyramid: the frozen teacher, the student of the same shape, and where weights come from.

STPM (Wang et al., BMVC 2021, section 3.1): both networks are ResNet-18; the features are the outputs of
conv2_x, conv3_x and conv4_x, that is torchvision's layer1, layer2 and layer3.
"""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

from stlib.demo import DEMO_TEACHER
from stlib.files import sha256
from stlib.protocol import MEAN, STD
from stlib.records.schema import TeacherInfo

CHANNELS = (64, 128, 256)
"""Channels of the three pyramid levels; at 256x256 input their sides are 64, 32 and 16."""

_CPU = torch.device("cpu")
_CONSTANTS = {_CPU: [torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD)]}
"""`normalise`'s shift and scale by device, sent once: a GPU waits for each copy, no CUDA graph holds one."""

Pyramid = tuple[Tensor, Tensor, Tensor]


class ResNet18Pyramid(nn.Module):
    """ResNet-18 up to layer3, with torchvision's random initialisation and its parameter names.

    The official student also runs layer4, but nothing reads its output; it is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        net = resnet18(weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3 = net.layer1, net.layer2, net.layer3

    def forward(self, images: Tensor) -> Pyramid:
        """(B, 3, H, W) normalised images -> (B, 64, H/4, W/4), (B, 128, H/8, W/8), (B, 256, H/16, W/16)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        first = self.layer1(x)
        second = self.layer2(first)
        return first, second, self.layer3(second)


def features(pyramid: nn.Module, images: Tensor, batch_size: int) -> list[Tensor]:
    """Of all (N, 3, S, S) uint8 images, without gradients: one (N, C, h, w) tensor per level."""
    with torch.no_grad():
        batches = [pyramid(prepare(part)) for part in torch.split(images, batch_size)]
    return [torch.cat(level) for level in zip(*batches, strict=True)]


def load_teacher(source: str) -> tuple[ResNet18Pyramid, TeacherInfo]:
    """The frozen teacher in eval mode, and a description of its weights.

    `source`: 'torchvision' (IMAGENET1K_V1, downloaded once through torchvision), 'demo' (shipped with the
    project), 'random' (untrained, for comparison only), or the path of a `.pth` or `.safetensors` state dict
    with torchvision's names. Never falls back from one to another.

    Raises FileNotFoundError for a file that does not exist, ValueError for one whose tensors do not fit.
    """
    named = {
        "torchvision": ("torchvision IMAGENET1K_V1", None),
        "demo": ("demo", DEMO_TEACHER),
        "random": ("random", None),
    }
    name, file = named.get(source, (Path(source).name, Path(source)))
    pyramid, missing = _pyramid_from(load_state(source), str(file or name))
    info = TeacherInfo(
        source=name,
        file_sha256=sha256(file) if file else None,
        pyramid_sha256=pyramid_hash(pyramid),
        missing=[] if source in ("demo", "random") else missing,  # these two end at layer3 by design
    )
    # eval: BatchNorm uses its stored statistics, during the student's training too.
    return pyramid.eval().requires_grad_(False), info


def load_state(source: str) -> dict[str, Tensor]:
    """The state dict, in float32, behind a `source` of `load_teacher`."""
    if source == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return ResNet18Pyramid().state_dict()
    if source == "torchvision":
        # check_hash: torch.hub's default would accept any bytes under the right name.
        weights = ResNet18_Weights.IMAGENET1K_V1
        try:
            return dict(weights.get_state_dict(check_hash=True, weights_only=True))
        except (OSError, RuntimeError) as error:  # no network; another file than was asked for
            raise OSError(
                f"cannot download the teacher's ImageNet weights ({error}): get {weights.url} on a computer "
                "with a network and name the file, --teacher FILE"
            ) from error
    return _read_state(DEMO_TEACHER if source == "demo" else Path(source))


def prepare(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 RGB -> float32 of the same shape, ImageNet-normalised, channels last in memory."""
    return normalise(images.float() / 255)


def normalise(images: Tensor) -> Tensor:
    """(B, 3, H, W) float RGB in [0, 1] -> ImageNet-normalised, channels last in memory."""
    if images.device not in _CONSTANTS:
        _CONSTANTS[images.device] = [constant.to(images.device) for constant in _CONSTANTS[_CPU]]
    shift, scale = _CONSTANTS[images.device]
    return ((images - shift) / scale).contiguous(memory_format=torch.channels_last)


def _read_state(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise FileNotFoundError(
            f"no teacher weights at {file}: name an existing .pth or .safetensors file, "
            "or one of 'torchvision', 'demo', 'random'"
        )
    try:
        # weights_only: a weight file must not be able to run code.
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # damage shows in any way, from EOFError to IndexError
        raise ValueError(f"{file} is not a readable state dict ({error}): fetch it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{file} is not a dictionary of tensors: save the network's state_dict() itself")
    return {name: tensor.float() for name, tensor in state.items()}


def _pyramid_from(state: dict[str, Tensor], origin: str) -> tuple[ResNet18Pyramid, list[str]]:
    """The pyramid with the weights of `state`, and the names of the full ResNet-18 that `state` lacks."""
    pyramid = ResNet18Pyramid()
    wanted = pyramid.state_dict()
    lacking = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    if lacking:
        raise ValueError(
            f"{origin} lacks {len(lacking)} tensors of conv1 to layer3, first {lacking[0]}: wrong file?"
        )
    full = resnet18(weights=None).state_dict()
    # layer4 too: fine-tuning reads it; a head of other classes may be there
    for name, tensor in full.items():
        if name in state and state[name].shape != tensor.shape and not name.startswith("fc."):
            raise ValueError(
                f"{origin}: {name} is {tuple(state[name].shape)}, ResNet-18 has {tuple(tensor.shape)}: "
                "wrong network?"
            )
    pyramid.load_state_dict({name: state.get(name, tensor) for name, tensor in wanted.items()})
    return pyramid, [name for name in full if name not in state and not name.endswith("num_batches_tracked")]


def pyramid_hash(network: nn.Module) -> str:
    """SHA-256 over names and float32 bytes of all parameters and buffers, in name order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if name.endswith("num_batches_tracked"):  # a training counter, without effect in eval mode
            continue
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()

"""DeSTSeg: Segmentation Guided Denoising Student-Teacher (Zhang et al., CVPR 2023, arXiv:2211.11317).

Follows the code (apple/ml-destseg) where it and the paper differ. PFADSeg is the same training with other
parts and another schedule: methods/pfadseg.py.
"""

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from stlib.data.synthesis import AnomalySynthesis
from stlib.methods.training import Execution, Recipe
from stlib.methods.two_stages import Training
from stlib.nn.backbone import ResNet18Pyramid, prepare
from stlib.nn.blocks import Design
from stlib.nn.denoising import DenoisingStudent, SegmentationNet, similarity_features
from stlib.nn.losses import cosine_distances
from stlib.nn.maps import Maps, fuse, in_batches, max_score, resize, stack_levels, top_score
from stlib.protocol import Profile
from stlib.records.schema import History


class Config(Design, Recipe):
    """DeSTSeg's recipe; the defaults are the official code's."""

    batch_size: PositiveInt = 32
    """Images per step; an incomplete batch at the end of a pass is dropped."""
    student_steps: PositiveInt = 1000
    """Stage 1: only the denoising student learns."""
    segmentation_steps: PositiveInt = 4000
    """Stage 2: only the segmentation net learns; the student is frozen, BatchNorm statistics included."""
    student_rate: PositiveFloat = 0.4
    residual_rate: PositiveFloat = 0.1
    """Learning rate of the segmentation net's residual blocks."""
    head_rate: PositiveFloat = 0.01
    """Learning rate of its head: ASPP or RCM, and the predictor. All rates are constant, SGD."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    focal_gamma: float = 4.0
    top: PositiveInt = 100
    """The image score is the mean of this many largest pixel scores."""


SHORT = {"batch_size": 8, "student_steps": 200, "segmentation_steps": 100}
"""For a CPU: some 40 minutes on one core, 55 with all modules (results/records/short)."""
DEMO = {"image_size": 64, "batch_size": 8, "student_steps": 60, "segmentation_steps": 20, "top": 10} | {
    "student_rate": 0.1, "residual_rate": 0.03, "head_rate": 0.01
}  # fmt: skip
"""Small images and gentle rates: one to two minutes on a CPU (results/records/demo)."""

PROFILES: dict[Profile, Config] = {
    "paper": Config(),
    "short": Config().model_copy(update=SHORT),
    "demo": Config().model_copy(update=DEMO),
}


class Network(nn.Module):
    """Teacher, denoising student and segmentation net as they are deployed."""

    def __init__(self, teacher: nn.Module, student: nn.Module, segmentation: nn.Module, top: int) -> None:
        super().__init__()
        self.teacher, self.student, self.segmentation, self.top = teacher, student, segmentation, top

    def forward(self, images: Tensor) -> Maps:
        """(B, 3, S, S) uint8 -> `Maps`, in fp32; the layers are the student's distances."""
        x = prepare(images)
        taught, imitated = self.teacher(x), self.student(x)
        logits = self.segmentation(similarity_features(taught, imitated)).float()
        probability = torch.sigmoid(logits)
        pixel = resize(probability[:, None], images.shape[-1])[:, 0]
        return Maps(stack_levels(cosine_distances(taught, imitated)), pixel, top_score(pixel, self.top))


def empty_network(config: Recipe) -> Network:
    """A network that waits for trained weights."""
    assert isinstance(config, Config)
    return Network(ResNet18Pyramid(), DenoisingStudent(config), SegmentationNet(config), config.top)


class DeSTSeg:
    """A student learns to undo synthetic anomalies in feature space; a net learns where it had to."""

    def __init__(
        self, config: Config, teacher: nn.Module, execution: Execution, synthesis: AnomalySynthesis
    ) -> None:
        self.config, self.execution, self.synthesis = config, execution, synthesis
        self.teacher = self.place(teacher)
        self.student: nn.Module = nn.Identity()
        self.segmentation: nn.Module = nn.Identity()
        self.snapshots: dict[str, dict[str, Tensor]] = {}
        """Only 'last': the recipe tests the last step."""

    def fit(self, train: Tensor, *, seed: int) -> History:
        """Both stages on (N, 3, S, S) uint8 normal images. Resumes from the execution's checkpoint.

        Raises ValueError for fewer images than one batch, FloatingPointError when a loss stops being finite.
        """
        if len(train) < self.config.batch_size:
            raise ValueError(
                f"{len(train)} training images do not fill one batch of {self.config.batch_size}: "
                "batches are dropped when incomplete, so nothing would be trained"
            )
        training = Training(self, train.to(self.execution.device), seed)
        training.run()
        self.snapshots = {"last": dict(self.student.state_dict()) | dict(self.segmentation.state_dict())}
        return History(
            steps=training.total,
            images_seen=training.total * self.config.batch_size,
            curves=training.curves,
            selected={"step": training.total},
            learning_curve=training.learning_curve,
        )

    def use(self, snapshot: str) -> None:
        """There is one snapshot, and it is in use."""
        if snapshot not in self.snapshots:
            raise KeyError(snapshot)

    def maps(self, images: Tensor) -> Maps:
        """Anomaly maps of (M, 3, S, S) uint8 images, on the CPU; always in fp32, whatever trained."""
        return in_batches(self.network, images, self.config.batch_size, self.execution.device)

    @property
    def network(self) -> Network:
        """What is deployed."""
        return Network(self.teacher, self.student, self.segmentation, self.config.top)

    def alternatives(self, maps: Maps) -> dict[str, Maps]:
        """The same networks read in other ways: the student's distances alone; the largest pixel as score."""
        distances = fuse(maps.layers, maps.pixel.shape[-1])
        return {
            "maps=distances": Maps(maps.layers, distances, top_score(distances, self.config.top)),
            "score=max": maps._replace(image=max_score(maps.pixel)),
        }

    def place(self, network: nn.Module) -> nn.Module:
        """To the device, channels last."""
        return network.to(self.execution.device).to(memory_format=torch.channels_last)

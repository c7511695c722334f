"""DeSTSeg beside the official code: what `parity.py` runs of it."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock, patch

import numpy as np
import torch
import torch.nn.functional as F
from authors import (
    Batch,
    Rows,
    arithmetic,
    both,
    destseg_name,
    flat,
    gap,
    same,
    segmentation_state,
    step_gap,
    their_code,
)  # fmt: skip
from torch import Tensor

from stlib.data import synthesis
from stlib.methods import destseg
from stlib.methods.training import Execution
from stlib.metrics import PixelRanking, label_regions
from stlib.nn.backbone import normalise, prepare
from stlib.nn.denoising import DenoisingStudent

CPU = torch.device("cpu")


class Official:
    """The official DeSTSeg with our teacher, on one batch."""

    after: Tensor
    """The student after its step of stage 1."""

    def __init__(
        self, code: Callable[[str], ModuleType], batch: Batch, dtype: torch.dtype = torch.float32
    ) -> None:
        timm = code("timm")
        made = timm.create_model
        self.train, self.batch, self.dtype = code("train"), batch, dtype
        torch.manual_seed(0)
        with patch.object(timm, "create_model", lambda name, **o: made(name, **o | {"pretrained": False})):
            self.model = self.train.DeSTSeg().to(dtype)
        self.model.teacher_net.encoder.load_state_dict(batch.teacher.state_dict(), strict=False)

    def run(self, first: int, second: int) -> dict[str, list[float]]:
        """Their training for so many steps of each stage; what it logs."""
        made = batch_dicts(self.batch.made, self.dtype)
        wanted = SimpleNamespace(
            bs=len(made), num_workers=0, steps=first + second, de_st_steps=first, eval_per_steps=10**9,
            log_per_steps=10**9, gamma=4, lr_de_st=0.4, lr_res=0.1, lr_seghead=0.01, run_name_head="x",
            mvtec_path="", dtd_path="",
        )  # fmt: skip
        log = MagicMock()
        with (
            tempfile.TemporaryDirectory() as folder,
            patch.multiple(
                self.train, DeSTSeg=lambda **_: self.model, MVTecDataset=lambda **_: made, SummaryWriter=log
            ),
        ):
            wanted.checkpoint_path = wanted.log_path = folder
            self.train.train(wanted, "x")
        found: dict[str, list[float]] = {}
        for call in log.return_value.add_scalar.call_args_list:
            found.setdefault(call.args[0], []).append(call.args[1].item())
        return found


def batch_dicts(made: synthesis.Synthetic, dtype: torch.dtype) -> list[dict[str, Tensor]]:
    """A batch as the official dataset gives it, image by image."""
    parts = (
        *(normalise(part.to(dtype)) for part in (made.corrupted, made.clean)),
        made.mask[:, None].to(dtype),
    )
    return [
        dict(zip(("img_aug", "img_origin", "mask"), item, strict=True)) for item in zip(*parts, strict=True)
    ]


class Fixed(synthesis.AnomalySynthesis):
    """Gives the one batch."""

    rotates = True

    def __init__(self, made: synthesis.Synthetic) -> None:
        self.made = made

    def __call__(self, *_: object) -> synthesis.Synthetic:
        return self.made


class Ours:
    """Our DeSTSeg with the weights of the official one, before its first step."""

    after: Tensor
    """The student after its step of stage 1."""

    def __init__(self, official: Official) -> None:
        self.official, batch, dtype = official, official.batch, official.dtype
        config = destseg.Config(batch_size=len(batch.images), student_steps=1, segmentation_steps=1)
        made = batch.made
        given = made._replace(clean=made.clean.to(dtype), corrupted=made.corrupted.to(dtype))
        teacher = batch.teacher.to(dtype)
        self.method = destseg.DeSTSeg(config, teacher, Execution(CPU), Fixed(given))
        self.training = self.method.begin(batch.images, 0)
        for network in (self.method.student, self.method.segmentation):
            network.to(dtype)
        self.take()

    def theirs(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The official student's and segmentation net's state under our names."""
        model, method = self.official.model, self.method
        student = same(model.student_net.state_dict(), method.student, destseg_name)
        return student, segmentation_state(model.segmentation_net.state_dict(), method.segmentation)

    def take(self) -> None:
        """Start again from the official weights."""
        for network, state in zip(
            (self.method.student, self.method.segmentation), self.theirs(), strict=True
        ):
            network.load_state_dict(state)

    def step(self, stage: int) -> dict[str, float]:
        """One step of that stage; what it logs."""
        self.training.step = stage - 1
        learn = self.training._denoise if stage == 1 else self.training._segment
        return {name: value.item() for name, value in learn(self.training._picks()).items()}

    def contiguous_step(self) -> Tensor:
        """The student after a step of stage 1 whose tensors lie in PyTorch's default layout, as theirs do."""
        for network in (self.method.teacher, self.method.student):
            network.to(memory_format=torch.contiguous_format)
        with patch.object(destseg, "normalise", lambda images: normalise(images).contiguous()):
            self.step(1)
        return flat(self.method.student.state_dict())


def steps(official: Official, ours: Ours) -> Rows:
    """A step of each stage, each from equal weights."""
    student, net = ours.theirs()
    logged, mine = official.run(1, 0), ours.step(1)
    loss = mine["distillation_loss"] * len(official.batch.images)
    found: Rows = {"stage 1, loss": both(logged["cosine_loss"][0], loss)}
    official.after, ours.after = flat(ours.theirs()[0]), flat(ours.method.student.state_dict())
    found["stage 1, student after its step"] = step_gap(flat(student), official.after, ours.after)
    ours.take()
    logged, mine = official.run(0, 1), ours.step(2)
    for name, theirs in (("focal", "focal_loss"), ("L1", "l1_loss")):
        found[f"stage 2, {name} loss"] = both(logged[theirs][0], mine[theirs])
    found["stage 2, net after its step"] = step_gap(
        flat(net), flat(ours.theirs()[1]), flat(ours.method.segmentation.state_dict())
    )
    frozen = flat(ours.method.student.state_dict()), flat(ours.theirs()[0])
    found["stage 2, the frozen student"] = {"difference": max(gap(official.after, one) for one in frozen)}
    ours.take()
    return found


def sizes(official: Official, ours: Ours) -> Rows:
    """Parameters, and which start at zero."""
    model, method = official.model, ours.method
    networks = {
        "student": (model.student_net, method.student),
        "segmentation net": (model.segmentation_net, method.segmentation),
    }
    found: Rows = {}
    for name, pair in networks.items():
        found[f"parameters of the {name}"] = both(*(sum(p.numel() for p in n.parameters()) for n in pair))
    fresh = model.student_net, DenoisingStudent(destseg.Config())
    zeros = [sum(not p.any() for n, p in s.named_parameters() if n.endswith("weight")) for s in fresh]
    return found | {"BatchNorms whose weight starts at zero": both(*zeros)}


def maps(official: Official, ours: Ours, metric: ModuleType) -> Rows:
    """Maps, scores and instance metrics of the official networks, through both."""
    batch = official.batch
    official.model.eval()
    with torch.no_grad():
        outputs = official.model(prepare(batch.images))[:2]
    located, own = (F.interpolate(o, (256, 256), mode="bilinear", align_corners=False)[:, 0] for o in outputs)
    found = ours.method.maps(batch.images)
    distances = ours.method.alternatives(found)["maps=distances"]
    top = located.flatten(1).sort(descending=True).values[:, :100].mean(1)
    iaps = metric.IAPS()
    iaps.update(own[:, None], batch.made.mask[:, None].long())
    ranking, theirs = PixelRanking(own, label_regions(batch.made.mask)), iaps.compute()
    return {
        "anomaly maps": {"difference": gap(located, found.pixel)},
        "image scores, mean of 100": {"difference": gap(top, found.image)},
        "the student's own maps": {"difference": gap(own, distances.pixel)},
        "IAP": both(theirs[0], ranking.iap()),
        "IAP@90": both(theirs[1], ranking.iap90()),
    }


def masks(code: ModuleType, draws: int) -> Rows:
    """Synthetic masks are drawn, not computed: shares of both sides, and no difference."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - theirs draw from it
    grey = np.full((256, 256, 3), 100, np.uint8)
    theirs = np.array([code.perlin_noise(grey, grey)[1].mean() for _ in range(draws)])
    drawn = torch.Generator().manual_seed(0)
    parts = [synthesis.perlin_masks(50, 256, drawn, CPU).float().mean((1, 2)) for _ in range(draws // 50)]
    areas = theirs, torch.cat(parts).numpy()
    empty, marked = ([float(take(area)) for area in areas] for take in (lambda a: (a == 0).mean(), np.mean))
    return {
        f"empty among {draws} masks": dict(zip(("theirs", "ours"), empty, strict=True)),
        f"marked area of {draws} masks": dict(zip(("theirs", "ours"), marked, strict=True)),
    }


def rows(clones: Path, batch: Batch, draws: int) -> Rows:
    """Everything."""
    found: Rows = {}
    made = {}
    with their_code(clones / "ml-destseg") as code:
        for dtype in (torch.float64, torch.float32):
            with arithmetic(dtype) as name:
                official = Official(code, batch, dtype)
                contiguous = Ours(official).contiguous_step()
                ours = Ours(official)  # lays the teacher's weights back
                found |= sizes(official, ours)
                start = flat(ours.theirs()[0])
                found |= {f"{what}, {name}": row for what, row in steps(official, ours).items()}
                made[name] = official.after, ours.after, contiguous
        exact, rounded = made.values()
        apart = [step_gap(start, a, b)["difference"] for a, b in zip(exact, rounded, strict=True)]
        found["stage 1, float32's step apart from float64's"] = dict(
            zip(("theirs", "ours", "contiguous"), apart, strict=True)
        )
        found |= maps(official, ours, code("model.metrics")) | masks(code("data.data_utils"), draws)
    return {f"DeSTSeg: {what}": row for what, row in found.items()}

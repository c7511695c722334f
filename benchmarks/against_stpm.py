"""STPM beside the official code: what `parity.py` runs of it."""

import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from authors import Batch, Rows, arithmetic, both, flat, gap, same, step_gap, stpm_name, their_code
from sklearn.model_selection import train_test_split
from torch import Tensor
from torchvision import transforms

from stlib.data.mvtec import with_mask_rule
from stlib.data.splits import split_train
from stlib.methods import stpm
from stlib.methods.training import Execution
from stlib.metrics import PixelRanking, label_regions
from stlib.nn.backbone import features, prepare
from stlib.nn.losses import l2_normalize
from stlib.protocol import MEAN, STD


class Pair:
    """The official networks and ours, with equal weights in one precision."""

    def __init__(self, main: ModuleType, batch: Batch, dtype: torch.dtype) -> None:
        self.main, self.batch = main, batch
        self.x = prepare(batch.images).contiguous()
        torch.manual_seed(0)
        self.their_teacher, self.their_student = (main.ResNet18_MS3().to(dtype) for _ in range(2))
        children = enumerate(batch.teacher.children())
        weights = {f"{i}.{name}": t for i, child in children for name, t in child.state_dict().items()}
        self.their_teacher.model.load_state_dict(weights, strict=False)  # its layer4 reaches no output
        size = len(batch.images)
        self.method = stpm.STPM(stpm.Config(batch_size=size), batch.teacher, Execution(torch.device("cpu")))
        self.training = self.method.begin(0)
        self.method.student.to(dtype).load_state_dict(self.theirs())
        batch.teacher.to(dtype)
        self.targets = [l2_normalize(f) for f in features(batch.teacher, batch.images, size)]

    def theirs(self) -> dict[str, Tensor]:
        """The official student's weights under our names."""
        return same(self.their_student.state_dict(), self.method.student, stpm_name)

    @property
    def loader(self) -> object:
        """One batch, as `train_val` and `test` ask for it."""
        once = {"dataset": self.batch.images, "__iter__": lambda _: iter([("", self.x)])}
        return type("Loader", (), once)()

    def step(self) -> Rows:
        """One step of both trainings."""
        before = flat(self.theirs())
        spy = patch.object(Tensor, "backward", autospec=True, side_effect=Tensor.backward)
        with tempfile.TemporaryDirectory() as folder, spy as backward:
            wanted = SimpleNamespace(epochs=1, model_save_path=folder, category="x")
            self.main.train_val(self.their_teacher, self.their_student, self.loader, self.loader, wanted)
        loss = self.training.run_epoch(self.batch.images, self.targets, torch.arange(len(self.x)))
        after = step_gap(before, flat(self.theirs()), flat(self.method.student.state_dict()))
        their_loss = backward.call_args_list[0].args[0].item()
        return {"loss of a step": both(their_loss, loss), "student after an SGD step": after}

    def maps(self) -> Rows:
        """Maps and scores of the official student, in float32, through both."""
        student, images = self.method.student, self.batch.images
        student.load_state_dict(self.theirs())
        score_maps = self.main.test(self.their_teacher, self.their_student, self.loader)
        maps = self.method.maps(images)
        score = self.method._mean_fused(images, self.targets, list(range(len(images))))
        large = np.stack([self.main.cv2.resize(one, (256, 256)) for one in score_maps])
        return {
            "score that chooses the epoch": {"difference": gap(score_maps.mean(), score)},
            "anomaly maps": {"difference": gap(large, maps.pixel)},
            "image scores": {"difference": gap(large.max(-1).max(-1), maps.image)},
        }


def data(main: ModuleType, batch: Batch) -> Rows:
    """Preprocessing, split, and the masks under the rule of its code."""
    files, category = batch.category.layout.train, batch.category
    steps = [transforms.Resize([256, 256]), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    shown = main.MVTecDataset(files[: len(batch.images)], transforms.Compose(steps))
    x = torch.stack([image for _, image in shown])
    held = set(train_test_split(files, test_size=0.2, random_state=0)[1])
    marked = torch.as_tensor(main.load_gt(str(category.layout.folder.parent), category.name))
    rule = with_mask_rule(category, "any")[[item.mask is not None for item in category.layout.test]]
    return {
        "preprocessing of image files": {"difference": gap(x, prepare(batch.images))},
        "held-out images": {"difference": float(len(held ^ {files[i] for i in split_train(len(files))[1]}))},
        "masks under its rule, share of pixels": {"difference": (marked != rule).float().mean().item()},
    }


def rows(clones: Path, batch: Batch) -> Rows:
    """Everything."""
    with their_code(clones / "STFPM") as code:
        main = code("main")
        found = data(main, batch)
        for dtype in (torch.float64, torch.float32):
            with arithmetic(dtype) as name:
                pair = Pair(main, batch, dtype)
                found |= {f"{what}, {name}": row for what, row in pair.step().items()}
        found |= pair.maps()
        values = (pair.method.maps(batch.images).pixel * 100).round()  # ties
        auroc = code("evaluate").evaluate(batch.made.mask.flatten().numpy(), values.flatten().numpy())
        found["pixel AUROC, with ties"] = both(
            auroc, PixelRanking(values, label_regions(batch.made.mask)).auroc()
        )
    return {f"STPM: {what}": row for what, row in found.items()}

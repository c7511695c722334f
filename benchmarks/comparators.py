"""Equal features through anomalib's PatchCore and PaDiM, equal weights through two authors' code, and ours.

python benchmarks/comparators.py CLONES [--data MVTEC_AD --category bottle --teacher WEIGHTS] [--save]

CLONES holds clones of RD4AD and AAND (COMMITS); their code is imported from there. anomalib's models get
this study's teacher in the place of their backbone and our bank or channels, so that nothing differs but the
arithmetic of the method and what each side chose. A difference is the largest one over the largest value of
theirs. Scores of the whole test set say what the choices are worth: anomalib upsamples PatchCore's map by
repeating, and weighs its image score (the paper's equation 7), which the official code does not.
"""

import argparse
import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from authors import Rows, both, gap, options_with_clones, their_code
from side_by_side import asked, report, show
from torch import Tensor, nn

from stlib.data.mvtec import Category, load_category
from stlib.demo.dataset import make_demo
from stlib.methods import METHODS, get_method
from stlib.methods.aand import AdvancedTeacher, Config, Training
from stlib.methods.rd4ad import Student
from stlib.methods.training import Execution, reuse_memory
from stlib.methods.training_free import TrainingFree
from stlib.metrics import PixelRanking, image_metrics, label_regions
from stlib.nn.amplification import Residual
from stlib.nn.backbone import CHANNELS, ResNet18Pyramid, load_teacher, prepare
from stlib.nn.losses import flat_cosine_loss, gate_loss
from stlib.nn.maps import Maps

COMMITS = "hq-deng/RD4AD @6554076, Hui-design/AAND @376c4e4"
CPU = torch.device("cpu")


class Named(nn.Module):
    """The teacher as anomalib's models want a backbone: a dictionary of layers."""

    def __init__(self, teacher: nn.Module, layers: list[str]) -> None:
        super().__init__()
        self.teacher, self.layers = teacher, layers
        self.out_dims = [CHANNELS[int(name[-1]) - 1] for name in layers]

    def forward(self, images: Tensor) -> Mapping[str, Tensor]:
        levels = self.teacher(images)
        return {name: levels[int(name[-1]) - 1] for name in self.layers}


def fitted(name: str, category: Category, teacher: ResNet18Pyramid) -> TrainingFree:
    """Ours, seed 0."""
    method = get_method(name).build(get_method(name).recipe("paper"), teacher, Execution(CPU))
    assert isinstance(method, TrainingFree)
    method.fit(category.train, seed=0)
    return method


def scores(category: Category, maps: Maps) -> dict[str, float]:
    """Image and pixel AUROC."""
    ranking = PixelRanking(maps.pixel, label_regions(category.masks))
    image = image_metrics(maps.image, category.labels)["image_auroc"]
    return {"image AUROC": image, "pixel AUROC": ranking.auroc()}


def compared(name: str, category: Category, theirs: Maps, ours: Maps) -> Rows:
    """Rows of the largest difference of maps and scores, and of both AUROCs."""
    mine, other = scores(category, ours), scores(category, theirs)
    rows: Rows = {
        f"{name}: map": {"difference": gap(theirs.pixel, ours.pixel)},
        f"{name}: image score": {"difference": gap(theirs.image, ours.image)},
    }
    return rows | {f"{name}: {metric}": both(other[metric], mine[metric]) for metric in mine}


def in_parts(model: nn.Module, images: Tensor) -> Maps:
    """Their model over the test set."""
    with torch.no_grad():
        found = [model(prepare(part)) for part in torch.split(images, 4)]
    pixel = torch.cat([each.anomaly_map[:, 0] for each in found])
    return Maps(pixel[:, None], pixel, torch.cat([each.pred_score.flatten() for each in found]))


def patchcore(category: Category, teacher: ResNet18Pyramid) -> Rows:
    """Theirs with our bank, as it is and with the two choices taken back."""
    module = importlib.import_module("anomalib.models.image.patchcore.torch_model")
    method = fitted("patchcore", category, teacher)
    ours = method.maps(category.test)
    with patch.object(module, "TimmFeatureExtractor", lambda **kwargs: Named(teacher, kwargs["layers"])):
        model = module.PatchcoreModel(
            layers=["layer2", "layer3"], backbone="resnet18", pre_trained=False
        ).eval()
    model.memory_bank = method.network.bank
    rows = compared("PatchCore, anomalib as it is", category, in_parts(model, category.test), ours)
    model.compute_anomaly_score = lambda patch_scores, *_: patch_scores.amax(dim=1)

    def bilinear(scores: Tensor, image_size: tuple[int, int] | None) -> Tensor:
        shown = F.interpolate(scores, size=tuple(image_size or ()), mode="bilinear")
        return model.anomaly_map_generator.blur(shown)

    model.anomaly_map_generator.forward = bilinear
    return rows | compared(
        "PatchCore, anomalib bilinear, unweighted", category, in_parts(model, category.test), ours
    )


def padim(category: Category, teacher: ResNet18Pyramid) -> Rows:
    """Theirs with our channels; it takes mean and covariance itself."""
    module = importlib.import_module("anomalib.models.image.padim.torch_model")
    method = fitted("padim", category, teacher)
    with patch.object(module, "TimmFeatureExtractor", lambda **kwargs: Named(teacher, kwargs["layers"])):
        model = module.PadimModel(
            backbone="resnet18", layers=["layer1", "layer2", "layer3"], pre_trained=False, n_features=100
        )
    model.idx = method.network.chosen
    model.train()
    teacher.eval()
    with torch.no_grad():
        for part in torch.split(category.train, 8):
            model(prepare(part))
        model.fit()
    model.eval()
    return compared("PaDiM, anomalib", category, in_parts(model, category.test), method.maps(category.test))


def rd4ad(clones: Path) -> Rows:
    """The authors' bottleneck and decoder with their weights in ours: features, loss and gradient."""
    with their_code(clones / "RD4AD") as code:
        theirs, reverse = code("resnet"), code("de_resnet")
    torch.manual_seed(0)
    bottleneck, decoder = theirs.BN_layer(theirs.AttnBasicBlock, 2), reverse.de_resnet18(pretrained=False)
    ours = Student()
    pairs = {
        "down1.0.0": bottleneck.conv1,
        "down1.0.1": bottleneck.bn1,
        "down1.1.0": bottleneck.conv2,
        "down1.1.1": bottleneck.bn2,
        "down2.0": bottleneck.conv3,
        "down2.1": bottleneck.bn3,
        "embedding": bottleneck.bn_layer,
    }
    for place, module in pairs.items():
        ours.get_submodule(place).load_state_dict(module.state_dict())
    for block, stage in zip(ours.decoder, (decoder.layer1, decoder.layer2, decoder.layer3), strict=True):
        named = {key.replace("upsample", "downsample"): value for key, value in stage.state_dict().items()}
        block.load_state_dict(named)
    levels = [torch.rand(4, c, 256 // s, 256 // s) for c, s in zip(CHANNELS, (4, 8, 16), strict=True)]
    mine, other = ours(levels), decoder(bottleneck(levels))
    cosine = nn.CosineSimilarity()
    loss = sum(
        (torch.mean(1 - cosine(a.view(4, -1), b.view(4, -1))) for a, b in zip(levels, other, strict=True)),
        torch.zeros(()),
    )
    own = flat_cosine_loss(levels, mine)
    torch.autograd.backward([loss, own])
    grads = bottleneck.conv1.weight.grad, ours.get_parameter("down1.0.0.weight").grad
    flat = [torch.cat([x.detach().flatten() for x in found]) for found in (other, mine)]
    return {
        "RD4AD: rebuilt features": {"difference": gap(*flat)},
        "RD4AD: loss": both(loss.item(), own.item()),
        "RD4AD: gradient of the first convolution": {"difference": gap(*grads)},
    }


def aand(clones: Path) -> Rows:
    """The authors' residual of a Wide ResNet-50's level 1, with its weights in ours, and their losses."""
    with their_code(clones / "AAND") as code:
        networks, losses = code("models.recons_net"), code("models.loss")
    torch.manual_seed(0)
    theirs, ours = networks.RAR_single([256], [64], 50), Residual(256, 64, keys=50, temperature=0.2)
    ours.query.load_state_dict(theirs.projs[0].state_dict())
    ours.values.load_state_dict(theirs.projs2[0].state_dict())
    ours.keys.data = theirs.K_list[0].data[0]
    level, mask = torch.rand(4, 256, 64, 64), torch.rand(4, 1, 256, 256) > 0.7
    shrunk = F.adaptive_avg_pool2d(mask.float(), 64)[:, 0] > 0.3
    with torch.no_grad():
        (other, gate), (mine, own) = theirs([level], True), ours(level)
        masked = theirs([level], False, mask.float())[0], ours(level, shrunk)[0]
    focal = losses.BCEFocalLoss()(gate.flatten(), shrunk.float().flatten())
    config = Config()
    training = Training(AdvancedTeacher(ResNet18Pyramid(), config), Student(), config, Execution(CPU))
    shapes = [(1, channels, side, side) for channels, side in zip(CHANNELS, (64, 32, 16), strict=True)]
    levels, changed = ([torch.rand(shape) for shape in shapes] for _ in range(2))
    defect = torch.zeros(1, 1, 256, 256)
    defect[:, :, 64:128, 32:160] = 1  # so few positions that both sides take them all
    masks = [F.adaptive_avg_pool2d(defect, level.shape[-1])[:, 0] > 0.3 for level in levels]
    random = torch.Generator()
    amplification = sum(
        training._amplification(level, other, mask, ~mask, random).item()
        for level, other, mask in zip(levels, changed, masks, strict=True)
    )
    return {
        "AAND: amplification loss": both(
            losses.get_amplify_loss(levels, changed, defect)[1].item(), amplification
        ),
        "AAND: the student's loss": both(
            losses.loss_fucntion(levels, changed).item(), training._hard_loss(levels, changed).item()
        ),
        "AAND: residual": {"difference": gap(other, mine)},
        "AAND: gate": {"difference": gap(gate.flatten(), own.flatten())},
        "AAND: residual under a mask": {"difference": gap(*masked)},
        "AAND: focal loss": both(focal.item(), gate_loss(own, shrunk).item()),
    }


def costs(category: Category, teacher: ResNet18Pyramid) -> Rows:
    """Megabytes of a saved detector; without training also CPU seconds, of the fit and of all maps."""
    found: Rows = {}
    for name, entry in METHODS.items():
        network: nn.Module = entry.empty_network(entry.recipe("paper"))
        found[name] = {}
        if entry.training_free:
            begin = time.process_time()
            method = fitted(name, category, teacher)
            fit = time.process_time()
            method.maps(category.test)
            found[name] = {"fit": fit - begin, "maps": time.process_time() - fit}
            network = method.network
        size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
        found[name]["megabytes"] = size / 1e6
    return found


def main(arguments: argparse.Namespace) -> None:
    reuse_memory()
    category = load_category(arguments.data or make_demo(), arguments.category, image_size=256)
    teacher, _ = load_teacher(arguments.teacher)
    found = (
        aand(arguments.clones)
        | rd4ad(arguments.clones)
        | padim(category, teacher)
        | patchcore(category, teacher)
    )
    show(found)
    spent = costs(category, teacher)
    show(spent)
    results = {
        "commits": COMMITS,
        "category": category.name,
        "images": len(category.test),
        "checks": found,
        "costs": spent,
    }
    report("comparators", arguments, results)


if __name__ == "__main__":
    main(asked(options_with_clones(__doc__ or "")))

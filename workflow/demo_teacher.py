"""Make the demo teacher, `stlib/demo/teacher.safetensors`, from drawn textures and shipped photographs.

    python workflow/demo_teacher.py             # train on one core and write the file
    python workflow/demo_teacher.py --evaluate  # STPM on the demo with this teacher and with a random one

Task, from each pyramid level alone and at every position of an image glued from two textures: describe the
surface there (oriented energies, mean and extreme colours) and name the texture. It asks every level for
local, varied features, which is what STPM's student imitates. None of the demo's photographs (brick, grass,
gravel) and none of its defects is among the images.
"""

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from safetensors.torch import save as serialise
from skimage import data
from torch import Tensor, nn

import stlib
from stlib.demo import DEMO_TEACHER
from stlib.demo.dataset import DEMO_CATEGORIES
from stlib.demo.textures import SIDE, Picture, Rng, kinds, texture
from stlib.files import sha256, write_atomic
from stlib.nn.backbone import CHANNELS, ResNet18Pyramid, prepare

PHOTOGRAPHS = (
    "astronaut", "camera", "chelsea", "coffee", "coins", "hubble_deep_field", "immunohistochemistry",
    "retina", "rocket",
)  # fmt: skip
"""Public-domain or CC0 images inside scikit-image, none of them the demo's; each quarter is one class."""
SEED = 0
PER_CLASS = 32
"""Pictures of each of the 105 classes."""
CROP, BATCH, STEPS, LEARNING_RATE = 64, 32, 800, 2e-3
NAMING = 0.3
"""Weight of the cross-entropy beside the descriptors' squared error."""
ORIENTATIONS, SCALES = 6, (1, 2, 4)
DESCRIPTORS = 2 * ORIENTATIONS * len(SCALES) + 9
"""Channels of `describe`: means and maxima of the energies; mean, largest and smallest RGB."""


def make_pool() -> Tensor:
    """(classes, PER_CLASS, 3, SIDE, SIDE) uint8 pictures: drawn textures first, then photographs."""
    rng = np.random.default_rng(SEED)
    classes = [[texture(*kind, rng) for _ in range(PER_CLASS)] for kind in kinds()]
    for name in PHOTOGRAPHS:
        photograph = Image.fromarray(getattr(data, name)()).convert("RGB")
        classes += [[quarter_crop(photograph, q, rng) for _ in range(PER_CLASS)] for q in range(4)]
    return torch.from_numpy(np.array(classes)).permute(0, 1, 4, 2, 3)


def quarter_crop(photograph: Image.Image, quarter: int, rng: Rng) -> Picture:
    """(SIDE, SIDE, 3): a random crop of one quarter of a photograph."""
    width, height = photograph.width / 2, photograph.height / 2
    side = min(rng.uniform(80, 220), width, height)
    left = quarter % 2 * width + rng.uniform(0, width - side)
    top = quarter // 2 * height + rng.uniform(0, height - side)
    box = (left, top, left + side, top + side)
    return np.asarray(photograph.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box))


def augmented(pool: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turned, scaled, recoloured crops (BATCH, 3, CROP, CROP) around [0, 255], their classes (BATCH,)."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(BATCH, *shape).uniform_(low, high, generator=generator)

    labels = torch.randint(len(pool), (BATCH,), generator=generator)
    images = pool[labels, torch.randint(PER_CLASS, (BATCH,), generator=generator)].float()
    angle, zoom, room = uniform(-0.4, 0.4), CROP / SIDE * uniform(0.75, 1.0), uniform(-0.25, 0.25, 2)
    flip = uniform(-1, 1).sign()
    across = torch.stack([flip * zoom * angle.cos(), -zoom * angle.sin(), room[:, 0]], 1)
    down = torch.stack([flip * zoom * angle.sin(), zoom * angle.cos(), room[:, 1]], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), [BATCH, 3, CROP, CROP], align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    images = torch.where(uniform(0, 1, 1, 1, 1) < 0.4, images.mean(1, keepdim=True), images)  # grey ones too
    centre = images.mean((2, 3), keepdim=True)
    return (images - centre) * uniform(0.6, 1.4, 1, 1, 1) + centre + uniform(-30, 30, 1, 1, 1), labels


def glued(pool: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(BATCH, 3, CROP, CROP) images glued from two along a circle, and the class of every pixel."""
    (first, a), (second, b) = augmented(pool, generator), augmented(pool, generator)
    centre = torch.empty(BATCH, 2, 1, 1).uniform_(-0.3 * CROP, 1.3 * CROP, generator=generator)
    radius = torch.empty(BATCH, 1, 1).uniform_(0.2 * CROP, 0.9 * CROP, generator=generator)
    place = torch.stack(torch.meshgrid(torch.arange(CROP), torch.arange(CROP), indexing="ij"))
    inside = (place - centre).square().sum(1).sqrt() < radius
    labels = torch.where(inside, a[:, None, None], b[:, None, None])
    return torch.where(inside[:, None], first, second).clamp(0, 255), labels


def gabor_bank() -> Tensor:
    """(2 * ORIENTATIONS, 1, 11, 11): even, then odd Gabor filters of wavelength 5, without mean."""
    y, x = np.indices((11, 11)) - 5.0
    envelope = np.exp(-(x**2 + y**2) / (2 * 2.2**2))
    angles = np.arange(ORIENTATIONS) * np.pi / ORIENTATIONS
    waves = [2 * np.pi * (np.cos(a) * x + np.sin(a) * y) / 5 for a in angles]
    filters = [np.cos(wave + phase) * envelope for phase in (0, np.pi / 2) for wave in waves]
    return torch.tensor(np.array([f - f.mean() for f in filters]), dtype=torch.float32)[:, None] / 8


def describe(images: Tensor, bank: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) in [0, 255] -> (B, DESCRIPTORS, size, size): what the surface looks like in each cell."""
    grey, colour = images.mean(1, keepdim=True) / 255, images / 255
    energies = []
    for scale in SCALES:
        even, odd = F.conv2d(F.pad(F.avg_pool2d(grey, scale), (5, 5, 5, 5), mode="reflect"), bank).chunk(2, 1)
        energies.append((even**2 + odd**2 + 1e-6).sqrt())
    means = [F.adaptive_avg_pool2d(x, size) for x in [*((e + 0.01).log() for e in energies), colour]]
    # Maxima, so that a single odd pixel in a busy texture counts too.
    return torch.cat([*means, *(F.adaptive_max_pool2d(x, size) for x in [*energies, colour, -colour])], 1)


def train() -> ResNet18Pyramid:
    """AdamW on the sum of both tasks over the levels, bfloat16 convolutions, one-cycle learning rate."""
    torch.manual_seed(SEED)
    pool, generator, bank = make_pool(), torch.Generator().manual_seed(SEED), gabor_bank()
    network = ResNet18Pyramid().to(memory_format=torch.channels_last)
    heads = nn.ModuleList(nn.Conv2d(channels, DESCRIPTORS + len(pool), 1) for channels in CHANNELS)
    standardise = nn.ModuleList(nn.BatchNorm2d(DESCRIPTORS, affine=False) for _ in CHANNELS)
    weights = [*network.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(weights, LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, STEPS, pct_start=0.1)
    for step in range(STEPS):
        images, labels = glued(pool, generator)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = [head(level) for head, level in zip(heads, network(prepare(images)), strict=True)]
        losses = []
        for output, scale in zip(outputs, standardise, strict=True):
            described, named = output.float().split([DESCRIPTORS, len(pool)], dim=1)
            stride = CROP // output.shape[-1]
            names = labels[:, stride // 2 :: stride, stride // 2 :: stride]
            target = scale(describe(images, bank, output.shape[-1]))
            losses.append(F.mse_loss(described, target) + NAMING * F.cross_entropy(named, names))
        optimiser.zero_grad()
        torch.autograd.backward(torch.stack(losses).sum())
        optimiser.step()
        schedule.step()
        if step % 50 == 0 or step == STEPS - 1:
            print(f"step {step:4d}  loss per level {' '.join(f'{loss.item():.3f}' for loss in losses)}")
    return network


def save(network: ResNet18Pyramid) -> None:
    """Write the state dict in float16; the counters of seen batches have no effect in eval mode."""
    state = {name: x.detach().half().contiguous() for name, x in network.state_dict().items() if x.dim()}
    write_atomic(DEMO_TEACHER, serialise(state))
    print(f"{DEMO_TEACHER}  {DEMO_TEACHER.stat().st_size} bytes  sha256 {sha256(DEMO_TEACHER)}")


def score(category: str, source: str, seed: int) -> tuple[float, float]:
    """Image and pixel AUROC of STPM's demo run with the teacher `source`."""
    demo = stlib.make_demo()
    detector = stlib.fit("stpm", demo / category, profile="demo", teacher=source, seed=seed)
    images = stlib.load_category(demo, category, image_size=detector.image_size)
    metrics = stlib.evaluate(detector.maps(images.test), images).metrics
    return metrics["image_auroc"], metrics["pixel_auroc"]


def measure() -> None:
    """Print a Markdown table: mean and standard deviation over three seeds, demo and random teacher."""
    print("| category | teacher | image AUROC | pixel AUROC |\n|---|---|---|---|")
    for category in DEMO_CATEGORIES:
        for source in ("demo", "random"):
            scores = np.array([score(category, source, seed) for seed in range(3)])
            spread = scores.std(axis=0, ddof=1)
            image, pixel = (f"{m:.3f} +- {s:.3f}" for m, s in zip(scores.mean(axis=0), spread, strict=True))
            print(f"| {category} | {source} | {image} | {pixel} |")


def main(evaluate: bool = typer.Option(False, "--evaluate", help="Measure instead of training.")) -> None:
    """Train and write the demo teacher, or measure it."""
    torch.set_num_threads(1)  # sums, and so the file, do not depend on the number of cores
    if evaluate:
        measure()
    else:
        save(train())


if __name__ == "__main__":
    typer.run(main)

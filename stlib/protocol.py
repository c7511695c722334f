"""What every method shares: dataset facts, input format, metrics, profiles; constants and one check of them.

Sources: MVTec AD (Bergmann et al., CVPR 2019, Table 1) for the counts; the official STPM and DeSTSeg
code for the 256x256 whole-image resize and the ImageNet normalisation.
"""

from typing import Literal, NamedTuple, get_args

IMAGE_SIZE = 256
"""Side of the square network input in pixels; the whole image is resized, nothing is cropped."""
DEMO_IMAGE_SIZE = 96
"""The same for the demo."""
IMAGE_SIZES = range(64, 1025, 32)
"""What the variant 'image_size=N' of every method may choose."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet normalisation of RGB values in [0, 1]."""

LAYERS = ("layer1", "layer2", "layer3")
"""The three levels of the feature pyramid, by ResNet-18's names."""

NAME = r"[^./\\<>&\"'\x00-\x1f][^/\\<>&\"'\x00-\x1f]*"
"""What a category may be called: part of a path, and of a page, so no separator and no markup."""


class Counts(NamedTuple):
    """Number of images of one category."""

    train_good: int
    test_good: int
    test_defect: int


CATEGORIES: dict[str, Counts] = {
    "carpet": Counts(280, 28, 89),
    "grid": Counts(264, 21, 57),
    "leather": Counts(245, 32, 92),
    "tile": Counts(230, 33, 84),
    "wood": Counts(247, 19, 60),
    "bottle": Counts(209, 20, 63),
    "cable": Counts(224, 58, 92),
    "capsule": Counts(219, 23, 109),
    "hazelnut": Counts(391, 40, 70),
    "metal_nut": Counts(220, 22, 93),
    "pill": Counts(267, 26, 141),
    "screw": Counts(320, 41, 119),
    "toothbrush": Counts(60, 12, 30),
    "transistor": Counts(213, 60, 40),
    "zipper": Counts(240, 32, 119),
}
"""The 15 categories of MVTec AD in the papers' order: five textures, then ten objects."""

DEFECTS: dict[str, tuple[str, ...]] = {
    "carpet": ("color", "cut", "hole", "metal_contamination", "thread"),
    "grid": ("bent", "broken", "glue", "metal_contamination", "thread"),
    "leather": ("color", "cut", "fold", "glue", "poke"),
    "tile": ("crack", "glue_strip", "gray_stroke", "oil", "rough"),
    "wood": ("color", "combined", "hole", "liquid", "scratch"),
    "bottle": ("broken_large", "broken_small", "contamination"),
    "cable": (
        "bent_wire", "cable_swap", "combined", "cut_inner_insulation", "cut_outer_insulation",
        "missing_cable", "missing_wire", "poke_insulation",
    ),
    "capsule": ("crack", "faulty_imprint", "poke", "scratch", "squeeze"),
    "hazelnut": ("crack", "cut", "hole", "print"),
    "metal_nut": ("bent", "color", "flip", "scratch"),
    "pill": ("color", "combined", "contamination", "crack", "faulty_imprint", "pill_type", "scratch"),
    "screw": ("manipulated_front", "scratch_head", "scratch_neck", "thread_side", "thread_top"),
    "toothbrush": ("defective",),
    "transistor": ("bent_lead", "cut_lead", "damaged_case", "misplaced"),
    "zipper": (
        "broken_teeth", "combined", "fabric_border", "fabric_interior", "rough", "split_teeth",
        "squeezed_teeth",
    ),
}  # fmt: skip
"""Official names of the folders of defects, by category."""

TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
"""The five categories that are textures; the others are objects."""

Profile = Literal["paper", "short", "demo"]
PROFILES: dict[Profile, str] = {
    "paper": "the paper's full schedule on MVTec AD",
    "short": "a declared shortened schedule on MVTec AD; never compared with the paper as if it were full",
    "demo": "a small schedule on the demo dataset; shows that the code runs, says nothing about MVTec AD",
}
"""Profiles are never mixed in one table."""

Metric = Literal["image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_f1", "aupro", "iap", "iap90"]
METRICS: dict[Metric, str] = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1": "best pixel F1",
    "aupro": "AUPRO@0.3",
    "iap": "IAP",
    "iap90": "IAP@90",
}
"""Names used in records and tables, in display order, with the words shown to readers."""

Precision = Literal["fp32", "tf32", "bf16"]
"""Arithmetic of training and validation; the maps that metrics are computed from are always fp32.

fp32: float32 throughout. tf32, on a GPU only: float32 whose convolutions and matrix products round their
inputs to 10 bits of fraction. bf16: PyTorch's autocast to bfloat16, which keeps more operations in float32 on
a GPU than on a CPU, softmax and sums among them.
"""
PRECISIONS: dict[str, Precision] = {f"precision={name}": name for name in get_args(Precision)}
"""Variants of every method that change no field of the recipe, with the arithmetic that they name. Their
records have a folder of their own, so that one category and seed can be run in both."""


def require_precision(precision: str, device: str) -> None:
    """Raise ValueError for an unknown precision, or one that `device` ('cpu', 'cuda:1') does not have."""
    if precision not in get_args(Precision):
        raise ValueError(f"unknown precision '{precision}': choose {', '.join(get_args(Precision))}")
    if precision == "tf32" and not device.startswith("cuda"):
        raise ValueError(
            f"precision 'tf32' is for a GPU, and the device is '{device}': choose device cuda or "
            "precision fp32"
        )


TUNING_EPOCHS = (0, 1, 2, 3, 5, 10)
"""Full epochs of the teacher's fine-tuning in the epoch study: 0 is STPM, 2 the paper's choice."""


ABLATION_ROWS: dict[str, str] = {
    "none": "none",
    "RCM": "RCM",
    "AFF": "AFF",
    "PCAR": "PCAR",
    "RCM+PCAR": "RCM+PCAR",
    "AFF+PCAR": "AFF+PCAR",
    "RCM+AFF+PCAR": "",
    "RCM+AFF": "RCM+AFF",
    "control": "control",
}
"""Label of a row -> variant of PFADSeg, in the order of the paper's Table 4; the row with all three modules
is PFADSeg itself. The last two are this study's: the combination that the paper leaves out, and PCAR's three
convolutions summed without recalibration (the capacity control)."""

DTD_IMAGES = 5640
"""Images of the complete Describable Textures Dataset."""


TOLERANCES: dict[Metric, float] = {
    "image_auroc": 0.020,
    "image_ap": 0.020,
    "pixel_auroc": 0.010,
    "pixel_ap": 0.050,
    "pixel_f1": 0.050,
    "aupro": 0.020,
    "iap": 0.050,
    "iap90": 0.100,
}
"""Largest difference between the mean over seeds and the reported number that still counts as agreement.

Fixed before the first run was finished. The sizes follow the spread between published re-implementations of
STPM and between two published runs of DeSTSeg: per category some .01 of pixel AUROC, .02 of image AUROC, .1
of pixel AP and more of IAP@90. The tolerances of AP and IAP are half of that spread, so that they can fail.
"""
SEEDS_FOR_A_VERDICT = 3
"""With fewer seeds nothing is proven."""

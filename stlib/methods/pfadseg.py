"""PFADSeg: Parallel Feature Aggregation and Denoising for Anomaly Segmentation (arXiv:2501.12104).

DeSTSeg's training (methods/destseg.py) with PCAR, AFF and RCM in its networks and another schedule (section
4.3). What the text leaves open follows DeSTSeg's code.
"""

from stlib.methods.destseg import Config
from stlib.nn.blocks import Recalibration
from stlib.protocol import Profile

PAPER = Config(
    batch_size=16,
    student_steps=3000,
    segmentation_steps=4000,
    student_rate=0.5,
    # DeSTSeg's zero initialisation came with timm's ResNet; every ablation row starts without it.
    zero_init=False,
    rcm=True,
    aff=True,
    pcar="pcar",
)

SHORT = {"batch_size": 8, "student_steps": 300, "segmentation_steps": 200}
DEMO = {"image_size": 128, "batch_size": 8, "student_steps": 60, "segmentation_steps": 60}

PROFILES: dict[Profile, Config] = {
    "paper": PAPER,
    "short": PAPER.model_copy(update=SHORT),
    "demo": PAPER.model_copy(update=DEMO),
}

Switches = tuple[bool, bool, Recalibration]
ABLATION: dict[str, Switches] = {
    "none": (False, False, "none"),
    "RCM": (True, False, "none"),
    "AFF": (False, True, "none"),
    "PCAR": (False, False, "pcar"),
    "RCM+PCAR": (True, False, "pcar"),
    "AFF+PCAR": (False, True, "pcar"),
    "RCM+AFF+PCAR": (True, True, "pcar"),
    "RCM+AFF": (True, True, "none"),
    "control": (False, False, "control"),
}
"""Rows 1 to 7 of the paper's Table 4 in its order, the combination it leaves out, and the capacity control:
PCAR's three convolutions summed without recalibration. Values are (rcm, aff, pcar)."""


def row(name: str, profile: Profile) -> Config:
    """The recipe of one ablation row. Raises KeyError for an unknown row."""
    rcm, aff, pcar = ABLATION[name]
    return PROFILES[profile].model_copy(update={"rcm": rcm, "aff": aff, "pcar": pcar})

"""PFADSeg: Parallel Feature Aggregation and Denoising for Anomaly Segmentation (arXiv:2501.12104).

DeSTSeg's training (methods/destseg.py) with PCAR, AFF and RCM in its networks and another schedule (section
4.3). What the text leaves open follows DeSTSeg's code.
"""

from stlib.methods.destseg import DEMO, SHORT, Config, DeSTSeg, empty_network
from stlib.methods.entry import MethodEntry
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

PROFILES: dict[Profile, Config] = {
    "paper": PAPER,
    "short": PAPER.model_copy(update=SHORT),
    "demo": PAPER.model_copy(update=DEMO),
}

ROWS: dict[str, dict[str, object]] = {
    "none": {"rcm": False, "aff": False, "pcar": "none"},
    "RCM": {"aff": False, "pcar": "none"},
    "AFF": {"rcm": False, "pcar": "none"},
    "PCAR": {"rcm": False, "aff": False},
    "RCM+PCAR": {"aff": False},
    "AFF+PCAR": {"rcm": False},
    "RCM+AFF": {"pcar": "none"},
    "control": {"rcm": False, "aff": False, "pcar": "control"},
}
"""The ablation: rows 1 to 6 of the paper's Table 4 in its order (row 7 is the method itself), the combination
it leaves out, and the capacity control: PCAR's three convolutions summed without recalibration."""

CHOICES: dict[str, dict[str, object]] = {
    "gamma=1": {"layer_scale": 1.0},
    "dilations=1-2-3": {"dilations": (1, 2, 3)},
    "softmax=maps": {"pcar": "maps"},
    "softmax=channels": {"pcar": "channels"},
    "reduction=mean": {"reduction": "mean"},
    "no-factor-2": {"aff_factor": 1.0},
    "student-only": {"segmentation_modules": False},
    "zero-init": {"zero_init": True},
    "none+zero-init": ROWS["none"] | {"zero_init": True},
}
"""What the text leaves open, one choice changed at a time; the last is row 1 as DeSTSeg's code starts it."""

VARIANTS = ROWS | CHOICES

METHOD = MethodEntry("PFADSeg", PROFILES, DeSTSeg, empty_network, VARIANTS, needs_textures=True)

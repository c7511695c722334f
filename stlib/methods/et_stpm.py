"""ET-STPM: STPM with an enhanced teacher (arXiv:2512.18219). Extends methods/stpm.py.

The student's training is STPM's own; the teacher has been fine-tuned first (methods/finetuning.py), and that
is the only difference. Chapter: book/teacher.md.
"""

from typing import Literal

from pydantic import NonNegativeInt
from torch import nn

from stlib.methods import stpm
from stlib.methods.entry import MethodEntry
from stlib.methods.finetuning import Tuning
from stlib.methods.training import Execution, Recipe
from stlib.nn.losses import feature_pyramid_loss, l1_cosine_loss
from stlib.protocol import TUNING_EPOCHS, Profile


class Config(stpm.Config):
    """STPM's recipe, and the teacher's."""

    teacher_epochs: NonNegativeInt = 2
    """Full epochs of fine-tuning; 0 leaves the teacher as it was, and the method is STPM."""
    tuning: Tuning = Tuning()
    loss: Literal["squared", "l1+cosine"] = "squared"
    """STPM's loss, so that the teacher is the only change; the paper's sentence names L1 and cosine."""


def tuning(config: Recipe) -> tuple[Tuning, int]:
    """How the recipe fine-tunes the teacher, and for how many full epochs."""
    assert isinstance(config, Config)
    return config.tuning, config.teacher_epochs


_DEMO = stpm.PROFILES["demo"]
PROFILES: dict[Profile, Config] = {
    "paper": Config(),
    "short": Config(epochs=stpm.PROFILES["short"].epochs),
    "demo": Config(
        **_DEMO.model_dump(), tuning=Tuning(image_size=_DEMO.image_size, batch_size=8), teacher_epochs=2
    ),
}

_OTHERS: dict[str, dict[str, object]] = {
    "data=B": {"tuning": {"data": "B"}},
    "data=C": {"tuning": {"data": "C"}},
    "rate=1e-5": {"tuning": {"full_rate": 1e-5}},
    "rate=1e-3": {"tuning": {"full_rate": 1e-3}},
    # The only optimiser that the paper names, with its momentum, weight decay and batch. They are the
    # student's, whose rate of 0.4 would destroy the teacher: the two rates are this study's.
    "optimiser=sgd": {"tuning": {"optimiser": "sgd", "head_rate": 1e-2, "full_rate": 1e-3}},
    "loss=l1+cosine": {"loss": "l1+cosine"},
}
VARIANTS: dict[str, dict[str, object]] = {
    **stpm.VARIANTS,
    **_OTHERS,
    # the teacher of seed 0 whatever the run's seed: what is left is chance in the student's training alone
    "teacher=0": {"tuning": {"seed": 0}},
    "data=B,teacher=0": {"tuning": {"data": "B", "seed": 0}},
    **{f"e={e}": {"teacher_epochs": e} for e in TUNING_EPOCHS if e != 2},
    **{f"e={e},{name}": {"teacher_epochs": e} | fields for e in TUNING_EPOCHS if e not in (0, 2)
       for name, fields in _OTHERS.items()},
}  # fmt: skip
"""STPM's own; other epochs of the teacher, leaking data (B, C), rates a tenth and ten times as large, the
paper's optimiser, the other loss; one teacher for all seeds; all but the last at the other epochs too."""


class ETSTPM(stpm.STPM):
    """STPM on whatever teacher it is given; `config.loss` may be the paper's sentence."""

    def __init__(self, config: Config, teacher: nn.Module, execution: Execution) -> None:
        super().__init__(config, teacher, execution)
        self.loss = feature_pyramid_loss if config.loss == "squared" else l1_cosine_loss


METHOD = MethodEntry("ET-STPM", PROFILES, ETSTPM, stpm.empty_network, VARIANTS, tuning, stpm.held_out)

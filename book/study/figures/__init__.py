"""The study's pictures: numpy arrays, records and tables in, matplotlib figures out. Imports no torch.

Every figure is white, uses seaborn's colour-blind-safe palette with a second cue beside colour (line style,
marker, hatch or word). What a figure plots, for readers who cannot see it, stands in the cell that shows it.
"""

from study.figures.comparisons import (
    across_works,
    against_epochs,
    choice_effects,
    critical_difference,
    forest,
    in_short,
    reported_vs_reproduced,
)
from study.figures.images import (
    feature_maps,
    found,
    gallery,
    gallery_rows,
    levels,
    samples,
    side_by_side,
    synthesis,
)
from study.figures.runs import (
    image_curves,
    learning_curves,
    roc_pr,
    score_histogram,
    teacher_curves,
    training_curve,
    training_curves,
)

__all__ = [
    "across_works",
    "against_epochs",
    "choice_effects",
    "critical_difference",
    "feature_maps",
    "forest",
    "found",
    "gallery",
    "gallery_rows",
    "image_curves",
    "in_short",
    "learning_curves",
    "levels",
    "reported_vs_reproduced",
    "roc_pr",
    "samples",
    "score_histogram",
    "side_by_side",
    "synthesis",
    "teacher_curves",
    "training_curve",
    "training_curves",
]  # fmt: skip

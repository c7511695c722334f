"""The study's pictures: numpy arrays, records and tables in, matplotlib figures out.

Every figure is white, uses seaborn's colour-blind-safe palette with a second cue beside colour (line style,
marker, hatch or word). What a figure plots, for readers who cannot see it, stands in the cell that shows it.
"""

from study.figures.comparisons import (
    across_works as across_works,
    against_epochs as against_epochs,
    choice_effects as choice_effects,
    critical_difference as critical_difference,
    forest as forest,
    in_short as in_short,
    reported_vs_reproduced as reported_vs_reproduced,
)
from study.figures.images import (
    feature_maps as feature_maps,
    found as found,
    gallery as gallery,
    gallery_rows as gallery_rows,
    levels as levels,
    samples as samples,
    side_by_side as side_by_side,
    synthesis as synthesis,
)
from study.figures.runs import (
    convergence as convergence,
    image_curves as image_curves,
    jumps as jumps,
    learning_curves as learning_curves,
    roc_pr as roc_pr,
    score_histogram as score_histogram,
    teacher_curves as teacher_curves,
    training_curve as training_curve,
    training_curves as training_curves,
)

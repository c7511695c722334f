import re

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib import pyplot as plt

from stlib.paths import ROOT
from stlib.protocol import CATEGORIES, TOLERANCES
from stlib.records.schema import History
from study import figures
from study.analysis import runs
from study.analysis.comparison import comparison


@pytest.fixture(autouse=True)
def nothing_left_open():
    yield
    assert plt.get_fignums() == []  # a notebook would show an open figure twice


def drawn(figure):
    """Render it, so that layout and fonts are exercised too."""
    figure.set_dpi(40)
    figure.canvas.draw()
    assert figure.get_facecolor() == (1, 1, 1, 1)
    return figure


def segments(axis, number):
    return [line.tolist() for line in axis.collections[number].get_segments()]


def test_the_tested_epoch_is_marked_on_every_curve(make_record):
    figure = drawn(figures.training_curve(make_record().history))
    loss, score = figure.axes
    assert [segments(axis, 0) for axis in (loss, score)] == [
        [[[1, 3.5], [2, 1.2], [3, 0.5]]],
        [[[1, 0.1], [2, 0.02], [3, 0.03]]],
    ]
    assert [segments(axis, 1) for axis in figure.axes] == [[[[2, 0], [2, 1]]]] * 2
    assert {axis.get_yscale() for axis in figure.axes} == {"log"}
    low, high = loss.get_ylim()
    assert low < 0.5
    assert high > 3.5


def test_seeds_share_the_panels_of_a_category(make_record):
    history = make_record().history
    panels = drawn(figures.training_curves({"bottle": [history] * 2, "grid": [history]})).axes
    assert [len(segments(panel, 0)) for panel in panels] == [2, 2, 1, 1]
    other = history.model_copy(update={"curves": {"validation": [0.2, 0.1]}})
    panels = drawn(figures.training_curves({"bottle": [history], "grid": [other]})).axes
    assert [len(segments(panel, 0)) for panel in (*panels[:3], *panels[4:7])] == [1, 1, 0, 0, 0, 1]
    with pytest.raises(ValueError, match="no training"):
        figures.training_curves({})


def test_scores_are_split_by_folder(make_record):
    good, defective = runs.good_and_defective(make_record())
    assert list(good) == [0.5, 0.1]
    assert list(defective) == [0.9, 0.4]


def test_the_histogram_counts_every_image():
    axis = drawn(figures.score_histogram(np.array([0.1, 0.2, 0.3]), np.array([0.9, 0.8]))).axes[0]
    bars = [patch for patch in axis.patches if hasattr(patch, "get_height")]
    assert sum(bar.get_height() for bar in bars) == 3
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["good", "defective"]


def test_image_curves_match_the_counts():
    curves = figures.image_curves(np.array([0.5, 0.1]), np.array([0.9, 0.5]))
    assert curves == {"fpr": [0, 0.5, 1], "recall": [0.5, 1, 1], "precision": [1, 2 / 3, 0.5]}
    assert figures.image_curves(np.array([]), np.array([0.9])) == {}


def test_roc_and_pr_show_pixels_and_images(make_record):
    record = make_record()
    figure = drawn(figures.roc_pr(record.pixel_curves, *runs.good_and_defective(record)))
    assert [len(axis.lines) for axis in figure.axes] == [2, 2]
    alone = figures.roc_pr(record.pixel_curves, np.array([]), np.array([0.4]))
    assert [len(axis.lines) for axis in alone.axes] == [1, 1]


def test_gallery_rows_follow_the_rank_of_the_scores():
    scores = np.array([0.2, 0.9, 0.1, 0.5, 0.8])
    defective = np.array([True, True, False, True, False])
    assert figures.gallery_rows(scores, defective) == {
        "highest score": 1, "median defect": 3, "lowest defect": 0, "highest good": 4
    }  # fmt: skip
    assert "highest good" not in figures.gallery_rows(scores[:2], defective[:2])
    alone = figures.gallery_rows(scores, np.zeros(5, dtype=bool))
    assert list(alone) == ["highest good"]  # a test set of good images only has a gallery, too


def test_the_gallery_draws_one_line_per_image_on_one_scale():
    images = np.zeros((2, 16, 16, 3), np.uint8)
    masks = np.zeros((2, 16, 16), bool)
    masks[0, 4:8, 4:8] = True
    maps = np.linspace(0, 3, 512).reshape(2, 16, 16)
    figure = drawn(figures.gallery(images, masks, maps, ["a/0", "good/1"], rows=["highest", "good"]))
    panels = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    assert len(panels) == 6
    assert len({axis.images[1].norm.vmax for axis in panels if len(axis.images) > 1}) == 1
    with pytest.raises(ValueError, match="shorter"):
        figures.gallery(images, masks, maps, ["a/0"], rows=["highest", "good"])


def test_the_dot_plot_shows_tolerance_value_and_interval(make_record):
    runs = [make_record("bottle", value=0.97), make_record("toothbrush", gaps=["x"], value=0.9)]
    axis = drawn(figures.reported_vs_reproduced(comparison(runs, "stpm", "pixel_auroc"))).axes[0]
    assert len(axis.patches) == len(CATEGORIES)
    assert axis.patches[0].get_width() == pytest.approx(2 * TOLERANCES["pixel_auroc"])
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == [0.97, 0.9]
    assert dots[1].get_markerfacecolor() == "white"


def test_the_first_figure_draws_differences_from_the_printed_scores(make_record):
    runs = [make_record("bottle", seed, 0.98 + 0.001 * seed) for seed in range(3)]
    levels = comparison(runs, "stpm", "pixel_auroc")
    pair = {"category": "bottle", "low": -0.01, "high": 0.03, "difference": 0.01}
    pair |= {"last": -0.02, "claim": None}
    above, below = drawn(figures.in_short(levels, pd.DataFrame([pair], dtype=object))).axes
    (dot,) = (line for line in above.lines if line.get_marker() == "o")
    assert dot.get_xdata()[0] == pytest.approx(0.981 - 0.987894)
    assert above.patches[0].get_width() == pytest.approx(2 * TOLERANCES["pixel_auroc"])
    marks = {line.get_marker(): line.get_xdata()[0] for line in below.lines}
    assert (marks["o"], marks["x"]) == (0.01, -0.02)
    assert "D" not in marks  # nothing is printed


@pytest.mark.parametrize(("last", "told"), [(-0.157, "← \u22120.157"), (0.3, "0.300 →")])
def test_a_last_epoch_far_out_does_not_hide_the_gains(make_record, last, told):
    levels = comparison([make_record("bottle", seed) for seed in range(3)], "stpm", "pixel_auroc")
    pair = {"category": "bottle", "low": -0.01, "high": 0.03, "difference": 0.01, "last": last, "claim": 0.02}
    below = drawn(figures.in_short(levels, pd.DataFrame([pair], dtype=object))).axes[1]
    assert [text.get_text() for text in below.texts] == [told]
    assert below.get_xlim() == pytest.approx((-0.022, 0.042))


def test_every_figure_of_a_page_says_what_it_plots_to_those_who_cannot_see_it():
    names = "|".join(name for name, found in vars(figures).items() if callable(found))
    drawing = re.compile(rf"^(?:display\()?figures\.({names})\(", re.MULTILINE)
    seen = 0
    for path in (ROOT / "book").glob("*.md"):
        for head, code in re.findall(
            r"```\{code-cell\} ipython3\n---\n(.*?)\n---\n(.*?)```",
            path.read_text(encoding="utf-8"),
            re.DOTALL,
        ):
            if drawing.search(code):
                seen += 1
                assert yaml.safe_load(head)["mystnb"]["image"]["alt"].endswith("."), (path.name, code)
    assert seen > 12


def test_jumps_are_drawn_by_category_with_a_dot_where_statistics_were_taken_anew():
    frame = pd.DataFrame(
        {
            "category": ["grid", "grid", "grid", "pill"],
            "seed": [0, 0, 1, 0],
            "epoch": [1, 2, 1, 1],
            "validation": [1, 9, 3, 2],
            "validation_anew": [np.nan, 1, 3, 2],
        }
    )
    grid, pill = drawn(figures.jumps(frame)).axes
    line, other, dots = grid.lines
    assert (list(line.get_ydata()), list(other.get_ydata())) == ([1, 9], [3])  # a line per seed
    assert list(dots.get_ydata())[1:] == [1, 3]
    assert "pill" in pill.get_title()
    with pytest.raises(ValueError, match=r"make one with benchmarks/jumps\.py"):
        figures.jumps(frame[:0])


def test_convergence_has_a_panel_per_category_and_a_line_per_method():
    line = {"seed": 0, "epoch": [1, 2]}
    frame = pd.concat(
        pd.DataFrame({"category": category, "method": method, "ratio": ratio} | line)
        for category, method, ratio in (
            ("grid", "stpm", [9.0, 1.0]),
            ("grid", "et_stpm", [4.0, 1.0]),
            ("pill", "stpm", [3.0, 1.0]),
        )
    )
    figure = drawn(figures.convergence(frame))
    grid, pill, unused = figure.axes
    assert [list(shown.get_ydata()) for shown in grid.lines[:2]] == [[9, 1], [4, 1]]
    assert len({shown.get_linestyle() for shown in grid.lines}) == 3  # the third marks the paper's length
    assert (pill.get_title(), unused.axison) == ("pill", False)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["STPM", "ET-STPM"]
    with pytest.raises(ValueError, match="no run to draw"):
        figures.convergence(frame[:0])


def test_a_learning_curve_has_a_point_per_watched_step_and_a_line_per_run():
    curve = {250: {"pixel_ap": 0.5}, -500: {"pixel_ap": 0.1}, 0: {"pixel_ap": 0.2}, 500: {}}
    trained = History(steps=1, images_seen=1, selected={}, curves={}, learning_curve=curve)
    unwatched = History(steps=1, images_seen=1, selected={}, curves={})
    groups = {
        "pill": {"row 1": {0: unwatched}, "row 7": {2: trained}},
        "grid": {"row 1": {0: unwatched}},
        "tile": {"row 1": {1: trained}},
    }
    figure = drawn(figures.learning_curves(groups, ["pixel_ap"]))
    pill, tile = figure.axes
    assert ("pill" in pill.get_title(), "tile" in tile.get_title()) == (True, True)
    (line,), (other,) = pill.lines, tile.lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([-500, 0, 250], [0.1, 0.2, 0.5])
    assert line.get_color() != other.get_color(), "a name is one colour in all panels, two names are two"
    assert line.get_marker() != other.get_marker(), "so is a seed a marker"
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == ["row 7", "row 1", "seed 1", "seed 2"]
    with pytest.raises(ValueError, match="no learning curve"):
        figures.learning_curves({"pill": {"none": {0: unwatched}}}, ["pixel_ap"])

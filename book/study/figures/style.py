"""What all figures share: size, colours and panels."""

from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import NDArray

BLUE, ORANGE, _, RED = sns.color_palette("colorblind")[:4]
WIDTH = 7.0
"""Inches; at 100 dots per inch the width of a page's column."""
NARROW = 4.6
"""Of a chart that a phone shows whole: its words stay as large as the page's."""
STYLE = {"font.size": 11, "axes.titlesize": 11, "figure.facecolor": "white", "savefig.facecolor": "white"}
Values = NDArray[np.floating]


def canvas(
    rows: int, columns: int, height: float, *, share: Literal["x", "y", ""] = "x", width: float = WIDTH
) -> tuple[Figure, NDArray[np.object_]]:
    """A figure with a (rows, columns) array of axes.

    Those of a column share their x axis; with `share="y"` those of a row share y instead, with "" none.
    """
    with sns.axes_style("whitegrid", rc=STYLE):
        figure, axes = plt.subplots(
            rows,
            columns,
            figsize=(width, height),
            squeeze=False,
            sharex="col" if share == "x" else False,
            sharey="row" if share == "y" else False,
            layout="constrained",
        )
    plt.close(figure)  # the caller returns it; otherwise a notebook would show it twice
    return figure, axes

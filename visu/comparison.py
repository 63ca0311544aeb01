"""The picture of a comparison: a panel for each measure, a bar for each network."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from evaluation.comparison import COLUMNS, Row
from system.names import printable

PANEL, BAR = 2.4, 0.32  # width and height, in inches
REST = 0.9  # height of the titles and the axis
DPI = 110


def draw_comparison(rows: Sequence[Row]) -> Figure:
    """Bars are means, dots are runs; untrained networks and raw pixels are grey."""
    size = (PANEL * (len(COLUMNS) + 1), BAR * len(rows) + REST)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    places = range(len(rows))
    colours = ["C0" if row.sources else "C7" for row in rows]
    panels = figure.subplots(1, len(COLUMNS), sharey=True)
    for ax, (column, title) in zip(panels, COLUMNS.items(), strict=True):
        figures = [row.figures(column) for row in rows]
        ax.barh(places, [each.mean() for each in figures], color=colours, alpha=0.5)
        for place, each in zip(places, figures, strict=True):
            ax.plot(each, [place] * len(each), "k.", markersize=4)
        ax.set_title(title, fontsize="medium")
        ax.locator_params(axis="x", nbins=4)
        ax.grid(axis="x", alpha=0.3)
    names = [printable(row.name) for row in rows]
    panels[0].set_yticks(places, names, parse_math=False)
    panels[0].invert_yaxis()
    return figure

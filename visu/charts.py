"""The curves of runs, drawn by matplotlib: into a figure of several runs, or as SVG for a page."""

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

Metrics = list[dict[str, Any]]
Series = tuple[str, str, str, str]  # name, colour, line style, keys in a line of metrics.jsonl


@dataclass(frozen=True)
class Chart:
    """Curves over the epochs that share a scale.

    Attributes:
        title: the label of the y-axis.
        note: a line that explains the values.
        scale: of the y-axis; "zero" is linear from 0.
        series: one for each curve.
    """

    title: str
    note: str = field(kw_only=True, default="")
    scale: Literal["linear", "zero", "log"] = field(kw_only=True, default="linear")
    series: list[Series] = field(kw_only=True)


LEARNING = [
    Chart(
        "loss",
        note="mean cross-entropy of the epoch; guessing gives ln k (DeeperCluster: ln S + ln K, of "
        "super-classes and the sub-classes of each), and so does the entropy of SwAV's codes if "
        "they are even",
        series=[
            ("convnet loss", "C0", "-", "convnet_loss"),
            ("code entropy", "C1", "-.", "code_entropy"),
            ("of super-classes", "C2", "--", "super_loss"),
            ("of sub-classes", "C3", ":", "sub_loss"),
            ("guessing", "C7", "--", "ln_k"),
        ],
    ),
    Chart(
        "NMI, ARI of the clusters",
        note="normalised mutual information and adjusted Rand index: agreement of the clusters "
        "with those of the epoch before, and with the labels",
        series=[
            ("NMI, before", "C0", "-", "nmi_previous"),
            ("NMI, labels", "C1", "--", "nmi_labels"),
            ("ARI, labels", "C2", "-.", "ari"),
        ],
    ),
    Chart(
        "share of the images",
        note="purity: in the most frequent folder of their cluster; ACC: in the folder that is "
        "matched with their cluster, one to one; neighbours: classified right by the 10 nearest",
        series=[
            ("purity", "C2", "-", "purity"),
            ("ACC", "C0", "-.", "acc"),
            ("10 neighbours are right", "C3", "--", "knn_top1.10"),
        ],
    ),
    Chart(
        "super-clusters",
        note="agreement of DeeperCluster's super-clusters with the labels",
        series=[
            ("NMI, labels", "C1", "--", "super_clusters.nmi_labels"),
            ("ARI, labels", "C2", "-.", "super_clusters.ari"),
            ("purity", "C3", "-", "super_clusters.purity"),
            ("ACC", "C0", ":", "super_clusters.acc"),
        ],
    ),
    Chart(
        "rotations recognised",
        note="share of the epoch's images whose rotation the network recognised; guessing gives a "
        "fourth",
        series=[("rotations recognised", "C0", "-", "rotation_accuracy")],
    ),
]
DETAILS = [
    Chart(
        "loss of the clustering",
        note="sum of squared distances to the centroids",
        series=[("k-means loss", "C0", "-", "kmeans_loss")],
    ),
    Chart(
        "mean cosine of two images",
        note="of their embeddings in training; near 1, the network has collapsed",
        series=[("mean cosine", "C0", "-", "mean_cosine")],
    ),
    Chart(
        "clusters that are not empty",
        scale="zero",
        series=[("not empty", "C0", "-", "nonempty_clusters"), ("k", "C7", "--", "clusters")],
    ),
    Chart(
        "sizes of the clusters",
        note="images, of those that are not empty",
        scale="log",
        series=[
            ("largest", "C1", "-", "cluster_size.largest"),
            ("median", "C0", "-", "cluster_size.median"),
            ("smallest", "C2", "--", "cluster_size.smallest"),
        ],
    ),
    Chart(
        "seconds per stage",
        scale="zero",
        series=[
            ("training", "C0", "-", "seconds.training"),
            ("clustering", "C1", "--", "seconds.clustering"),
            ("features", "C2", "-", "seconds.features"),
        ],
    ),
]
MOST_POINTS = 40  # of a curve with a dot for each point
LARGEST = 1e100  # matplotlib cannot scale an axis to the largest floats

# A page's style sheet sets the colours, so that they follow its dark mode.
VARIABLES = {
    "#1f77b4": "blue",
    "#ff7f0e": "orange",
    "#2ca02c": "green",
    "#d62728": "red",
    "#7f7f7f": "grey",
    "#000000": "soft",
}
SIZE = (5, 2.5)  # of a chart in a page, in inches of 72 pixels
STYLE: Any = {
    "font.size": 12,
    "legend.fontsize": 12,
    "lines.linewidth": 2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "svg.fonttype": "none",  # text stays text
}


def keep_known(charts: Iterable[Chart], lines: Metrics) -> list[Chart]:
    """The charts, without the series that have no value in any line."""
    kept = []
    for chart in charts:
        series = [s for s in chart.series if any(number(line, s[3]) is not None for line in lines)]
        if series:
            kept.append(replace(chart, series=series))
    return kept


def number(line: dict[str, Any], keys: str) -> float | None:
    """The value of a line at keys joined by dots; None unless it is a finite number."""
    value: Any = line
    for key in keys.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) and abs(value) < LARGEST else None


def draw_chart(ax: Axes, chart: Chart, metrics: Metrics) -> None:
    """Draw one run's curves. A curve skips the epochs without a value."""
    for name, colour, style, keys in chart.series:
        points = [(number(line, "epoch"), number(line, keys)) for line in metrics]
        there = [point for point in points if None not in point]
        marker = "." if len(there) <= MOST_POINTS else ""
        xs, ys = zip(*there, strict=True) if there else ((), ())
        ax.plot(xs, ys, color=colour, linestyle=style, marker=marker, label=name)
    if chart.scale == "log":
        ax.set_yscale("log")
        _mark_powers(ax.yaxis, *ax.get_ylim())
    elif chart.scale == "zero":
        ax.set_ylim(bottom=0)
    ax.grid(alpha=0.3)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def chart_svg(chart: Chart, metrics: Metrics, name: str) -> str:
    """One run's curves as SVG; its ids begin with `name`."""
    with mpl.rc_context(STYLE):
        figure, ax = _make_figure()
        draw_chart(ax, chart, metrics)
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
        return _to_svg(figure, name, chart.title)


def histogram_svgs(edges: Sequence[int], counts: Sequence[Sequence[int]], name: str) -> list[str]:
    """Histograms of cluster sizes on one scale, as SVG.

    Args:
        edges: the smallest size of each bin, whole numbers from 1 on, and the end of the last bin.
        counts: clusters in each bin, for each histogram.
        name: the beginning of the SVGs' ids.
    """
    with mpl.rc_context(STYLE):
        figure, ax = _make_figure()
        ax.set_xscale("log")
        ax.set_xlim(edges[0], edges[-1])
        ax.set_ylim(0, 1.05 * max(1, *(max(row) for row in counts)))
        ax.set(xlabel="images", ylabel="clusters")
        _mark_powers(ax.xaxis, edges[0], edges[-1])
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
        bars = ax.stairs(counts[0], edges, fill=True)
        drawn = []
        for place, row in enumerate(counts):
            bars.set_data(row)
            drawn.append(_to_svg(figure, f"{name}{place}", "histogram of the cluster sizes"))
            figure.set_layout_engine("none")  # the first layout fits all
        return drawn


def _make_figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.subplots()


def _mark_powers(axis: Axis, low: float, high: float) -> None:
    """Ticks of a logarithmic axis: 1, 10, 100 and, if there is room, 2, 5, 20, 50."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low <= 1000 else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def _to_svg(figure: Figure, name: str, title: str) -> str:
    """A figure as an SVG element with the page's font, the page's CSS variables as colours, and ids
    that begin with `name`, so that a page can hold several figures."""
    file = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": name}):  # the same ids each time
        figure.savefig(file, format="svg", transparent=True, metadata=no_metadata)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return re.sub(r"font-family: [^;]*; |(?<=\n) +", "", svg)

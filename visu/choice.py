"""The picture of a choice of k: loss, silhouette and stability over k."""

from matplotlib.figure import Figure

from cluster.choosing import Choice

SIZE, DPI = (9.0, 2.8), 110  # in inches
TICKS = 8  # labelled numbers of clusters, at most


def draw_choice(choice: Choice) -> Figure:
    """Three panels; the dashed line is the suggested k."""
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
    ks = [tried.k for tried in choice.table]
    panels = figure.subplots(1, 3)
    panels[0].plot(ks, [tried.loss for tried in choice.table], ".-")
    silhouettes = [tried.silhouette for tried in choice.table]
    deviations = [tried.deviation for tried in choice.table]
    panels[1].errorbar(ks, silhouettes, deviations, fmt=".-", capsize=2)
    panels[2].plot(ks, [tried.stability for tried in choice.table], ".-")
    for ax, title in zip(panels, ("loss", "silhouette", "stability"), strict=True):
        ax.set_title(title, fontsize="medium")
        ax.set_xscale("log")
        ax.set_xticks(ks[:: -(-len(ks) // TICKS)], labels=ks[:: -(-len(ks) // TICKS)])
        ax.minorticks_off()
        ax.set_xlabel("k")
        ax.axvline(choice.k, color="C3", linestyle="--")
        ax.grid(alpha=0.3)
    return figure

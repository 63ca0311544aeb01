"""A run on one HTML page: the numbers of its epochs, its first filters, its clusters, its settings.

The page is the template `report.html`, with `report.css` and `report.js` in it.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.checkpoint import read_checkpoint
from system.errors import InputError
from system.files import write_text
from training.finished_run import Run, read_run
from training.logs import read_warnings
from training.summary import duration
from visu.charts import (
    DETAILS,
    LEARNING,
    Chart,
    Metrics,
    chart_svg,
    histogram_svgs,
    keep_known,
)
from visu.first_filters import FilterView, view_filters
from visu.gallery import Gallery, make_gallery
from visu.overview import cluster_count, overview
from visu.page import fill_template

NAME = "report.html"
QUICK = "quick.json"  # of tools.eval_quick
CLUSTERS, IMAGES = 100, 10  # clusters with pictures, and pictures of each
MOST_BINS = 24  # of the histogram of cluster sizes
MOST_HISTOGRAMS = 20  # epochs with a histogram
_TOGETHER = (
    "“20 % together before (7)” means that 20 % of the images were in cluster 7 an epoch ago."
)


def write_report(
    exp: Path,
    clusters: int = CLUSTERS,
    images: int = IMAGES,
    also: Sequence[str] = (),
    data: Path | None = None,
) -> Path:
    """Write the page of a run (finished, running or interrupted) and return its path.

    Args:
        exp: the experiment folder.
        clusters, images, also: see `make_gallery`.
        data: where the images are now, if they have moved.

    Raises:
        InputError: the folder holds no run, is damaged or can't be written; or the run lacks
            something that `also` names.
    """
    try:
        run = read_run(exp, data)
        page = fill_template(NAME, describe_run(run, clusters, images, also))
    except RecursionError as error:
        raise InputError(
            f"{exp}: config.json or metrics.jsonl has lists nested too deeply"
        ) from error
    try:
        write_text(exp / NAME, page)
    except OSError as error:
        raise InputError(f"{exp / NAME}: cannot write it: {error.strerror}") from error
    return exp / NAME


def describe_run(run: Run, clusters: int, images: int, also: Sequence[str]) -> dict[str, Any]:
    """The content of the page, by the names that the template uses."""
    content: dict[str, Any] = {
        "name": "/".join(run.folder.resolve().parts[-2:]),
        "status": describe_progress(run),
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "overview": overview(run),
        "charts": _draw_charts(run.metrics),
        "numbers": list_numbers(run.metrics),
        "settings": [(name, _word(value)) for name, value in run.settings.items()],
        "learned": _learned(run.folder),
        "unhealthy": read_warnings(run.folder),
        "histograms": [],
        "gallery": None,
        "chosen": f"There are no clusters yet{run.why_no_clusters}.",
    }
    content["filters"], content["no_filters"] = _filters(run.folder)
    if run.epochs:
        gallery = make_gallery(run, run.epochs[-1], clusters, images, also)
        content["gallery"] = gallery
        content["chosen"] = _describe_choice(run, gallery, images)
        content["histograms"] = _draw_histograms(run)
    elif also:
        raise InputError(f"--also {also[0]}: the run has no clusters yet{run.why_no_clusters}")
    return content


def describe_progress(run: Run) -> str:
    """A sentence on the network, the clustering or method, and the epochs done."""
    settings = run.settings
    sobel = " on Sobel filters" if settings.get("sobel") else ""
    network, method = settings.get("arch", "A network"), settings.get("method", "clusters")
    subject = f"{network}{sobel}, {settings.get('clustering', method)}: "
    planned = settings.get("epochs")
    if not run.metrics:
        return f"{subject}no epoch is done yet."
    done = run.metrics[-1]["epoch"] + 1
    first = run.metrics[0]["epoch"]
    took = f"in {duration(run.metrics)}{f' from epoch {first} on' if first else ''}"
    if planned is not None and done >= planned and run.epochs and run.epochs[-1] >= planned:
        return f"{subject}finished, {done} of {planned} epochs {took}."
    last = time.localtime((run.folder / "metrics.jsonl").stat().st_mtime)
    return (
        f"{subject}not finished, {done} of {planned or '?'} epochs {took}, the last on "
        f"{time.strftime('%Y-%m-%d at %H:%M', last)}; the run is still running, or was interrupted."
    )


def list_numbers(metrics: Metrics) -> list[list[str]]:
    """A table of all numbers, with a row of names first; empty before the first epoch is done."""
    rows = [dict(_flatten(line)) for line in metrics]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [names, *([row.get(name, "–") for name in names] for row in rows)] if rows else []


def count_sizes(run: Run) -> dict[str, Any]:
    """Histograms of the cluster sizes for up to 20 epochs, the last among them.

    Returns:
        `edges`, the smallest size of each bin, whole numbers from 1 on; and `epochs`, each with its
        `name`, its `counts`, and the number of `empty` clusters.
    """
    places = np.linspace(0, len(run.epochs) - 1, min(len(run.epochs), MOST_HISTOGRAMS)).round()
    sizes = {}
    for epoch in [run.epochs[int(place)] for place in places]:
        assignment = run.assignment(epoch)
        found = np.bincount(assignment[assignment >= 0])
        sizes[epoch] = found[found > 0]
    largest = max(int(found.max(initial=1)) for found in sizes.values())
    edges = np.unique(np.geomspace(1, largest + 1, MOST_BINS + 1).round().astype(np.int64))
    epochs = [
        {
            "name": _name_epoch(run, epoch),
            "counts": np.histogram(found, edges)[0].tolist(),
            "empty": cluster_count(run, epoch, len(found)) - len(found),
        }
        for epoch, found in sizes.items()
    ]
    return {"edges": edges.tolist(), "epochs": epochs}


def _draw_charts(metrics: Metrics) -> list[tuple[Chart, str]]:
    charts = keep_known([*LEARNING, *DETAILS], metrics)
    return [(c, chart_svg(c, metrics, f"chart{place}")) for place, c in enumerate(charts)]


def _draw_histograms(run: Run) -> list[dict[str, Any]]:
    """The epochs of `count_sizes`, each with its `svg`."""
    sizes = count_sizes(run)
    epochs = sizes["epochs"]
    drawn = histogram_svgs(sizes["edges"], [epoch["counts"] for epoch in epochs], "sizes")
    return [{**epoch, "svg": svg} for epoch, svg in zip(epochs, drawn, strict=True)]


def _learned(exp: Path) -> dict[str, Any] | None:
    """The table and summary of `tools.eval_quick`; None if it was not run."""
    try:
        found = json.loads((exp / QUICK).read_text(encoding="utf-8"))
        return {
            "epoch": int(found["protocol"]["epoch"]),
            "table": [[str(word) for word in row] for row in found["table"]],
            "summary": [str(line) for line in found["summary"]],
        }
    except (OSError, ValueError, KeyError, TypeError):  # none, or of an earlier version
        return None


def _filters(exp: Path) -> tuple[Sequence[FilterView], str]:
    """The first layer's filters, or the reason why they are not shown."""
    path = exp / "checkpoint.pth.tar"
    if not path.exists():
        return [], "There is no checkpoint.pth.tar."
    try:
        return view_filters(read_checkpoint(path)["state_dict"]), ""
    except InputError as error:
        return [], str(error)


def _describe_choice(run: Run, gallery: Gallery, images: int) -> str:
    """Sentences on the clusters that are shown, and on the limits of the search box."""
    pictures = gallery.pictures
    by = "" if run.levels is None else "by super-cluster and in each "
    sentences = [
        f"The clusters of {_name_epoch(run, run.epochs[-1])}. Pictured, {by}the largest first: "
        f"{gallery.how}, each by {images} of its images, which are drawn at random.",
        *([_TOGETHER] if any(card.before is not None for card in gallery.cards) else []),
        "The box finds every cluster by its number or label, and",
    ]
    if gallery.complete:
        sentences.append("every image by its name.")
    else:
        sentences.append(
            f"by name only the {len(pictures):,} images that are pictured, of "
            f"{len(run.images):,}. For any other image or cluster: "
            f"python visu/report.py {run.folder} --also NAME-OR-NUMBER."
        )
    if pictures and not any(picture.webp for picture in pictures):
        sentences.append(
            f"No image was found (looked for {run.images.where(0)} and others), so the page shows "
            "names instead of pictures; --data says where the images are now."
        )
    return " ".join(sentences)


def _name_epoch(run: Run, epoch: int) -> str:
    """The epoch, or "the finished network" for the clusters after the last one."""
    planned = run.settings.get("epochs")
    finished = isinstance(planned, int) and epoch >= planned
    return "the finished network" if finished else f"epoch {epoch}"


def _flatten(row: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The names and values of a line of metrics.jsonl, and of the objects in it."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}".replace("_", " "), _word(value)


def _word(value: Any) -> str:
    """A setting or a number for a table: floats with four digits, or as a whole number."""
    if isinstance(value, list):
        return " ".join(map(_word, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"
    return "–" if value is None or isinstance(value, float) else str(value)

"""A run on one HTML page: the numbers of its epochs, its first filters, its clusters, its settings.

The page is the template `report.html`, with `report.css` and `report.js` in it.
"""

import math
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from checkpoints.checkpoint import read_checkpoint
from data.decode import orient_by_exif
from system.errors import InputError
from system.files import write_text
from training.finished_run import Run, read_run
from training.summary import duration
from visu.charts import (
    DETAILS,
    LEARNING,
    Chart,
    Metrics,
    chart_svg,
    histogram_svgs,
    keep_known,
    number,
)
from visu.first_filters import FilterView, view_filters
from visu.gallery import Gallery, make_gallery
from visu.page import to_png

NAME = "report.html"
CLUSTERS, IMAGES = 100, 10  # clusters that have pictures, and how many each
MOST_BINS = 24  # of the histogram of cluster sizes
MOST_HISTOGRAMS = 20  # epochs that have one
OVERVIEW = [
    ("convnet_loss", "convnet loss; ln k is {ln_k}"),
    ("nmi_previous", "NMI to the epoch before"),
    ("nmi_labels", "NMI to the folder labels"),
    ("purity", "purity"),
    ("nonempty_clusters", "of {clusters} clusters not empty"),
]
_TOGETHER = (
    "“20 % together before (7)”: that much of it was in one cluster, number 7, an epoch ago."
)
_SURROGATES = re.compile("[\ud800-\udfff]")  # bytes of file names that are not UTF-8


def write_report(
    exp: Path,
    clusters: int = CLUSTERS,
    images: int = IMAGES,
    also: Sequence[str] = (),
    data: Path | None = None,
) -> Path:
    """Write the page of a run that is over, under way or cut, and return its path.

    Args:
        exp: the experiment folder.
        clusters, images, also: as `make_gallery` takes them.
        data: where the images are now, if not where they were.

    Raises:
        InputError: the folder is none of a run, or damaged, or cannot be written; `also` has
            something that the run has not.
    """
    try:
        run = read_run(exp, data)
        orient_by_exif(run.settings.get("exif", "ignore"))
        page = fill_page(describe_run(run, clusters, images, also))
    except RecursionError as error:
        raise InputError(
            f"{exp}: config.json or metrics.jsonl has lists in lists without end"
        ) from error
    try:
        write_text(exp / NAME, page)
    except OSError as error:
        raise InputError(f"{exp / NAME}: cannot write it: {error.strerror}") from error
    return exp / NAME


def fill_page(content: dict[str, Any]) -> str:
    """The page with its content in it. But for the charts, everything goes in as text, whatever
    HTML is in it."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    templates.filters |= {"count": _count, "percent": _percent, "png": to_png}
    page = templates.get_template("report.html").render(content)
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", page)


def describe_run(run: Run, clusters: int, images: int, also: Sequence[str]) -> dict[str, Any]:
    """All that the page shows."""
    content: dict[str, Any] = {
        "name": "/".join(run.folder.resolve().parts[-2:]),
        "status": describe_progress(run),
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "overview": _overview(run),
        "charts": _draw_charts(run.metrics),
        "numbers": list_numbers(run.metrics),
        "settings": [(name, _word(value)) for name, value in run.settings.items()],
        "histograms": [],
        "gallery": None,
        "chosen": "There are no clusters yet.",
    }
    content["filters"], content["no_filters"] = _filters(run.folder)
    if run.epochs:
        gallery = make_gallery(run, run.epochs[-1], clusters, images, also)
        content["gallery"] = gallery
        content["chosen"] = _describe_choice(run, gallery, images)
        content["histograms"] = _draw_histograms(run)
    elif also:
        raise InputError(f"--also {also[0]}: the run has no clusters yet")
    return content


def describe_progress(run: Run) -> str:
    """What runs, and how far it has come."""
    told = run.settings
    sobel = " on Sobel filters" if told.get("sobel") else ""
    what = f"{told.get('arch', 'A network')}{sobel}, {told.get('clustering', 'clusters')}: "
    planned = told.get("epochs")
    if not run.metrics:
        return f"{what}no epoch is done yet."
    done = run.metrics[-1]["epoch"] + 1
    first = run.metrics[0]["epoch"]
    took = f"in {duration(run.metrics)}{f' from epoch {first} on' if first else ''}"
    if planned is not None and done >= planned and run.epochs and run.epochs[-1] >= planned:
        return f"{what}finished, {done} of {planned} epochs {took}."
    last = time.localtime((run.folder / "metrics.jsonl").stat().st_mtime)
    return (
        f"{what}not finished, {done} of {planned or '?'} epochs {took}, the last on "
        f"{time.strftime('%Y-%m-%d at %H:%M', last)}; the run is under way, or was cut."
    )


def list_numbers(metrics: Metrics) -> list[list[str]]:
    """A table of all numbers, with a row of names first; empty before the first epoch is done."""
    rows = [dict(_flatten(line)) for line in metrics]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [names, *([row.get(name, "–") for name in names] for row in rows)] if rows else []


def count_sizes(run: Run) -> dict[str, Any]:
    """A histogram of the cluster sizes for each of some epochs, the last among them.

    Returns `edges`, whole numbers from 1 on, of which each is the least size of its bin, and for
    each epoch its `name`, `counts` and how many clusters are `empty`.
    """
    places = np.linspace(0, len(run.epochs) - 1, min(len(run.epochs), MOST_HISTOGRAMS)).round()
    sizes = {}
    for epoch in [run.epochs[int(place)] for place in places]:
        assignment = run.assignment(epoch)
        sizes[epoch] = np.bincount(assignment[assignment >= 0])
    largest = max(int(some.max(initial=1)) for some in sizes.values())
    edges = np.unique(np.geomspace(1, largest + 1, MOST_BINS + 1).round().astype(np.int64))
    known = {line["epoch"]: line.get("clusters") for line in run.metrics}
    k = run.settings.get("nmb_cluster") if run.settings.get("clustering") == "Kmeans" else None
    epochs = []
    for epoch, some in sizes.items():
        filled = int((some > 0).sum())
        epochs.append(
            {
                "name": _name_epoch(run, epoch),
                "counts": np.histogram(some[some > 0], edges)[0].tolist(),
                "empty": (known.get(epoch) or k or filled) - filled,
            }
        )
    return {"edges": edges.tolist(), "epochs": epochs}


def _draw_charts(metrics: Metrics) -> list[tuple[Chart, str]]:
    charts = keep_known([*LEARNING, *DETAILS], metrics)
    return [(c, chart_svg(c, metrics, f"chart{place}")) for place, c in enumerate(charts)]


def _draw_histograms(run: Run) -> list[dict[str, Any]]:
    """Those of `count_sizes`, each with its `svg`."""
    sizes = count_sizes(run)
    epochs = sizes["epochs"]
    drawn = histogram_svgs(sizes["edges"], [epoch["counts"] for epoch in epochs], "sizes")
    return [{**epoch, "svg": svg} for epoch, svg in zip(epochs, drawn, strict=True)]


def _overview(run: Run) -> list[tuple[str, str]]:
    """The numbers of the last epoch, each with its meaning."""
    last = run.metrics[-1] if run.metrics else {}
    words = {name: _short(number(last, name)) for name in ("ln_k", "clusters")}
    known = [(number(last, name), meaning.format(**words)) for name, meaning in OVERVIEW]
    left_out = int((run.assignment(run.epochs[-1]) < 0).sum()) if run.epochs else 0
    images = f"images, {left_out:,} left out" if left_out else "images"
    return [
        *((_short(value), meaning) for value, meaning in known if value is not None),
        (_short(len(run.images)), images),
    ]


def _filters(exp: Path) -> tuple[Sequence[FilterView], str]:
    """The first layer's filters, or why they are not shown."""
    path = exp / "checkpoint.pth.tar"
    if not path.exists():
        return [], "There is no checkpoint.pth.tar."
    try:
        return view_filters(read_checkpoint(path)["state_dict"]), ""
    except InputError as error:
        return [], str(error)


def _describe_choice(run: Run, gallery: Gallery, images: int) -> str:
    """Which clusters are shown, and what the page does not know."""
    pictures = gallery.pictures
    sentences = [
        f"The clusters of {_name_epoch(run, run.epochs[-1])}. Pictured, the largest first: "
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
            f"No image is where it was (looked for {run.images.where(0)} and others), so that "
            "there are names in the place of pictures; --data says where the images are now."
        )
    return " ".join(sentences)


def _name_epoch(run: Run, epoch: int) -> str:
    """The network whose clusters an epoch has: after the last epoch, the finished one."""
    planned = run.settings.get("epochs")
    finished = isinstance(planned, int) and epoch >= planned
    return "the finished network" if finished else f"epoch {epoch}"


def _flatten(row: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The names and values of a line of metrics.jsonl, also of the objects in it."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name} ")
        else:
            unknown = value is None or (isinstance(value, float) and not math.isfinite(value))
            yield f"{prefix}{name}".replace("_", " "), "–" if unknown else str(value)


def _word(value: Any) -> str:
    """A setting as one would write it."""
    if value is None:
        return "–"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _short(value: float | None) -> str:
    """A number for the overview."""
    if value is None:
        return "–"
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"


def _count(many: int, noun: str) -> str:
    return f"{many:,} {noun}{'' if many == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"

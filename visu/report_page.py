"""A run on one HTML page: the numbers of its epochs, its first filters, its clusters, its settings.

The page is `report.html` with `report.css`, `report.js` and `report_charts.js` in it, and what they
show as JSON.
"""

import base64
import io
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from checkpoints.checkpoint import read_checkpoint
from system.errors import InputError
from system.files import write_text
from training.finished_run import Run, read_run
from training.summary import duration
from visu.first_filters import view_filters
from visu.gallery import make_gallery
from visu.page import to_json

NAME = "report.html"
CLUSTERS, IMAGES = 100, 10  # clusters that have pictures, and how many each
MOST_BINS = 24  # of the histogram of cluster sizes
_TOGETHER = (
    "“20 % together before (7)”: that much of it was in one cluster, number 7, an epoch ago."
)
MOST_HISTOGRAMS = 20  # epochs that have one


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
        page = fill_page(describe_run(read_run(exp, data), clusters, images, also))
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
    """The page with its content in it."""
    page = _read("report.html")
    for mark, text in (
        ("/*STYLE*/", _read("report.css")),
        ("/*SCRIPT*/", _read("report.js")),
        ("/*CHARTS*/", _read("report_charts.js")),
        ("/*RUN*/", to_json(_finite(content))),
    ):
        before, _, after = page.partition(mark)
        page = before + text + after
    return page


def describe_run(run: Run, clusters: int, images: int, also: Sequence[str]) -> dict[str, Any]:
    """All that the page shows."""
    content: dict[str, Any] = {
        "name": "/".join(run.folder.resolve().parts[-2:]),
        "status": describe_progress(run),
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "images": len(run.images),
        "epochs": run.metrics,
        "filters": _filters(run.folder),
        "settings": [[name, _word(value)] for name, value in run.settings.items()],
        "histogram": None,
        "gallery": None,
        "chosen": "There are no clusters yet.",
    }
    if run.epochs:
        gallery = make_gallery(run, run.epochs[-1], clusters, images, also)
        content["histogram"] = count_sizes(run)
        content["gallery"] = gallery
        content["chosen"] = _describe_choice(run, gallery, images)
        content["left_out"] = int((run.assignment(run.epochs[-1]) < 0).sum())
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


def _filters(exp: Path) -> dict[str, Any]:
    """The first layer's filters, or why they are not shown."""
    path = exp / "checkpoint.pth.tar"
    if not path.exists():
        return {"why": "There is no checkpoint.pth.tar."}
    try:
        views = view_filters(read_checkpoint(path)["state_dict"])
    except InputError as error:
        return {"why": str(error)}
    plain = [
        {
            "title": view.title,
            "note": view.note,
            "pairs": view.pairs,
            "pictures": [_png(picture) for picture in view.pictures],
        }
        for view in views
    ]
    return {"views": plain}


def _describe_choice(run: Run, gallery: dict[str, Any], images: int) -> str:
    """Which clusters are shown, and what the page does not know."""
    pictured = len(gallery["images"]["name"])
    told = [
        f"The clusters of {_name_epoch(run, run.epochs[-1])}. Pictured: {gallery['how']}, each by "
        f"{images} of its images, which are drawn at random.",
        *([_TOGETHER] if any(b is not None for b in gallery["clusters"]["before"]) else []),
        "The box finds every cluster by its number or label, and",
    ]
    if gallery["complete"]:
        told.append("every image by its name.")
    else:
        told.append(
            f"by name only the {pictured:,} images that are pictured, of {len(run.images):,}. For "
            f"any other image or cluster: python visu/report.py {run.folder} --also NAME-OR-NUMBER."
        )
    if gallery["pictures"] and not gallery["readable"]:
        told.append(
            f"No image is where it was (looked for {run.images.where(0)} and others), so that "
            "there are names in the place of pictures; --data says where the images are now."
        )
    return " ".join(told)


def _name_epoch(run: Run, epoch: int) -> str:
    """What the clusters of an epoch are those of: after the last one the finished network's."""
    planned = run.settings.get("epochs")
    finished = isinstance(planned, int) and epoch >= planned
    return "the finished network" if finished else f"epoch {epoch}"


def _png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _word(value: Any) -> str:
    """A setting as one would write it."""
    if value is None:
        return "–"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _finite(content: Any) -> Any:
    """The same with null for what is no finite number."""
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")

"""An epoch in numbers and in words, and the summary at the end of a run."""

import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.clusters import Clusters
from cluster.components import AUTO, Components, auto_dim, remark
from cluster.quality import (
    AGREEMENT,
    clustering_metrics,
    describe_labels,
    describe_sizes,
    describe_supers,
    describe_unlabelled,
    super_metrics,
)
from training.logs import NUMBERS, learned_rotations_only
from training.state import State


def epoch_metrics(
    state: State, clusters: dict[str, Any], counts: tuple[int, int, int], seconds: dict[str, float]
) -> dict[str, Any]:
    """A line of `metrics.jsonl`.

    Args:
        clusters: the method's metrics.
        counts: number of images in the data set, of images trained on in this epoch, and of those
            that could not be read.
        seconds: by stage.
    """
    images, drawn, unreadable = counts
    if clusters["unreadable"] is None:
        clusters = {**clusters, "unreadable": unreadable}
    return {
        "epoch": state.epoch,
        "convnet_loss": state.convnet_loss.avg,
        **clusters,
        "knn_top1": state.knn_top1,
        "iterations": state.iteration,
        "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
        "images_per_second": {
            "features": _rate(images, seconds["features"]),
            "training": _rate(drawn, seconds["training"]),
        },
        "peak_memory_gib": _peak_memory(),
    }


def describe_clusters(
    assignment: np.ndarray,
    clusters: Clusters,
    before: np.ndarray,
    labels: np.ndarray | None,
    unlabelled: dict[str, float | None],
) -> str:
    """One line about the finished network's clusters.

    Args:
        assignment: `(N,) int64`, −1 for an image that was left out.
        clusters: the clusters themselves.
        before: `(N,) int64`, the last epoch's assignment; empty if it had none.
        labels: `(N,) int64` labels, if there are any.
        unlabelled: measures of the clusters without labels.
    """
    k, each = len(clusters.centroids), clusters.each
    found = clustering_metrics(assignment, before, labels, k)
    parts = [
        describe_sizes(found),
        describe_labels(found),
        describe_unlabelled(unlabelled),
        "" if each is None else describe_supers(super_metrics(assignment, each, k // each, labels)),
        _known("NMI to the last epoch's", found["nmi_previous"]),
        _describe_dimensions(clusters, int((assignment >= 0).sum())),
    ]
    return _join("; ", *parts)


def describe_assignment(assignment: np.ndarray, k: int, labels: np.ndarray | None) -> str:
    """Sizes of k clusters and their agreement with labels in words; arguments as for
    `describe_clusters`."""
    found = clustering_metrics(assignment, np.empty(0, np.int64), labels, k)
    return "; ".join(filter(None, [describe_sizes(found), describe_labels(found)]))


def _describe_dimensions(clusters: Clusters, images: int) -> str:
    found, dim = clusters.whitening.components, clusters.dim
    if found == 0:
        return "not whitened"
    pca: Components = AUTO if found == auto_dim(images, dim) else found
    return remark(pca, found, images, dim) or f"whitened to {found} dimensions"


def describe_neighbours(knn_top1: dict[str, float] | None) -> str:
    """The nearest-neighbour probe at the end of a line, if it was run."""
    return "" if knn_top1 is None else f"; nearest neighbours: {_by_number(knn_top1)}"


def describe_epoch(metrics: dict[str, Any], epochs: int) -> str:
    """An epoch in a few lines, for the log and the terminal, of the numbers that it has."""
    seconds, rate = metrics["seconds"], metrics["images_per_second"]
    stages = ", ".join(f"{stage} {value:.1f} s" for stage, value in seconds.items() if value)
    previous = _known("NMI to the previous assignment", metrics["nmi_previous"])
    sizes = "" if learned_rotations_only(metrics) else describe_sizes(metrics)
    neighbours = metrics["knn_top1"]
    lines = [
        f"epoch {metrics['epoch']} (the last is {epochs - 1}): {sum(seconds.values()):.1f} s "
        f"({stages})",
        _join(
            ", ",
            _known("clustering loss", metrics["kmeans_loss"], ".4g"),
            _known("convnet loss", metrics["convnet_loss"]) + _guessing(metrics),
        ),
        _join("; ", previous, describe_labels(metrics)),
        _join("; ", sizes, f"unreadable: {metrics['unreadable']}"),
        *_describe_levels(metrics),
        _join(", ", *(_known(stage, rate[stage], ".1f", " images/s") for stage in rate)),
        "" if neighbours is None else f"nearest neighbours: {_by_number(neighbours)}",
    ]
    return _join("\n  ", *lines)


def _guessing(metrics: dict[str, Any]) -> str:
    """The loss of guessing, behind a loss. DeeperCluster's is that of both levels together."""
    if metrics["ln_k"] is None:
        return ""
    name = "ln k" if metrics.get("super_loss") is None else "ln S + ln K"
    if learned_rotations_only(metrics):
        name = "ln 4"
    return f" (guessing: {name} = {metrics['ln_k']:.3f})"


def _describe_levels(metrics: dict[str, Any]) -> list[str]:
    """Lines on DeeperCluster's super-clusters and rotations, of those that a run has."""
    supers, share = (metrics.get(name) for name in ("super_clusters", "rotation_accuracy"))
    lines = [] if supers is None else [describe_supers(supers)]
    if share is not None:
        lines.append(f"{share:.3f} of the rotations recognised (guessing: 0.250)")
    return lines


def summarise(
    history: list[dict[str, Any]],
    result: str,
    epochs: int,
    folder: Path,
    report: Path | None = None,
) -> str:
    """The summary at the end of a run: the change from the first epoch to the last, its files, and
    how to continue.

    Args:
        history: the metrics of each epoch, as far as the folder has them.
        result: the finished network's clusters in words.
        report: the page of the run, if there is one.
    """
    rows = [
        *(_course(history) if history else []),
        ("finished network", result),
        ("files", f"{folder}/ (weights: checkpoint.pth.tar, clusters: clusters, curves: below)"),
        *([("report", f"{report} (open it in a browser)")] if report else []),
        ("curves", f"{_python()} -m tensorboard.main --logdir {folder}"),
        (
            "to continue",
            f"the same command with --resume {folder / 'checkpoint.pth.tar'} --epochs {2 * epochs}",
        ),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(["Done.", *(f"  {name:{width}}  {value}" for name, value in rows)])


def _course(history: list[dict[str, Any]]) -> list[tuple[str, str]]:
    known = [{**dict.fromkeys(NUMBERS), **line} for line in history]
    first, last = known[0], known[-1]
    ends = [first, last] if len(known) > 1 else [first]

    def change(name: str, form: str = ".3f") -> str:
        values = [end[name] for end in ends if end[name] is not None]
        return " → ".join(f"{value:{form}}" for value in values)

    previous = last["nmi_previous"]
    rows = [
        ("epochs", f"{first['epoch']} to {last['epoch']}, {duration(history)}"),
        ("clustering loss", change("kmeans_loss", ".4g")),
        ("convnet loss", change("convnet_loss") + _guessing(last)),
        ("NMI to the previous assignment", "" if previous is None else f"{previous:.3f}"),
        *((f"epochs' {words}", change(name)) for name, words in AGREEMENT.items()),
        ("rotations recognised", change("rotation_accuracy")),
    ]
    return [(name, words) for name, words in rows if words]


def duration(history: list[dict[str, Any]]) -> str:
    """The time of all epochs, in words."""
    hours = sum(sum(line.get("seconds", {}).values()) for line in history) / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} min"


def _python() -> str:
    """The path of Python, as typed from the current folder."""
    here = Path.cwd()
    python = Path(sys.executable)
    return str(python.relative_to(here) if python.is_relative_to(here) else python)


def _known(name: str, value: float | None, form: str = ".3f", unit: str = "") -> str:
    """A name and its value; empty without a value."""
    return "" if value is None else f"{name} {value:{form}}{unit}"


def _join(between: str, *parts: str) -> str:
    """The parts that are not empty."""
    return between.join(filter(None, parts))


def _by_number(accuracies: dict[str, float]) -> str:
    return ", ".join(f"accuracy {top1:.3f} (k = {count})" for count, top1 in accuracies.items())


def _rate(images: int, seconds: float) -> float | None:
    return round(images / seconds, 1) if seconds > 0 else None


def _peak_memory() -> dict[str, float]:
    """Peak memory of this process and on the GPU, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available():
        peak["gpu"] = torch.cuda.max_memory_allocated()
    return {name: round(value / 2**30, 3) for name, value in peak.items()}

"""The numbers at the top of a run's page."""

from typing import Any

import numpy as np

from cluster.quality import clustering_metrics, super_metrics
from training.finished_run import Run
from visu.charts import number

MEANINGS = [
    ("convnet_loss", "convnet loss; guessing gives {ln_k}"),
    ("nmi_previous", "NMI to the epoch before"),
    ("nmi_labels", "NMI to the labels"),
    ("acc", "ACC: right in the best matching of clusters with labels"),
    ("ari", "ARI to the labels"),
    ("ami", "AMI to the labels"),
    ("purity", "purity"),
    ("nonempty_clusters", "of {clusters} clusters not empty"),
    ("super_clusters.nmi_labels", "NMI of the super-clusters to the labels"),
    ("super_clusters.acc", "ACC of the super-clusters"),
    ("super_clusters.ari", "ARI of the super-clusters to the labels"),
    ("super_clusters.ami", "AMI of the super-clusters to the labels"),
    ("super_clusters.purity", "purity of the super-clusters"),
    ("super_clusters.nonempty_clusters", "of {supers} super-clusters not empty"),
    ("rotation_accuracy", "of the rotations recognised; guessing gives 0.25"),
]


def overview(run: Run) -> list[tuple[str, str]]:
    """The numbers of the last epoch, each with its meaning."""
    last = (run.metrics[-1] if run.metrics else {}) | _finished_clusters(run)
    words = {name: _short(number(last, name)) for name in ("ln_k", "clusters")}
    words["supers"] = _short(number(last, "super_clusters.clusters"))
    known = [(number(last, name), meaning.format(**words)) for name, meaning in MEANINGS]
    left_out = int((run.assignment(run.epochs[-1]) < 0).sum()) if run.epochs else 0
    images = f"images, {left_out:,} left out" if left_out else "images"
    return [
        *((_short(value), meaning) for value, meaning in known if value is not None),
        (_short(len(run.images)), images),
    ]


def _finished_clusters(run: Run) -> dict[str, Any]:
    """The numbers of the finished network's clusters, which no epoch was trained on; none before
    the end."""
    if not run.metrics or not run.epochs or run.epochs[-1] <= run.metrics[-1]["epoch"]:
        return {}
    epoch, assignment = run.epochs[-1], run.assignment(run.epochs[-1])
    before = run.assignment(run.epochs[-2]) if len(run.epochs) > 1 else np.empty(0, np.int64)
    k = cluster_count(run, epoch, len(np.unique(assignment[assignment >= 0])))
    found = clustering_metrics(assignment, before, run.images.labels, k)
    if run.levels is not None:
        found["super_clusters"] = super_metrics(assignment, *run.levels, run.images.labels)
    return found


def cluster_count(run: Run, epoch: int, nonempty: int) -> int:
    """The number of clusters of an epoch, empty ones included; PIC has none of those."""
    known = {line["epoch"]: line.get("clusters") for line in run.metrics}
    k = run.settings.get("nmb_cluster") if run.settings.get("clustering") == "Kmeans" else None
    if run.settings.get("method") == "deepercluster":
        k = known.get(run.epoch_before(epoch))
    return known.get(epoch) or k or nonempty


def _short(value: float | None) -> str:
    """A number for the overview."""
    if value is None:
        return "–"
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"

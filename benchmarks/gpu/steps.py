"""Part: steps of each method from batches in memory, the host's waits between two log lines, and
DeepCluster-v2's clustering at ImageNet's size."""

import functools
import statistics
from typing import Any

import numpy as np

from benchmarks import spherical
from benchmarks.gpu.in_memory import InMemory
from benchmarks.gpu.setting import NO_GPU, Setting, Work, photos
from benchmarks.gpu.waits import count_calls, count_copies, count_waits
from benchmarks.timing import timed
from cluster.spherical import spherical_kmeans
from data.images import ImageList

BATCHES = 15  # fewer than the steps between two looks at the losses
WARM_UP = 3  # of them
ROUNDS = 2
IMAGES = 1920  # those of the batches; more than prototypes
EMBEDDINGS, DIM, PROTOTYPES = 1_281_167, 128, 3000

# --dim_pca 0: there are fewer images than dimensions
METHODS = {
    "deepcluster, alexnet": "--arch alexnet --sobel --k 1000 --batch 128 --dim_pca 0",
    "deepclusterv2, resnet50": "--method deepclusterv2 --arch resnet50 --k 1500 --batch 128",
    "swav, resnet50": "--method swav --arch resnet50 --k 1500 --batch 128",
    "deepercluster, vgg16": (
        "--method deepercluster --arch vgg16 --sobel --super_classes 16 --k 1600 --batch 128 "
        "--dim_pca 0 --niter 2"
    ),
}
SMALL_CROPS = "--nmb_crops 2 1 --size_crops 32 16 --hidden_mlp 16 --feat_dim 8 --k 4"
SMALL = "--arch resnet18_small --size 32 --batch 4"
TINY = {
    "deepcluster": f"{SMALL} --k 4 --dim_pca 0",
    "deepclusterv2": f"--method deepclusterv2 {SMALL} {SMALL_CROPS}",
    "swav": f"--method swav {SMALL} {SMALL_CROPS}",
    "deepercluster": (
        f"--method deepercluster {SMALL} --super_classes 4 --k 4 --dim_pca 0 --niter 2"
    ),
}


def works(setting: Setting) -> dict[str, Work]:
    methods = TINY if setting.tiny else METHODS
    found: dict[str, Work] = {
        name: functools.partial(steps_of, setting, flags) for name, flags in methods.items()
    }
    return {**found, "DeepCluster-v2's clustering": functools.partial(clustering, setting)}


def steps_of(setting: Setting, flags: str) -> dict[str, Any]:
    """Milliseconds of a step and images per second, and what the host waits for."""
    images, batches = (20, 5) if setting.tiny else (IMAGES, BATCHES)
    flags += f" --workers {setting.workers} --precision {setting.compute.precision}"
    with photos(images) as found:
        return figures_of(setting, flags, found, batches)


def figures_of(setting: Setting, flags: str, images: ImageList, batches: int) -> dict[str, Any]:
    """The figures of a method with these flags of `main.py`."""
    memory = InMemory(flags, images, setting.compute, batches)
    timed(list, memory.take(batches))  # warm up
    seconds = [timed(list, memory.take(batches)).seconds for _ in range(ROUNDS)]
    step = statistics.median(seconds) / batches
    figures = {"ms a step": 1000 * step, "images/s": memory.images_in_a_step / step}
    waits = (
        waits_of(memory) if setting.on_gpu else {"waits a step": f"skipped: {NO_GPU['skipped']}"}
    )
    return {**figures, **setting.peak_memory(), **waits}


def waits_of(memory: InMemory) -> dict[str, Any]:
    """How often the host waits in a step, and where."""
    counted = BATCHES - WARM_UP
    found = []
    for count in (count_waits, count_copies, count_calls):
        steps = memory.take(BATCHES)
        for _ in range(WARM_UP):
            next(steps)
        found.append(count(steps))
    waits, copies, calls = found
    return {
        "waits a step": sum(waits.values()) / counted,
        "copies of memory that is not pinned, a step": sum(copies.values()) / counted,
        "calls of CUDA that wait, a step": sum(calls.values()) / counted,
        "where": ", ".join([*waits, *copies, *calls]) or "nowhere",
    }


def clustering(setting: Setting) -> dict[str, Any]:
    """Seconds of the k-means of one head."""
    n, dim, k = (600, 16, 20) if setting.tiny else (EMBEDDINGS, DIM, PROTOTYPES)
    rows = spherical.embeddings(n, dim)
    first = rows[np.random.default_rng(0).choice(n, k, replace=False)]
    device = setting.compute.device
    spherical_kmeans(rows[: 2 * k], first, 1, device=device)  # warm up
    done = timed(lambda: spherical_kmeans(rows, first, device=device))
    return {"seconds": done.seconds, **setting.peak_memory()}

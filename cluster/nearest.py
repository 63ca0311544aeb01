"""The nearest centroid of each point, by Faiss or torch, on a CPU or GPUs."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import faiss
import numpy as np
import torch

from parallel.collectives import world_size
from system.device import full_float32

log = logging.getLogger("deepcluster")

CPU = torch.device("cpu")
SCORES = 2**26  # point-centroid products that torch holds at a time (float32: 256 MiB)

Search = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # as `NearestCentroid.__call__`


class NearestCentroid:
    """Finds the nearest centroid of each point by exact L2 distance.

    On a GPU it uses Faiss, or torch if Faiss sees no GPU. If GPU memory runs out, it warns and
    continues on the CPU: slow is better than stopped.

    Args:
        x: `(N, d) float32`.
        device: where to search; the attribute changes to the CPU if GPU memory runs out.
        float16: distances in half precision, on a GPU only.
        scratch_mib: Faiss's scratch memory on each GPU in MiB; None for its default of 1.5 GiB.
    """

    def __init__(
        self,
        x: np.ndarray,
        device: torch.device,
        float16: bool = False,
        scratch_mib: int | None = None,
    ) -> None:
        self.device = device
        self._x, self._float16, self._scratch_mib = x, float16, scratch_mib
        self._search: Search | None = None

    def __call__(self, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centroids `(k, d) float32` → the number of the nearest, `(N,) int64`, and the squared
        distance to it, `(N,) float32`."""
        try:
            if self._search is None:
                self._search = _search(self._x, self.device, self._float16, self._scratch_mib)
            return self._search(centroids)
        except RuntimeError as error:  # torch and Faiss both raise it
            if "out of memory" not in str(error):
                raise
            reason = str(error).strip().splitlines()[0]
            log.warning("k-means: out of GPU memory, continuing on the CPU (%s)", reason)
            self.device, self._search = CPU, _faiss_search(self._x)
            return self._search(centroids)


def _search(x: np.ndarray, device: torch.device, float16: bool, scratch_mib: int | None) -> Search:
    if device.type == "cpu":
        return _faiss_search(x)
    torch.cuda.empty_cache()  # gives Faiss the memory that torch has cached
    if device.type != "cuda" or faiss.get_num_gpus() == 0:
        return _torch_search(x, device, float16)
    gpus = list(range(faiss.get_num_gpus()))
    if device.index is not None:
        gpus = [device.index]
    elif world_size() > 1:
        gpus = [torch.cuda.current_device()]
    return _faiss_search(x, gpus, float16, scratch_mib)


def _faiss_search(
    x: np.ndarray,
    gpus: Sequence[int] = (),
    float16: bool = False,
    scratch_mib: int | None = None,
) -> Search:
    index: Any = faiss.IndexFlatL2(x.shape[1])
    if gpus:
        resources = [faiss.StandardGpuResources() for _ in gpus]
        if scratch_mib is not None:
            for each in resources:
                each.setTempMemory(scratch_mib * 2**20)
        cloning = faiss.GpuMultipleClonerOptions()
        cloning.useFloat16 = float16
        index = faiss.index_cpu_to_gpu_multiple_py(resources, index, cloning, list(gpus))

    def search(centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index.reset()
        index.add(centroids)
        distances, nearest = index.search(x, 1)
        return nearest[:, 0], distances[:, 0]

    return search


def _torch_search(x: np.ndarray, device: torch.device, float16: bool) -> Search:
    dtype = torch.float16 if float16 else torch.float32
    points = torch.from_numpy(x).to(device, dtype)
    squares = points.float().square().sum(dim=1)

    def search(centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        c = torch.from_numpy(centroids).to(device, dtype)
        lengths = c.float().square().sum(dim=1)
        nearest, distances = [], []
        for rows in points.split(max(SCORES // len(c), 1)):
            # |x − c|² − |x|²: |x|² is the same for all centroids, so it is added at the end
            with full_float32():
                scores = (rows @ c.T).float()
            least, which = (lengths - 2 * scores).min(dim=1)
            nearest.append(which)
            distances.append(least)
        squared = (torch.cat(distances) + squares).clamp(min=0)
        return torch.cat(nearest).cpu().numpy(), squared.cpu().numpy()

    return search

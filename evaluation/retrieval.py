"""The stages from images to vectors. Each stage's output is stored with its settings.

`extract_train`: regional vectors of the other data set's images. `train_pca`: their whitening.
`db_features`, `q_features`: the vectors of the images, and of the queries' boxes.
"""

import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from checkpoints.checkpoint import digest_of
from cluster.whitening import Whitening, fit_whitening
from data.images import ImageList, content_digest
from data.resized import Box, ResizedImages, load_one_by_one
from data.retrieval import RetrievalData, image_names
from evaluation.retrieval_ranking import unit_rows
from evaluation.rmac import aggregate, regional_vectors
from features.forward import forward_pass, raise_on_infinite
from models import MODELS, ConvNet
from system.device import Compute
from system.errors import InputError
from system.files import make_folder
from system.kept import Arrays, Key, load_arrays, save_arrays
from system.progress import progress


class Stages:
    """Computes and stores the output of each stage.

    Args:
        folder: where the outputs are stored; made if missing.
        sizes: long sides in pixels to which each image is resized.
        scales: R-MAC's L.
        n_pca: components of the whitening, at most the map's channels.
        only: the only stage that may run; those before it must be stored. None: all may run.

    Attributes:
        query_rows: by image and box, the query's row in `q_features`.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        model: ConvNet,
        data: RetrievalData,
        sizes: Sequence[int],
        scales: int,
        n_pca: int,
        compute: Compute,
        workers: int,
        only: str | None = None,
    ) -> None:
        make_folder(folder, "--temp_dir")
        self.folder, self.model, self.data = folder, model, data
        self.sizes, self.scales, self.n_pca = sizes, scales, n_pca
        self.compute, self.workers, self.only = compute, workers, only
        self.query_rows = _distinct(data)
        self._makers: dict[str, Callable[[], Arrays]] = {
            "extract_train": self._extract_train,
            "train_pca": self._train_pca,
            "db_features": self._db_features,
            "q_features": self._q_features,
        }
        self._keys = self._describe()

    @torch.inference_mode()
    def get(self, stage: str) -> Arrays:
        """A stage's stored output. If it is missing or has other settings, computes and stores it.

        Raises:
            InputError: an image cannot be read, or the stage is missing and may not run.
        """
        path, key = self.folder / f"{stage}.npz", self._keys[stage]
        found, why = load_arrays(path, key)
        if not why:
            sys.stderr.write(f"{stage}: {path}, stored before\n")
            return found
        if self.only not in (None, stage):
            raise InputError(f"{path}: {why}; first run --stage {stage}, or all without --stage")
        made = self._makers[stage]()
        save_arrays(path, key, made)
        sys.stderr.write(f"{stage}: {path} written, as it was {why}\n")
        return made

    def _describe(self) -> dict[str, Key]:
        """The settings that each stage's output depends on."""
        queries = json.dumps(list(self.query_rows)).encode("utf-8", "surrogateescape")
        common = {
            "weights": digest_of(self.model),
            "sizes": list(self.sizes),
            "L": self.scales,
            "precision": self.compute.precision,
            "training images": content_digest(self.data.train),
            **self.data.images.reading.key,
        }
        whitened = {**common, "n_pca": self.n_pca}
        database = {**whitened, "images": content_digest(self.data.images)}
        return {
            "extract_train": common,
            "train_pca": whitened,
            "db_features": database,
            "q_features": {**database, "queries": hashlib.sha256(queries).hexdigest()},
        }

    def _extract_train(self) -> Arrays:
        parts = []
        for size in self.sizes:
            found = self._regions(self.data.train, size, None, "training images")
            parts += [regions for _, regions in found]
        return {"regions": np.concatenate(parts)}

    def _train_pca(self) -> Arrays:
        regions = self.get("extract_train")["regions"]
        if len(regions) < 2:
            raise InputError(
                f"{self.data.train.root}: only one region, and whitening needs two or more"
            )
        n_pca = min(self.n_pca, regions.shape[1])
        pca = fit_whitening(regions, n_pca, self.compute.device)
        directions = int(pca.matrix.any(axis=0).sum())
        if directions < self.n_pca:
            sys.stderr.write(
                f"train_pca: {directions} components instead of --n_pca {self.n_pca}: the "
                f"{len(regions):,} regions of {regions.shape[1]} channels have no more directions\n"
            )
        return {"mean": pca.mean, "matrix": pca.matrix}

    def _db_features(self) -> Arrays:
        return {"vectors": self._vectors(self.data.images, None, "images")}

    def _q_features(self) -> Arrays:
        names = image_names(self.data.images)
        index_of = {name: index for index, name in enumerate(names)}
        images = self.data.images.take([index_of[image] for image, _ in self.query_rows])
        return {"vectors": self._vectors(images, [box for _, box in self.query_rows], "queries")}

    @functools.cached_property
    def _pca(self) -> Whitening:
        return Whitening(**self.get("train_pca"))

    def _vectors(self, images: ImageList, boxes: list[Box] | None, label: str) -> np.ndarray:
        """Each image's mean R-MAC over the sizes, `(N, D) float32` of unit length."""
        total = np.zeros((len(images), self._pca.matrix.shape[1]), np.float32)
        for size in self.sizes:
            for index, regions in self._regions(images, size, boxes, label):
                total[index] += aggregate(torch.from_numpy(regions)[None], self._pca)[0].numpy()
        return unit_rows(total)

    def _regions(
        self, images: ImageList, size: int, boxes: list[Box] | None, label: str
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields each image's number and its regional vectors `(R, C) float16`."""
        layer = self.model.conv_layers

        def forward(x: torch.Tensor) -> torch.Tensor:
            return regional_vectors(self.model.conv_features(x, layer), self.scales)

        def raise_error(unreadable: dict[int, str]) -> None:
            for index, reason in unreadable.items():
                raise InputError(f"{images.where(index)}: {reason}")

        dataset = ResizedImages(images, size, boxes, smallest_input(self.model.arch))
        loader = load_one_by_one(dataset, self.workers, self.compute.device)
        with progress(f"{label} at {size} pixels", len(images), "images") as advance:
            for index, regions, _ in forward_pass(
                loader, forward, self.model.std, self.compute, raise_error, advance,
                on_infinite=raise_on_infinite(images),
            ):  # fmt: skip
                yield int(index[0]), regions[0]


@functools.cache
def smallest_input(arch: str) -> int:
    """Side in pixels of the smallest square image for which the last conv layer returns a map."""
    with torch.device("meta"):
        model = MODELS[arch]().eval()
        for side in range(1, 512):
            try:
                model.conv_features(torch.empty(1, 3, side, side), model.conv_layers)
            except RuntimeError:  # a map shrank to nothing
                continue
            return side
    raise AssertionError(f"{arch} takes no image of less than 512 pixels")


def _distinct(data: RetrievalData) -> dict[tuple[str, Box], int]:
    """The distinct images and boxes of the benchmarks' queries, numbered."""
    queries = (query for benchmark in data.benchmarks for query in benchmark.queries)
    boxes = dict.fromkeys((query.image, query.box) for query in queries)
    return {box: row for row, box in enumerate(boxes)}

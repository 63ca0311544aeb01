"""A file with a small picture of each image, made while the images pass through the network."""

import base64
import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from data.batch import Batch

SIDE = 80  # of a picture, in pixels
METHOD = 2  # of WebP: half the time of 4, the default, for 4 % more bytes
THREADS = 4


class ThumbnailFiles:
    """Pictures as WebP in a folder, by the number of the image.

    Args:
        folder: made when the first picture is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.folder / f"{index:06d}.webp"

    def encoded(self, index: int) -> str:
        """The picture of an image as WebP in base64; empty if there is none."""
        path = self.path(index)
        return base64.b64encode(path.read_bytes()).decode() if path.exists() else ""

    def of(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Batches of crops `(B, 3, S, S) uint8`, unchanged; the pictures of a batch are written
        before the next one is yielded."""
        self.folder.mkdir(exist_ok=True)
        with ThreadPoolExecutor(THREADS) as threads:
            for batch in batches:
                writing = threads.map(self._write, batch.index.tolist(), batch.pixels)
                yield batch
                list(writing)  # raises what a thread has raised

    def _write(self, index: int, pixels: Tensor) -> None:
        file = io.BytesIO()
        small = F.to_pil_image(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        small.save(file, "WEBP", quality=60, method=METHOD)
        self.path(index).write_bytes(file.getvalue())

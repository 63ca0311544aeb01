"""The embeddings of images in a folder of shards, so that the same command goes on after an
interruption."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from checkpoints.checkpoint import digest_of
from data.batch import Batch, Draw
from data.decode import pixel_limit
from data.images import content_digest
from features.extraction import extract
from features.network import Applied
from features.rows import DTYPES, Shards, shard_length
from system import cli
from system.errors import InputError
from system.kept import Key


def key_of(inputs: Applied) -> Key:
    """All that the embeddings of `inputs` depend on.

    Raises:
        InputError: a file is missing.
    """
    return {
        "network": digest_of(inputs.model)[:12],
        "images": f"{len(inputs.images):,} ({content_digest(inputs.images)[:12]})",
        "size": inputs.size,
        "precision": inputs.compute.precision,
        "decode": inputs.dataset.decode,
        "max_pixels": pixel_limit(),
        **inputs.images.reading.key,
    }


def check_readable(inputs: Applied) -> None:
    """Check that an image can be read, by trying them in order until one can.

    Raises:
        InputError: none can; has the first one's reason.
    """
    images, why = inputs.images, ""
    for index in range(len(images)):
        _, found = inputs.dataset[Draw(index, 0, 0)]
        if not isinstance(found, str):
            return
        why = why or f"{images.where(index)}: {found}"
    raise InputError(f"none of the {len(images):,} images can be read; the first is {why}")


def continued_rows(
    folder: Path,
    inputs: Applied,
    batch: int,
    load: Callable[[np.ndarray], Iterable[Batch]],
    advice: str,
) -> tuple[np.ndarray, np.ndarray]:
    """The embeddings of all images, computed where the folder does not have them yet. Unreadable
    images are named on stderr.

    Args:
        folder: of the shards; made if it is missing.
        batch: images at a time.
        load: makes the batches of some images, in order.
        advice: what to do if the folder has other embeddings.

    Returns:
        The rows `(M, D) float16` of the images that can be read, and whether an image can, `(N,)
        bool`.

    Raises:
        InputError: the folder has other embeddings, or the disk no room.
    """
    images, shards = inputs.images, open_shards(folder, inputs, batch, advice)
    missing = shards.missing()
    left = sum(len(shards.images_of(number)) for number in missing)
    if left < len(images):
        cli.note(f"{folder}: has the features of {len(images) - left:,} of {len(images):,} images")
    model = inputs.model
    bad = extract(shards, missing, images, load, model.embedding, model.std, inputs.compute)
    present = np.ones(len(images), bool)
    present[list(bad)] = False
    if not present.any():
        raise InputError(f"none of the {len(images):,} images can be read")
    return np.concatenate([shards.none, *shards.blocks(range(len(shards)))]), present


def open_shards(folder: Path, inputs: Applied, batch: int, advice: str) -> Shards:
    """The shards in a folder, begun if it is missing. Arguments and errors as of
    `continued_rows`."""
    images, length = len(inputs.images), shard_length(batch)
    shards = Shards(folder, images, inputs.model.embedding_dim, DTYPES["float16"], length)
    shards.begin({**key_of(inputs), "images in a shard (by --batch)": length}, 1, advice)
    return shards

"""A batch on its way from a worker: its pixels in shared memory, or else through the worker's pipe.

Torch would send it from a thread of the worker, where an error loses the batch.
"""

import pickle
import shutil
import tempfile
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import torch

from data.batch import Batch, Sample, collate
from system.files import in_words

SHARED = Path("/dev/shm")
SPARE = 1 << 20  # bytes of it that are left to the queues of new workers, and to others
FEWER = "give fewer --workers or a smaller --batch"
WAYS_OUT = f"give a container more with --shm-size or --ipc=host, or {FEWER}"


@dataclass(frozen=True)
class Parcel:
    """A packed `Batch`.

    Attributes:
        pixels: of each piece, a pickled handle of shared memory, or the pixels themselves.
        obstacle: the reason why they are not in shared memory, or "".
    """

    pixels: list[bytes | np.ndarray]
    index: np.ndarray
    turns: np.ndarray
    unreadable: dict[int, str]
    obstacle: str = ""

    def open(self) -> Batch:
        """The batch, in the process that receives the parcel; once."""
        opened = [
            pickle.loads(sent) if isinstance(sent, bytes) else torch.from_numpy(sent)
            for sent in self.pixels
        ]
        pixels = opened[0] if len(opened) == 1 else torch.cat(opened)
        index, turns = torch.from_numpy(self.index), torch.from_numpy(self.turns)
        return Batch(pixels, index, self.unreadable, turns)


def collate_parcel(samples: list[Sample]) -> Parcel:
    """`collate` in a worker."""
    batch = collate(samples)
    sent: bytes | np.ndarray
    try:
        check_room(batch.pixels.nbytes)
        sent, obstacle = bytes(ForkingPickler.dumps(batch.pixels)), ""
    except (OSError, RuntimeError) as error:  # torch raises the latter if there is no room
        sent, obstacle = batch.pixels.numpy(), reason_of(error)
    return Parcel([sent], batch.index.numpy(), batch.turns.numpy(), batch.unreadable, obstacle)


def join_parcels(parcels: list[Parcel]) -> Parcel:
    """The pieces of a batch as one."""
    if len(parcels) == 1:
        return parcels[0]
    readable = [each for each in parcels if len(each.index) > 0] or parcels[:1]
    return Parcel(
        [sent for each in readable for sent in each.pixels],
        np.concatenate([each.index for each in parcels]),
        np.concatenate([each.turns for each in parcels]),
        {image: reason for each in parcels for image, reason in each.unreadable.items()},
        next((each.obstacle for each in parcels if each.obstacle), ""),
    )


def reason_of(error: OSError | RuntimeError) -> str:
    """Why a worker can't start or send a batch, for a message."""
    if "AF_UNIX path too long" in str(error):
        return (
            f"{tempfile.gettempdir()} is too long a path for sockets; set TMPDIR to a shorter one"
        )
    return str(error)


def check_room(size: int) -> None:
    """Check that shared memory has room for a batch of `size` bytes.

    Raises:
        OSError: it has not.
    """
    if SHARED.is_dir() and shutil.disk_usage(SHARED).free < size + SPARE:
        raise OSError(f"{describe_room()}, and a batch needs {in_words(size)}; {WAYS_OUT}")


def describe_room() -> str:
    """The size of shared memory, and how much of it is free."""
    room = shutil.disk_usage(SHARED)
    return f"{SHARED} has {in_words(room.total)}, of which {in_words(room.free)} are free"

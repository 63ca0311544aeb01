"""Clusters by image, `(N,) int64` in the order of `images.txt`, −1 for an image that was left out:
`assignments/epoch_<n>.npy` of each epoch, `assignments/prototypes.npy` of the finished network."""

import io
import re
from pathlib import Path

import numpy as np

from system.errors import InputError, shorten
from system.files import atomic_write

MOST_LISTED = 10_000_000  # images; for more, the lists of `clusters` would take gigabytes


def assignment_path(folder: Path, epoch: int) -> Path:
    """The file of the assignment that an epoch begins with."""
    return folder / "assignments" / f"epoch_{epoch:04d}.npy"


def prototypes_path(folder: Path) -> Path:
    """The file of the finished network's assignment to its prototypes."""
    return folder / "assignments" / "prototypes.npy"


def assigned_epochs(folder: Path) -> list[int]:
    """The epochs that have an assignment, ascending."""
    names = (path.name for path in (folder / "assignments").glob("epoch_*.npy"))
    found = (re.fullmatch(r"epoch_(\d+)\.npy", name) for name in names)
    return sorted(int(match[1]) for match in found if match)


def read_assignment(path: Path, images: int) -> np.ndarray:
    """An assignment `(N,) int64`.

    Args:
        images: N.

    Raises:
        InputError: the file can't be read, or isn't an assignment of N images.
    """
    try:
        assignment = np.load(path, allow_pickle=False)
        if not isinstance(assignment, np.ndarray):
            raise ValueError("it is an archive of arrays")
    except Exception as error:  # damaged bytes make np.load raise almost anything
        raise InputError(f"{path}: cannot read this assignment: {shorten(error)}") from error
    if assignment.shape != (images,) or assignment.dtype != np.int64:
        raise InputError(
            f"{path}: holds {assignment.dtype} of shape {assignment.shape}, not a cluster for "
            f"each of the {images} images of {path.parents[1] / 'images.txt'}"
        )
    if not -1 <= assignment.min(initial=-1) <= assignment.max(initial=-1) < images:
        raise InputError(
            f"{path}: has clusters {assignment.min()} to {assignment.max()}; they must be between "
            f"-1 and {images - 1}, as there are {images} images"
        )
    return assignment


def write_assignment(path: Path, assignment: np.ndarray) -> None:
    """Write an assignment, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    content = io.BytesIO()  # np.save on a file hides why a disk fails
    np.save(content, assignment)
    data = content.getbuffer()
    with atomic_write(path, needed=lambda: len(data)) as file:
        file.write(data)

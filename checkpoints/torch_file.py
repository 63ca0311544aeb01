"""Load files of every version of `torch.save`, and safetensors, without running anything in them.

The first versions of torch wrote tar archives, which cannot be loaded safely. The message on a file
that is no checkpoint says what kind of file it is.
"""

import io
import re
import tarfile
from pathlib import Path
from typing import IO, Any, NamedTuple

from checkpoints.old_torch_file import MAGIC_BYTES, load_old_file
from checkpoints.safetensors_file import read_weights
from checkpoints.zip_torch_file import ChecksumError, load_zip_file
from system.errors import InputError, shorten

ZIP, OLD, PYTHON2 = "zip", "not zip, of before torch 1.6", "not zip, written by Python 2"
SAFETENSORS = "safetensors"
OF_TAR = {"pickle", "storages", "tensors"}

# How files begin that are something else, and what to do about it
OTHERS = {
    rb"version https://git-lfs": "a Git LFS pointer to the file; fetch it with git lfs pull",
    rb"\s*<(!doctype|html|head|body|!--|\?xml)": "a web page; the download needs another address, "
    "or a login",
    rb"\x1f\x8b": "a file packed by gzip; unpack it with gunzip, or tar -xzf",
    rb"BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!": "a packed file; unpack it",
    rb"\x89HDF": "an HDF5 file, as of Keras; save its weights with torch",
    rb"\x93NUMPY": "a NumPy array",
    rb"$": "an empty file; download it again",
}


class Loaded(NamedTuple):
    """The content of a file.

    Attributes:
        content: what was saved, its tensors on the CPU.
        container: the format: `ZIP`, `OLD`, `PYTHON2` or `SAFETENSORS`.
        unknown: names of classes whose objects are placeholders in `content`.
    """

    content: Any
    container: str
    unknown: list[str]


def load_torch_file(path: str | Path) -> Loaded:
    """Load a file.

    Raises:
        InputError: the file is missing, damaged, or something else; says what.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(64)
            _check_kind(file, start, path)
            file.seek(0)
            return _load(file, start, path)
    except IsADirectoryError as error:
        raise InputError(
            f"{path}: a folder; give a checkpoint, such as {Path(path) / 'checkpoint.pth.tar'}"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: cannot read this checkpoint: {error.strerror}") from error


def _load(file: io.BufferedReader, start: bytes, path: str | Path) -> Loaded:
    try:
        if start.startswith(b"PK\x03\x04"):
            content, unknown = load_zip_file(file)
            return Loaded(content, ZIP, unknown)
        if start[8:9] == b"{":  # a JSON header after its length in 8 bytes
            return Loaded(read_weights(path), SAFETENSORS, [])
        if MAGIC_BYTES not in start:
            raise ValueError("neither of torch's formats")
        content, unknown, by_python2 = load_old_file(file)
        return Loaded(content, PYTHON2 if by_python2 else OLD, unknown)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except ChecksumError as error:
        raise InputError(f"{path}: damaged: {error}") from error
    except Exception as error:  # damaged bytes make an unpickler raise almost anything
        raise InputError(f"{path}: not a checkpoint, or a damaged one") from error


def is_intact(path: Path) -> bool:
    """Whether a file is torch's zip archive, whole and with the bytes that were written. It is read
    but not kept in memory."""
    try:
        with path.open("rb") as file:
            load_zip_file(file, weights=False)
    except Exception:  # as above
        return False
    return True


def load_without_weights(path: str | Path) -> Any:
    """The content of torch's zip archive, with tensors on the device `meta`. Checksums are not
    compared.

    Raises:
        Exception: any; the file is damaged, or of another format.
    """
    with Path(path).open("rb") as file:
        return load_zip_file(file, sums=False, weights=False)[0]


def _check_kind(file: IO[bytes], start: bytes, path: str | Path) -> None:
    """Check that a file isn't of another kind."""
    for pattern, kind in OTHERS.items():
        if re.match(pattern, start, re.IGNORECASE):
            raise InputError(f"{path}: not a checkpoint, but {kind}")
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            names = archive.getnames()
    except (tarfile.TarError, ValueError):
        return
    if set(names) >= OF_TAR:
        raise InputError(
            f"{path}: a tar archive of torch's first versions cannot be loaded safely; if you "
            "trust its source, torch.load it with weights_only=False and torch.save the result"
        )
    if names:
        named = shorten(names[0])
        raise InputError(f"{path}: a tar archive of {named!r} and the like; unpack it")

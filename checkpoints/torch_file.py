"""Load files of every version of `torch.save` without running anything in them.

Since 1.6 torch writes zip archives, which its own safe loader reads; `old_torch_file` reads the
older format. The first versions wrote tar archives, which cannot be loaded safely.
"""

import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from checkpoints.old_torch_file import MAGIC_BYTES, load_old_file
from checkpoints.safetensors_file import read_weights
from system.errors import InputError, shorten
from system.names import utf8_name

ZIP, OLD, PYTHON2 = "zip", "not zip, of before torch 1.6", "not zip, written by Python 2"
SAFETENSORS = "safetensors"
OF_TAR = {"pickle", "storages", "tensors"}


def load_torch_file(path: str | Path) -> tuple[Any, str]:
    """The content of a file, on the CPU, and its format: `ZIP`, `OLD`, `PYTHON2` or `SAFETENSORS`.

    Raises:
        InputError: the file is missing, damaged, of another format, or refers to more than tensors
            and plain data.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(64)
            _check_not_tar(file, path)
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            loaded, container = _load(file, start, path)
    except OSError as error:
        raise InputError(f"{path}: cannot read this checkpoint: {error.strerror}") from error
    if _bytes_of_tensors(loaded) > size:
        raise InputError(f"{path}: not a checkpoint: it has tensors that are larger than the file")
    return loaded, container


def _load(file: io.BufferedReader, start: bytes, path: str | Path) -> tuple[Any, str]:
    try:
        if start.startswith(b"PK\x03\x04"):
            _check_archive(file)
            return torch.load(file, map_location="cpu", weights_only=True), ZIP
        if start[8:9] == b"{":  # a JSON header after its length in 8 bytes
            return read_weights(path), SAFETENSORS
        if MAGIC_BYTES not in start:
            raise ValueError("neither of torch's formats")
        loaded, by_python2 = load_old_file(file)
        return loaded, PYTHON2 if by_python2 else OLD
    except ChecksumError as error:
        raise InputError(f"{path}: damaged: {error}") from error
    except Exception as error:  # damaged bytes make torch.load raise almost anything
        wanted = re.search(r"(?:GLOBAL|it refers to) (\S+)", str(error))
        reason = f": it refers to {shorten(wanted[1])}, which might run" if wanted else ""
        raise InputError(f"{path}: not a checkpoint, or a damaged one{reason}") from error


def is_intact(path: Path) -> bool:
    """Whether a file is torch's zip archive, whole and with the bytes that were written. It is read
    but not kept in memory."""
    try:
        with path.open("rb") as file:
            _check_archive(file)
        load_mapped(path)
    except Exception:  # as above
        return False
    return True


def load_mapped(path: str | Path) -> Any:
    """The content of torch's zip archive, with tensors mapped from the disk. Checksums are not
    compared.

    Raises:
        Exception: any; the file is damaged, or of another format.
    """
    with Path(path).open("rb") as file:
        _check_archive(file, sums=False)
    with utf8_name(path) as name:
        return torch.load(name, map_location="cpu", weights_only=True, mmap=True)


class ChecksumError(ValueError):
    """The bytes are not those that were written."""


def _check_archive(file: IO[bytes], sums: bool = True) -> None:
    """Check that a zip archive is uncompressed, as torch writes it (a small compressed one could
    fill the memory), and compare its checksums.

    torch writes a CRC-32 for each record but doesn't check it when it loads: a flipped bit would be
    another weight.
    """
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it is compressed")
        if sum(member.file_size for member in members) > size:
            raise ValueError("its contents are larger than the file")
        with_sums = any(member.CRC for member in members)  # torch has an option to write none
        if with_sums and sums:
            _check_sums(archive)
    file.seek(0)


def _check_sums(archive: zipfile.ZipFile) -> None:
    try:
        damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        raise ChecksumError(str(error)) from error
    if damaged is not None:
        raise ChecksumError(f"the bytes of {damaged!r} in it are not those that were written")


def _bytes_of_tensors(content: Any) -> int:
    """Bytes of memory behind the tensors in dicts, lists and tuples."""
    blocks = {}
    for tensor in _tensors(content):
        if tensor.layout == torch.strided and tensor.device.type == "cpu":
            storage = tensor.untyped_storage()
            blocks[storage.data_ptr()] = storage.nbytes()
    return sum(blocks.values())


def _tensors(content: Any) -> Iterator[torch.Tensor]:
    """All tensors, without attributes that a file may have added, such as another `layout`."""
    seen, left = set(), [content]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, torch.Tensor):
            yield torch.Tensor.detach(each)
        elif isinstance(each, dict):
            left += dict.values(each)
        elif isinstance(each, list | tuple):
            left += each


def _check_not_tar(file: IO[bytes], path: str | Path) -> None:
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

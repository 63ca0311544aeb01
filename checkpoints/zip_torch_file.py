"""Files that `torch.save` writes since torch 1.6, loaded without running anything in them.

Such a file is a zip archive with one folder. In it, `data.pkl` is the object's pickle, `data/KEY`
are the entries of a storage, and `byteorder` is theirs.
"""

import io
import struct
import zipfile
from typing import IO, Any

import torch
from torch import Tensor

from checkpoints.torch_pickle import TorchUnpickler
from system.errors import InputError, shorten

HEADER = struct.Struct("<26xHH")  # in front of a member; ends with the lengths of two texts


class ChecksumError(ValueError):
    """The bytes are not those that were written."""


def load_zip_file(
    file: IO[bytes], sums: bool = True, weights: bool = True
) -> tuple[Any, list[str]]:
    """The object in a file, its tensors on the CPU, and the names of its unknown classes.

    Args:
        sums: compare the checksums. torch writes a CRC-32 for each member, but doesn't check it: a
            flipped bit would be another weight.
        weights: read the tensors; otherwise they are on the device `meta`.

    Raises:
        InputError: another program's archive; the message lacks the path.
        ChecksumError: it is damaged.
        Exception: almost any, for damaged bytes.
    """
    archive = _Archive(file, sums)

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if archive.size(f"data/{key}") != count * dtype.itemsize:
            raise ValueError("a storage of another size")
        if not weights:
            return torch.empty(count, dtype=dtype, device="meta")
        entries = archive.read(f"data/{key}")
        if archive.is_swapped:
            entries = entries.view(count, dtype.itemsize).flip(1).flatten()
        return entries.view(dtype)

    unpickler = TorchUnpickler(io.BytesIO(archive.read("data.pkl").numpy().tobytes()), storage)
    return unpickler.load(), unpickler.unknown


class _Archive:
    """The folder in an archive. Its members are read without zipfile, which insists on checksums
    that torch can leave out.

    Raises:
        InputError, ChecksumError: as `load_zip_file`.
        ValueError: it might fill the memory.
    """

    def __init__(self, file: IO[bytes], sums: bool) -> None:
        self._file = file
        whole = file.seek(0, io.SEEK_END)
        with zipfile.ZipFile(file) as archive:
            self._members = {member.filename: member for member in archive.infolist()}
            self._folder = _folder_of(list(self._members))
            if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
                raise ValueError("it is compressed")
            if sum(each.file_size for each in archive.infolist()) > whole:
                raise ValueError("its contents are larger than the file")
            if sums and any(each.CRC for each in archive.infolist()):
                _check_sums(archive)
        order = f"{self._folder}/byteorder" in self._members
        self.is_swapped = order and bytes(self.read("byteorder").numpy()) == b"big"

    def size(self, name: str) -> int:
        return self._members[f"{self._folder}/{name}"].file_size

    def read(self, name: str) -> Tensor:
        """The bytes of a member, `(n,)` uint8."""
        start = self._members[f"{self._folder}/{name}"].header_offset
        self._file.seek(start)
        lengths = HEADER.unpack(self._file.read(HEADER.size))
        self._file.seek(start + HEADER.size + sum(lengths))
        content = torch.empty(self.size(name), dtype=torch.uint8)
        if self._file.readinto(content.numpy().data) != len(content):  # type: ignore[attr-defined]
            raise ValueError("it ends too early")
        return content


def _folder_of(names: list[str]) -> str:
    """The folder of `data.pkl`."""
    folders = [name.removesuffix("/data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(folders) != 1:
        some = repr(shorten(names[0])) if names else "nothing"
        raise InputError(f"not a checkpoint, but a zip archive of {some} and the like; unpack it")
    if f"{folders[0]}/constants.pkl" in names:
        raise InputError(
            "not a checkpoint, but a TorchScript program, which would have to run; if you trust "
            "its source, torch.jit.load it and torch.save its state_dict()"
        )
    return folders[0]


def _check_sums(archive: zipfile.ZipFile) -> None:
    try:
        damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        raise ChecksumError(str(error)) from error
    if damaged is not None:
        raise ChecksumError(f"the bytes of {damaged!r} in it are not those that were written")

"""What `torch.save` has written, of every age, loaded without running what is in it.

Since 1.6 torch writes zip archives. Before, it wrote pickles one after the other (a magic number,
a version, the machine's properties, the object, the keys of its storages) and behind them the bytes
of the storages. Its first versions wrote tar archives, which cannot be loaded safely.

Python 2 pickled texts and large numbers (such as the addresses by which the optimisers of those
years know their parameters) in ways that torch's safe loader does not know. They are put in today's
way in front of it; nothing is run for that.
"""

import io
import pickle
import pickletools
import re
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch

from checkpoints.safetensors_file import read_weights
from system.errors import InputError, shorten
from system.names import utf8_name
from system.pickle_scan import check_pickle

ZIP, OLD, PYTHON2 = "zip", "not zip, of before torch 1.6", "not zip, written by Python 2"
SAFETENSORS = "safetensors"
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)[2:-1]
PICKLES = 5  # in front of the storages
OF_TAR = {"pickle", "storages", "tensors"}


def load_torch_file(path: str | Path) -> tuple[Any, str]:
    """What is in a file, on the CPU, and the format that it is in: `ZIP`, `OLD`, `PYTHON2`, or
    `SAFETENSORS`, which `weights_file` reads.

    Raises:
        InputError: the file is missing, damaged, of another format, or asks for more than tensors
            and plain data.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(64)
            _refuse_tar(file, path)
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            loaded, container = _load(file, start, path)
    except OSError as error:
        raise InputError(f"{path}: cannot read this checkpoint: {error.strerror}") from error
    if _bytes_of_tensors(loaded) > size:
        raise InputError(f"{path}: not a checkpoint: it has tensors that are larger than the file")
    return loaded, container


def _load(file: IO[bytes], start: bytes, path: str | Path) -> tuple[Any, str]:
    try:
        if start.startswith(b"PK\x03\x04"):
            _check_archive(file)
            return torch.load(file, map_location="cpu", weights_only=True), ZIP
        if start[8:9] == b"{":  # behind the length of a header in JSON
            return read_weights(path), SAFETENSORS
        if MAGIC not in start:
            raise ValueError("neither of torch's formats")
        pickles, by_python2 = _translate(file)
        whole = io.BufferedReader(_Spliced(pickles, file))
        loaded = torch.load(whole, map_location="cpu", weights_only=True)
        return loaded, PYTHON2 if by_python2 else OLD
    except ChecksumError as error:
        raise InputError(f"{path}: damaged: {error}") from error
    except Exception as error:  # damaged bytes make torch.load raise almost anything
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        reason = f": it refers to {shorten(wanted[1])}, which might run" if wanted else ""
        raise InputError(f"{path}: not a checkpoint, or a damaged one{reason}") from error


def is_intact(path: Path) -> bool:
    """Whether a file is a zip archive of torch's, whole and with the bytes that were written. Its
    tensors are gone through, but not kept in memory."""
    try:
        with path.open("rb") as file:
            _check_archive(file)
        load_mapped(path)
    except Exception:  # as above
        return False
    return True


def load_mapped(path: str | Path) -> Any:
    """What is in a zip archive of torch's, with the tensors left on the disk, and not compared with
    what was written.

    Raises:
        Exception: of any kind; it is damaged, or something else.
    """
    with Path(path).open("rb") as file:
        _check_archive(file, sums=False)
    with utf8_name(path) as name:
        return torch.load(name, map_location="cpu", weights_only=True, mmap=True)


class ChecksumError(ValueError):
    """Bytes that are not those that were written."""


def _check_archive(file: IO[bytes], sums: bool = True) -> None:
    """Check that a zip archive has no more in it than its bytes, as torch writes it (one of a few
    bytes could fill the memory), and that they are those that were written; and look at its pickle.

    Of each record torch writes the CRC-32 and does not read it: it would load a flipped bit as
    another weight.
    """
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it is compressed")
        if sum(member.file_size for member in members) > size:
            raise ValueError("it has more in it than its bytes")
        with_sums = any(member.CRC for member in members)  # torch can be told to write none
        if with_sums and sums:
            _check_sums(archive)
        for member in members:
            if not with_sums:
                member.CRC = None  # type: ignore[assignment]  # to zipfile: there is none
            if member.filename.endswith(".pkl"):
                check_pickle(archive.read(member))
    file.seek(0)


def _check_sums(archive: zipfile.ZipFile) -> None:
    try:
        damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        raise ChecksumError(str(error)) from error
    if damaged is not None:
        raise ChecksumError(f"the bytes of {damaged!r} in it are not those that were written")


def _bytes_of_tensors(content: Any) -> int:
    """Of the memory that the tensors in dicts, lists and tuples look at."""
    blocks = {}
    for tensor in _tensors(content):
        if tensor.layout == torch.strided and tensor.device.type == "cpu":
            storage = tensor.untyped_storage()
            blocks[storage.data_ptr()] = storage.nbytes()
    return sum(blocks.values())


def _tensors(content: Any) -> Iterator[torch.Tensor]:
    """All of them, without attributes that a file may have given them, such as another `layout`."""
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


def _refuse_tar(file: IO[bytes], path: str | Path) -> None:
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            names = archive.getnames()
    except (tarfile.TarError, ValueError):
        return
    if set(names) >= OF_TAR:
        raise InputError(
            f"{path}: a tar archive, as torch's first versions wrote, cannot be loaded safely; if "
            "you trust who made it, torch.save what torch.load(…, weights_only=False) gives"
        )
    if names:
        named = shorten(names[0])
        raise InputError(f"{path}: a tar archive of {named!r} and the like; unpack it")


def _translate(file: IO[bytes]) -> tuple[bytes, bool]:
    """The pickles in today's opcodes, and whether some were Python 2's; the file then stands behind
    them."""
    translated, by_python2 = [], False
    for _ in range(PICKLES):
        start = file.tell()
        opcodes = [(o.name, value, place or 0) for o, value, place in pickletools.genops(file)]
        ends = [*(place for _, _, place in opcodes[1:]), file.tell()]
        file.seek(start)
        content = file.read(ends[-1] - start)
        check_pickle(content)
        for (name, value, place), end in zip(opcodes, ends, strict=True):
            as_it_was = content[place - start : end - start]
            today = _today(name, value, as_it_was)
            by_python2 |= today is not as_it_was
            translated.append(today)
    return b"".join(translated), by_python2


def _today(name: str, value: Any, as_it_was: bytes) -> bytes:
    """An opcode of Python 2 as Python 3 writes it; any other as it was."""
    if name in ("SHORT_BINSTRING", "BINSTRING"):
        text = value.encode()
        return pickle.BINUNICODE + struct.pack("<I", len(text)) + text
    return pickle.dumps(value, protocol=2)[2:-1] if name == "INT" else as_it_was


class _Spliced(io.RawIOBase):
    """A file with other bytes in the place of those before where it stands."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._head, self._file = head, file
        self._shift = file.tell() - len(head)
        self._size = file.seek(0, io.SEEK_END) - self._shift
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place}.get(whence, self._size)
        return self._place

    def readinto(self, buffer: Any) -> int:
        if self._place < len(self._head):
            piece = self._head[self._place : self._place + len(buffer)]
        else:
            self._file.seek(self._place + self._shift)
            piece = self._file.read(len(buffer))
        buffer[: len(piece)] = piece
        self._place += len(piece)
        return len(piece)

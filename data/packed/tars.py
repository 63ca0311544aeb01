"""The images of a tar: ustar, PAX and GNU, with long names."""

import contextlib
import os
import shlex
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from data.folder import UNLABELLED
from data.packed.entries import Entries, Found, pack
from data.packed.kinds import COMPRESSED
from data.packed.members import images_among, plain_name, such_as
from system.errors import InputError, shorten
from system.names import printable

LONGEST_LABEL = 256  # bytes of a `.cls`
BLOCK = 512


def read_tar(path: Path) -> Entries:
    """The images of a tar. A member that is cut off is left out and named.

    Raises:
        InputError: it is compressed, empty or no tar.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        _check_start(path, file.read(BLOCK))
        members: list[Found] = []
        notes = list(_members(path, file, members))

        def label(member: Found) -> str | None:
            if member.length > LONGEST_LABEL:
                return None
            content = os.pread(file.fileno(), member.length, member.offset)
            try:
                return content.decode().strip()
            except UnicodeDecodeError:
                return None

        images, more = images_among(members, label)
    return pack(images, [*notes, *more])


def _check_start(path: Path, start: bytes) -> None:
    if not start:
        raise InputError(f"{path}: the file is empty")
    for program, (first, _) in COMPRESSED.items():
        if start.startswith(first):
            whole = path.with_suffix("") if path.suffix != ".tar" else path.with_suffix(".raw.tar")
            whole = whole if whole.suffix == ".tar" else whole.with_suffix(".tar")
            command = f"{program} -dc {shlex.quote(str(path))} > {shlex.quote(str(whole))}"
            raise InputError(
                f"{path}: is compressed, so its images can't be read one by one; unpack it: "
                f"{command}"
            )


def _members(path: Path, file: BinaryIO, members: list[Found]) -> Iterator[str]:
    """Append the regular files to `members`; yield lines about what is left out."""
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    try:
        tar = tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115 (the caller closes the file)
    except Exception as error:  # damaged headers make tarfile raise almost anything
        raise InputError(f"{path}: not a tar: {shorten(error)}") from error
    files: dict[str, Found] = {}  # hard links lead to them
    special, cut = list[str](), ""
    with contextlib.suppress(Exception):
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]
            name, found = plain_name(member.name), None
            if member.islnk():
                found = files.get(plain_name(member.linkname))
            elif member.isreg() and not member.issparse():
                found = Found(name, UNLABELLED, member.offset_data, member.size)
            if found is None:
                special += [] if member.isdir() else [name]
            elif min(found.offset, found.length) < 0 or found.offset + found.length > size:
                cut = name
                break
            else:
                files[name] = found._replace(name=name)
                members.append(files[name])
    rest = os.pread(file.fileno(), BLOCK, tar.offset)
    if cut:
        yield f"{printable(cut)} is cut off, left out"
    elif rest.strip(b"\0") or (not rest and tar.offset > size):
        yield f"is damaged or cut off after {len(members):,} members; the rest is left out"
    yield from such_as(special, "link|s or other special member|s", "left out")

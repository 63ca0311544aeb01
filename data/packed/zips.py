"""The images of a zip archive, stored or deflated, and the bytes of one."""

import stat
import struct
import zipfile
import zlib
from pathlib import Path

from data.decode import MAX_PIXELS, UnreadableImageError
from data.folder import UNLABELLED
from data.packed.entries import ENCRYPTED, ODD_METHOD, WHOLE, Entries, Found, pack
from data.packed.members import images_among, plain_name
from data.packed.reading import read_at
from system.errors import InputError, shorten

HEADER = struct.Struct("<4s22xHH")  # a member's own: its mark, and the lengths of what follows
LARGEST_IMAGE = 3 * MAX_PIXELS  # bytes: those of the largest image, as pixels
MARK = b"PK\3\4"


def read_zip(path: Path) -> Entries:
    """The images of a zip archive, from its directory.

    Raises:
        InputError: it is empty or no zip archive.
        OSError: it can't be read.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = [_found(each) for each in archive.infolist() if _is_file(each)]
            return pack(*images_among(members, lambda member: ""))
    except OSError:
        raise
    except Exception as error:  # damaged directories make zipfile raise almost anything
        raise InputError(f"{path}: not a sound zip archive: {shorten(error)}") from error


def read_member(descriptor: int, name: str, offset: int, length: int, inflated: int) -> bytes:
    """The bytes of a member.

    Args:
        name: as `plain_name` gives it.
        offset: of its header.
        length: in the archive.
        inflated: its length after inflating, or `WHOLE` if it is stored.

    Raises:
        UnreadableImageError: it is damaged, cut off, or inflates to more than it says.
    """
    mark, named, extra = HEADER.unpack(read_at(descriptor, offset, HEADER.size))
    content = read_at(descriptor, offset + HEADER.size, named + extra + length)
    own, content = content[:named], content[named + extra :]
    if mark != MARK or (own.isascii() and plain_name(own.decode()) != name):
        raise UnreadableImageError("another or no member begins where the archive's directory says")
    if inflated == WHOLE:
        return content
    if inflated > LARGEST_IMAGE:
        reason = f"inflates to {inflated:,} bytes, more than {LARGEST_IMAGE:,}"
        raise UnreadableImageError(reason)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    found = inflater.decompress(content, inflated + 1)
    if len(found) != inflated:
        raise UnreadableImageError(f"doesn't inflate to the {inflated:,} bytes that it should have")
    return found


def _is_file(member: zipfile.ZipInfo) -> bool:
    mode = member.external_attr >> 16
    return not member.is_dir() and (stat.S_IFMT(mode) in (0, stat.S_IFREG))


def _found(member: zipfile.ZipInfo) -> Found:
    name, offset = plain_name(member.filename), member.header_offset
    if member.flag_bits & 1:
        return Found(name, UNLABELLED, offset, ENCRYPTED)
    if member.compress_type == zipfile.ZIP_STORED:
        return Found(name, UNLABELLED, offset, member.compress_size)
    if member.compress_type != zipfile.ZIP_DEFLATED:
        return Found(name, UNLABELLED, offset, ODD_METHOD)
    return Found(name, UNLABELLED, offset, member.compress_size, member.file_size)

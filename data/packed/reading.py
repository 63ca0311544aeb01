"""Reading bytes of containers: descriptors that are opened when needed, and whole reads."""

import os

from data.decode import UnreadableImageError

MOST_OPEN = 256  # containers in each process
LARGEST = 1 << 30  # bytes that may come out of a compressed image or page


class Descriptor:
    """An open file, closed with its last reference: a thread may still read what another has put
    out of the cache.

    Raises:
        UnreadableImageError: the file has another size than when it was indexed.
        OSError: it can't be opened.
    """

    def __init__(self, path: str, size: int) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        now = os.fstat(self.number).st_size
        if now != size:
            raise UnreadableImageError(
                f"its container has changed: {size:,} bytes when indexed, {now:,} now"
            )

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


def read_at(descriptor: int, offset: int, length: int) -> bytes:
    """The `length` bytes at an offset.

    Raises:
        UnreadableImageError: the file ends before.
        OSError: it can't be read.
    """
    content = os.pread(descriptor, length, offset)
    while len(content) < length:  # some disks give less at a time
        more = os.pread(descriptor, length - len(content), offset + len(content))
        if not more:
            raise UnreadableImageError("its container is cut off")
        content += more
    return content

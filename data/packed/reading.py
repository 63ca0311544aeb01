"""Reading bytes of containers: descriptors that are opened when needed, and whole reads."""

import functools
import os
import resource
import weakref

from data.decode import UnreadableImageError

# Containers in each process: not more than a quarter of the files that it may open
MOST_OPEN = min(256, max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4, 1))
LARGEST = 1 << 30  # bytes of a page of images


class Descriptor:
    """An open file, closed with its last reference: a thread may still read what another has put
    out of the cache.

    Raises:
        UnreadableImageError: the file has another size than when it was indexed.
        OSError: it can't be opened.
    """

    def __init__(self, path: str, size: int) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.number)
        now = os.fstat(self.number).st_size
        if now != size:
            raise UnreadableImageError(
                f"its container has changed: {size:,} bytes when indexed, {now:,} now"
            )


@functools.lru_cache(MOST_OPEN)
def descriptor_of(path: str, size: int, version: str) -> Descriptor:
    """A container, opened; the last ones stay open, in each process.

    Args:
        size: in bytes, when it was indexed.
        version: differs when a container changed.

    Raises:
        UnreadableImageError: it has another size.
        OSError: it can't be opened.
    """
    return Descriptor(path, size)


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

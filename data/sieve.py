"""Which files of a folder are images, and one line on each kind of the others."""

import functools
import os
import stat
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from data.bands import is_image, read_npy_header
from data.decode import NOT_READ, image_extensions
from data.packed.kinds import INDEX_FOLDER, kind_of
from parallel.collectives import rank
from system.names import printable

# Besides names that begin with a dot: what Synology, QNAP, macOS, Windows and ext4 leave in folders
LEFT_BY_SYSTEMS = frozenset(
    {"@eaDir", "#recycle", "@Recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information"}
    | {"lost+found", "Thumbs.db", "desktop.ini"}
)
TEXTS = frozenset({".csv", ".htm", ".html", ".json", ".md", ".txt", ".xml", ".yaml", ".yml"})
VAGUE = frozenset({"CUR", "DIB", "FITS", "PCX", "XBM"})  # their first bytes begin other files, too
HEIC = (b"heic", b"heix", b"hevc", b"hevx")
FIRST_BYTES = 32
NO_EXTENSION = "without an extension"
MOST_NAMED = 5  # kinds of names in a line


def is_left_by_system(name: str) -> bool:
    """Whether a name in a folder is a system's or a program's, such as `.ipynb_checkpoints`."""
    return name.startswith(".") or name in LEFT_BY_SYSTEMS


class Sieve:
    """Sorts the names below a folder, and counts those that are passed over.

    Attributes:
        containers: the paths of tars, zips and Parquet files among them.
    """

    def __init__(self) -> None:
        self._extensions = image_extensions()
        self._systems, self._others = Counter[str](), Counter[str]()
        self.containers: list[str] = []
        self._heic = 0

    def is_folder_of_images(self, name: str) -> bool:
        """Whether a folder is looked into."""
        return not self._passes_over(name)

    def is_image(self, folder: str, name: str) -> bool:
        """Whether a file counts as an image: by its extension or, if that is unknown, by its first
        bytes."""
        if self._passes_over(name):
            return False
        extension = os.path.splitext(name)[1].lower()  # noqa: PTH122 (hot)
        if extension in self._extensions:
            return True
        path = os.path.join(folder, name)  # noqa: PTH118 (hot)
        if extension == ".npy" and _is_array(path):
            return True
        if kind_of(name) is not None and os.path.isfile(path):  # noqa: PTH113 (hot)
            self.containers.append(path)
            return False
        start = b"" if extension in TEXTS else _first_bytes(path)
        if _is_heic(start):
            self._heic += 1
        elif any(accepts(start) for accepts in _signatures()):
            return True
        else:
            self._others[extension or NO_EXTENSION] += 1
        return False

    def say(self, root: Path, beside: int, classes: Iterable[str]) -> None:
        """Say what was found, a line for each kind on stderr, in the first process only.

        Args:
            beside: number of images beside class folders.
            classes: names of the class folders.
        """
        lines = []
        if self._systems:
            lines.append(describe_systems(self._systems))
        if self._others:
            count = self._others.total()
            what = "file is no image" if count == 1 else "files are no images"
            kinds = most_of(self._others)
            lines.append(f"{count:,} {what} by name or first bytes, left out ({kinds})")
        if self.containers:
            lines.append(_describe_containers(self.containers))
        if self._heic:
            lines.append(
                f"left out {self._heic:,} in HEIC, which can't be read; convert to JPEG first, for "
                "example with heif-convert or ImageMagick"
            )
        if beside:
            what = "image lies" if beside == 1 else "images lie"
            lines.append(
                f"{beside:,} {what} beside the class folders, so without a label: training uses "
                "them, evaluations with labels leave them out"
            )
        lines += [
            f"the class folders {names} differ only in Unicode normal form, and count as "
            f"{len(alike)} classes; merge them if they are one"
            for alike in look_alike(classes)
            for names in [" and ".join(map(ascii, alike))]
        ]
        if rank() == 0:
            for line in lines:
                sys.stderr.write(f"note: {printable(str(root))}: {line}\n")

    def _passes_over(self, name: str) -> bool:
        if not is_left_by_system(name):
            return False
        if name != INDEX_FOLDER:
            self._systems[kind_of_system(name)] += 1
        return True


def kind_of_system(name: str) -> str:
    """A name that `is_left_by_system` as it is counted."""
    return "._*" if name.startswith("._") else printable(name)


def describe_systems(counts: Counter[str]) -> str:
    """A line about hidden names and those that systems leave."""
    what = "name that is" if counts.total() == 1 else "names that are"
    return f"passed over {counts.total():,} {what} hidden or left by a system ({most_of(counts)})"


def _describe_containers(paths: list[str]) -> str:
    """A line about containers in a folder that has image files."""
    kinds = Counter((kind_of(path) or "").replace("parquet", "Parquet") for path in paths)
    what = " and ".join(f"{n:,} {kind} file{'s' * (n > 1)}" for kind, n in sorted(kinds.items()))
    pattern = os.path.join(os.path.dirname(paths[0]), f"*{os.path.splitext(paths[0])[1]}")  # noqa: PTH118, PTH120, PTH122 (any text)
    return (
        f"left out {what}, because the folder has image files; for the images in containers give "
        f"a pattern such as '{pattern}'"
    )


def look_alike(names: Iterable[str]) -> list[list[str]]:
    """The groups of different names with the same Unicode normal form."""
    groups = defaultdict(set)
    for name in names:
        groups[unicodedata.normalize("NFC", name)].add(name)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def most_of(counts: Counter[str]) -> str:
    """The most frequent names with their counts, in words."""
    words = [
        name if count == 1 and name != NO_EXTENSION else f"{count:,} {name}"
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    more = len(words) - MOST_NAMED
    return ", ".join(words[:MOST_NAMED]) + (f" and {more} more kinds" if more > 0 else "")


def _first_bytes(path: str) -> bytes:
    """The first bytes of a regular file; none of any other, or if it can't be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (hot); a pipe would block
            return b""
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (hot)
            return file.read(FIRST_BYTES)
    except OSError:
        return b""


def _is_array(path: str) -> bool:
    """Whether a `.npy` is an image of bands, by its header: of two axes, it may be a table."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (hot)
            return False
        with open(path, "rb") as file:  # noqa: PTH123 (hot)
            shape, _, dtype = read_npy_header(file)
    except (OSError, ValueError):
        return False
    return len(shape) == 3 and is_image(shape, dtype)


def _is_heic(start: bytes) -> bool:
    return start[4:8] == b"ftyp" and any(brand in start[8:] for brand in HEIC)


@functools.cache
def _signatures() -> list[Callable[[bytes], bool | str]]:
    """Pillow's tests of a file's first bytes, for each format that is read and has a clear one."""
    Image.init()
    kinds = [kind for kind in Image.ID if kind not in NOT_READ | VAGUE]
    return [accepts for kind in kinds if (accepts := Image.OPEN[kind][1]) is not None]

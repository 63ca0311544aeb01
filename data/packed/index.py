"""The index: a few numbers for each image of all containers, in `.npy` files that are mapped."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.packed.entries import COLUMNS, WHOLE, Entries
from system.files import sync
from system.kept import Key, load_result, save_result
from system.names import digest_of_names

RECORD = "index.json"
DTYPES: dict[str, type[np.generic]] = {"container": np.int32, **COLUMNS}


@dataclass(frozen=True, eq=False)
class Index:
    """The images of all containers, N, in their order.

    It is pickled as its folder, so that another process maps the same files.

    Attributes:
        folder: with the files.
        key: identifies the containers, see `build.key_of`.
        containers: names of the files, relative to the images' root.
        sizes: bytes of each.
        codecs: of each one's compressed pages.
        labels: the different labels.
        digest: SHA-256 of all names in their order.
        checksum: SHA-256 of all arrays and labels.
        notes: lines about what was left out.
        arrays: `(N,)`, the container of each image and the `COLUMNS`; without `part` if all images
            are `WHOLE`.
    """

    folder: Path
    key: Key
    containers: list[str]
    sizes: list[int]
    codecs: list[str]
    labels: list[str]
    digest: str
    checksum: str
    notes: list[str]
    arrays: dict[str, np.ndarray] = field(repr=False)

    def __len__(self) -> int:
        return len(self.arrays["container"])

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_or_raise, (self.folder, self.key)

    def place(self, image: int) -> tuple[int, int, int, int]:
        """An image's container, offset, length and part."""
        container, offset, length = (
            int(self.arrays[name][image]) for name in ("container", "offset", "length")
        )
        part = self.arrays.get("part")
        return container, offset, length, WHOLE if part is None else int(part[image])

    def name(self, image: int) -> str:
        """An image's container and its name there."""
        return f"{self.containers[self.arrays['container'][image]]}/{self.member(image)}"

    def member(self, image: int) -> str:
        """An image's name in its container."""
        ends, names = self.arrays["ends"], self.arrays["names"]
        start = ends[image - 1] if image else 0
        return names[start : ends[image]].tobytes().decode("utf-8", "surrogateescape")


def write_index(
    folder: Path, key: Key, containers: list[str], sizes: list[int], entries: Iterable[Entries]
) -> None:
    """Write the index of containers into a folder, one after the other, as their entries come."""
    columns = {name: _Column(folder / f"{name}.npy", dtype) for name, dtype in DTYPES.items()}
    numbers: dict[str, int] = {}
    codecs, notes, empty = [], [], []
    digest, written, partial = hashlib.sha256(), 0, False
    for container, (name, each) in enumerate(zip(containers, entries, strict=True)):
        own = np.array([numbers.setdefault(text, len(numbers)) for text in each.texts], np.int32)
        values = each.columns | {
            "container": np.full(len(each), container),
            "label": own[each.columns["label"]],
            "ends": each.columns["ends"] + written,
        }
        for column in columns:
            columns[column].append(values[column])
        written += len(values["names"])
        partial |= bool((values["part"] != WHOLE).any())
        codecs.append(each.codec)
        notes += [f"{name}: {note}" for note in each.notes]
        empty += [] if len(each) else [name]
        names, ends = values["names"].tobytes(), each.columns["ends"].tobytes()
        for part in (name.encode("utf-8", "surrogateescape"), names, ends):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    checksums = [column.close() for column in columns.values()]
    if not partial:
        (folder / "part.npy").unlink()
    if 0 < len(empty) < len(containers):
        what = "container has" if len(empty) == 1 else "containers have"
        notes.insert(0, f"{len(empty):,} {what} no image, such as {empty[0]}")
    record = {
        "images": columns["container"].length, "containers": containers, "sizes": sizes,
        "codecs": codecs, "labels": list(numbers), "digest": digest.hexdigest(),
        "checksum": digest_of_names([*checksums, *numbers]), "notes": notes,
    }  # fmt: skip
    save_result(folder / RECORD, key, record)


def load_index(folder: Path, key: Key) -> Index | None:
    """The index in a folder, mapped; None if it is missing, damaged, or of other containers."""
    try:
        record, _ = load_result(folder / RECORD, key)
        images = record.pop("images")
        paths = {name: folder / f"{name}.npy" for name in DTYPES}
        if not paths["part"].exists():
            del paths["part"]
        arrays = {name: _mapped(path, DTYPES[name]) for name, path in paths.items()}
        lengths = {len(array) for name, array in arrays.items() if name != "names"}
        end = arrays["ends"][-1] if images else 0
        if lengths != {images} or end != len(arrays["names"]):
            return None
        return Index(folder, key, **record, arrays=arrays)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError):
        return None


def _load_or_raise(folder: Path, key: Key) -> Index:
    index = load_index(folder, key)
    if index is None:
        raise OSError(f"{folder}: the index of the images has vanished")
    return index


def _mapped(path: Path, dtype: type[np.generic]) -> np.ndarray:
    mode: Literal["r"] | None = "r" if path.stat().st_size > _EMPTY else None
    found = np.load(path, mmap_mode=mode, allow_pickle=False)
    if found.dtype != dtype or found.ndim != 1:
        raise ValueError(path)
    return found.view(np.ndarray)  # a memmap's own indexing is slow


class _Column:
    """A `.npy` file that grows, `(length,)` in the end."""

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self.length, self._dtype, self._digest = 0, np.dtype(dtype), hashlib.sha256()
        self._file = path.open("wb")
        self._write_header()

    def append(self, values: np.ndarray) -> None:
        content = np.ascontiguousarray(values, self._dtype).data
        self._file.write(content)
        self._digest.update(content)
        self.length += len(values)

    def close(self) -> str:
        """Returns the SHA-256 of the values."""
        self._file.seek(0)
        self._write_header()
        sync(self._file)
        self._file.close()
        return self._digest.hexdigest()

    def _write_header(self) -> None:
        """NumPy pads it, so that it stays as long whatever the length is."""
        about = {"descr": self._dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self._file, about)


_EMPTY = 128  # bytes of a `.npy` file without values, which can't be mapped

"""The same images as tars, zips and Parquet files of each kind in use."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from data.images import ImageList, find_images

Pairs = Sequence[tuple[str, bytes]]

# As `datasets` wrote files: from 2.13 to 4.0, from 4.1 to 4.5, from 4.6.0 on
GENERATIONS: dict[str, dict[str, Any]] = {
    "2.13": {"compression": "snappy", "row_group_size": 7},
    "4.1": {
        "compression": "snappy",
        "use_content_defined_chunking": True,
        "write_page_index": True,
        "data_page_size": 600,
        "write_batch_size": 2,
    },
    "4.6": {
        "compression": {"label": "snappy", "image.path": "snappy", "image.bytes": "none"},
        "use_dictionary": ["label", "image.path"],
        "use_content_defined_chunking": {"min_chunk_size": 600, "max_chunk_size": 2000},
        "write_page_index": True,
    },
}


def pairs_of(images: ImageList) -> list[tuple[str, bytes]]:
    """The name and the bytes of each file of a folder."""
    return [(name, Path(images.where(i)).read_bytes()) for i, name in enumerate(images.names)]


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], format: int = 1) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return path


def write_zip(path: Path, members: Iterable[tuple[str, bytes]], method: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def write_table(path: Path, members: Pairs, generation: str = "4.6", **options: Any) -> Path:
    """A Hugging Face data set of images whose class is the folder in their names."""
    folders = [name.rpartition("/")[0] for name, _ in members]
    classes = sorted(set(folders))
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": classes},
    }
    image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    schema = pyarrow.schema(
        {"image": image, "label": pyarrow.int64()},
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = [
        {
            "image": {"bytes": content, "path": name.replace("/", "_")},
            "label": classes.index(folder),
        }
        for (name, content), folder in zip(members, folders, strict=True)
    ]
    table = pyarrow.Table.from_pylist(rows, schema)
    pyarrow.parquet.write_table(table, path, **{**GENERATIONS[generation], **options})
    return path


def write_as(kind: str, tree: Path, folder: Path) -> Path:
    """The images of a tree, in another form. Returns what `DIR` then is."""
    members = pairs_of(find_images(tree))
    folder.mkdir()
    if kind == "list":
        list_file = folder / "images.csv"
        lines = [f"{tree / name},{name.partition('/')[0]}\n" for name, _ in members]
        list_file.write_text("path,label\n" + "".join(lines))
        return list_file
    if kind == "folder":
        return tree
    return WRITERS[kind](folder, members)


def _tar_shards(folder: Path, members: Pairs) -> Path:
    for number in range(3):
        write_tar(folder / f"x-{number}.tar", _shard(members, number))
    return folder


def _shard(members: Pairs, number: int) -> Pairs:
    return members[number * len(members) // 3 : (number + 1) * len(members) // 3]


def _tables(folder: Path, members: Pairs, generation: str) -> Path:
    for number in range(3):  # all classes in each
        path = folder / f"train-{number:05d}-of-00003.parquet"
        write_table(path, _shard(members, number), generation)
    return folder


WRITERS: dict[str, Callable[[Path, Pairs], Path]] = {
    "ustar": lambda folder, members: write_tar(folder / "x.tar", members, tarfile.USTAR_FORMAT),
    "gnu": lambda folder, members: write_tar(folder / "x.tar", members, tarfile.GNU_FORMAT),
    "pax": lambda folder, members: write_tar(folder / "x.tar", members, tarfile.PAX_FORMAT),
    "shards": _tar_shards,
    "stored zip": lambda folder, members: write_zip(folder / "x.zip", members),
    "deflated zip": lambda folder, members: write_zip(folder / "x.zip", members, 8),
    "Parquet 2.13": lambda folder, members: _tables(folder, members, "2.13"),
    "Parquet 4.1": lambda folder, members: _tables(folder, members, "4.1"),
    "Parquet 4.6": lambda folder, members: _tables(folder, members, "4.6"),
}
KINDS = ("list", *WRITERS)

"""Reading images at random and in order from files, tars, zips and Parquet, by one process and by
workers; and the cost of an index of many images at the start, in the main process and in workers.
"""

import argparse
import json
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from benchmarks.photos import add_images_flag, write_photos
from benchmarks.timing import add_rounds_flag, number
from data.images import ImageList, find_images
from data.loading import Draw, EpochBatches, make_loader
from data.packed.build import folder_of, key_of
from data.packed.containers import find_containers
from data.packed.entries import WHOLE, Entries
from data.packed.index import write_index
from system import cli
from system.extras import check_installed

OF_A_SHARD = 10_000  # images, in the synthetic index
READ = 2_000  # images of it that each worker reads
BATCH = 32  # images, in passes by workers
PARQUET: dict[str, dict[str, Any]] = {  # as `datasets` has written it
    "Parquet, uncompressed (datasets 4.6)": {
        "compression": "none", "use_dictionary": False, "use_content_defined_chunking": True,
    },
    "Parquet, 1 MB pages (datasets 4.1)": {
        "compression": "snappy", "use_content_defined_chunking": True,
    },
    "Parquet, 100-row groups (before)": {"compression": "snappy", "row_group_size": 100},
}  # fmt: skip


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a table and the costs of a large index. Returns the same as a dict."""
    check_installed("benchmarks containers", "pyarrow")
    with tempfile.TemporaryDirectory() as folder:
        kinds = write_kinds(Path(folder), args.images)
        found = read_kinds(kinds, args.rounds, args.readers)
    sys.stdout.write(
        f"{args.images} photos; ms for each image, in brackets of CPU time; median of "
        f"{args.rounds} rounds\n{'':40}{'at random':>16}{'in order':>16}"
        f"{f'{args.readers} workers':>12}{'index':>10}\n"
    )
    for kind, row in found.items():
        cells = (f"{row[how]:.3f} ({row[f'{how}, CPU']:.3f})" for how in ("random", "order"))
        sys.stdout.write(f"{kind:40}{''.join(f'{cell:>16}' for cell in cells)}")
        sys.stdout.write(f"{row['workers, CPU']:>12.3f}{number(row['index'])}\n")
    with tempfile.TemporaryDirectory() as folder:
        large = large_index(Path(folder), args.entries, args.readers)
    for name, value in large.items():
        sys.stdout.write(f"{name}: {value:,.3g}\n")
    return {"milliseconds": found, f"index of {args.entries} images": large}


def write_kinds(folder: Path, images: int) -> dict[str, Path]:
    """The same photos in each kind of container: where each is."""
    write_photos(folder / "folder", images)
    found = find_images(folder / "folder")
    members = [(name, Path(found.where(i)).read_bytes()) for i, name in enumerate(found.names)]
    with tarfile.open(folder / "x.tar", "w") as tar:
        tar.add(folder / "folder", "")
    paths = {"folder": folder / "folder", "tar": folder / "x.tar"}
    for kind, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        paths[f"zip, {kind}"] = folder / f"{kind}.zip"
        with zipfile.ZipFile(paths[f"zip, {kind}"], "w", method) as archive:
            for name, content in members:
                archive.writestr(name, content)
    for place, (kind, options) in enumerate(PARQUET.items()):
        paths[kind] = folder / f"{place}.parquet"
        _write_table(paths[kind], members, options)
    return paths


def _write_table(path: Path, members: list[tuple[str, bytes]], options: dict[str, Any]) -> None:
    import pyarrow
    import pyarrow.parquet

    image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    about = {"info": {"features": {"image": {"_type": "Image"}}}}
    schema = pyarrow.schema({"image": image}, metadata={"huggingface": json.dumps(about)})
    rows = [{"image": {"bytes": content, "path": name}} for name, content in members]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), path, **options)


def read_kinds(kinds: dict[str, Path], rounds: int, workers: int) -> dict[str, dict[str, float]]:
    """Milliseconds for each image, wall clock and CPU: the median of rounds in which the kinds take
    turns, after one round that isn't counted. Of workers, which read in order, CPU only."""
    found: dict[str, dict[str, Any]] = {}
    images = {}
    for kind, path in kinds.items():
        start = time.perf_counter()
        images[kind] = find_images(path)
        index = 1e3 * (time.perf_counter() - start) / len(images[kind])
        found[kind] = {"index": index}
    orders: dict[str, Callable[[int], np.ndarray]] = {
        "random": lambda count: np.random.default_rng(0).permutation(count),
        "order": np.arange,
    }
    for each in range(1 + rounds):
        for kind, source in images.items():
            for how, order in orders.items():
                times = _read(source, order(len(source)))
                for name, value in zip((how, f"{how}, CPU"), times, strict=True):
                    found[kind].setdefault(name, []).extend([value] if each else [])
            by_workers = _read_by_workers(source, workers)
            found[kind].setdefault("workers, CPU", []).extend([by_workers] if each else [])
    return {
        kind: {name: float(np.median(values)) for name, values in row.items()}
        for kind, row in found.items()
    }


def _read(images: ImageList, order: np.ndarray) -> tuple[float, float]:
    start, cpu = time.perf_counter(), time.process_time()
    for image in order.tolist():
        with images.open(image) as file:
            file.read()
    seconds = time.perf_counter() - start, time.process_time() - cpu
    return 1e3 * seconds[0] / len(order), 1e3 * seconds[1] / len(order)


class Seconds(Dataset[float]):
    """Taking an item reads an image and gives the seconds of CPU time for that."""

    def __init__(self, images: ImageList) -> None:
        self.images = images

    def __getitem__(self, draw: Draw) -> float:
        start = time.process_time()
        with self.images.open(draw.image) as file:
            file.read()
        return time.process_time() - start


def _read_by_workers(images: ImageList, workers: int) -> float:
    batches = EpochBatches(BATCH)
    batches.start_epoch(0, np.arange(len(images)))
    cpu = torch.device("cpu")
    loader = make_loader(Seconds(images), batches, workers, cpu, collate_fn=list, in_order=True)
    _, seconds = (sum(map(sum, loader)) for _ in range(2))  # workers are new in the first pass
    return 1e3 * seconds / len(images)


class Memory(Dataset[float]):
    """Taking an item reads an image and gives this process's own memory, in bytes."""

    def __init__(self, images: ImageList) -> None:
        self.images = images

    def __getitem__(self, draw: Draw) -> float:
        self.images.open(draw.image).close()
        return own_memory() if draw.position % READ >= READ - 16 else 0.0


def large_index(folder: Path, entries: int, workers: int) -> dict[str, float]:
    """Seconds and memory of a data set of this many images, in sparse files that look like tars."""
    shards = -(-entries // OF_A_SHARD)
    for shard in range(shards):
        with (folder / f"{shard:06d}.tar").open("wb") as file:
            file.truncate(OF_A_SHARD * 1024)
    containers = find_containers(folder)
    assert containers is not None
    key, sizes = key_of(containers)
    place = folder_of(containers.root, [containers.kind, *containers.names], key)
    place.mkdir(parents=True)
    start = time.perf_counter()
    write_index(place, key, containers.names, sizes, _synthetic(entries, shards))
    written, before = time.perf_counter() - start, own_memory()
    start = time.perf_counter()
    images = find_images(folder)
    found, opened = own_memory() - before, time.perf_counter() - start
    start = time.perf_counter()
    assert images.labels is not None
    labelled, labels = time.perf_counter() - start, own_memory() - before - found
    order = np.random.default_rng(0).integers(len(images), size=READ * workers)
    batches = EpochBatches(READ)
    batches.start_epoch(0, order)
    loader = make_loader(Memory(images), batches, workers, torch.device("cpu"), collate_fn=max)
    in_workers = max(loader)
    idle = Memory(images.take(range(OF_A_SHARD)))
    idle_loader = make_loader(idle, _few(workers), workers, torch.device("cpu"), collate_fn=max)
    return {
        "seconds to write the index": written,
        "seconds to find the images": opened,
        "MB of memory for that": found / 1e6,
        "seconds for the labels": labelled,
        "MB of memory for the labels": labels / 1e6,
        f"MB of its own in each of {workers} workers, at most": in_workers / 1e6,
        "MB of that in a worker over 10,000 images": max(idle_loader) / 1e6,
    }


def _few(workers: int) -> EpochBatches:
    batches = EpochBatches(READ)
    batches.start_epoch(0, np.arange(READ * workers) % OF_A_SHARD)
    return batches


def _synthetic(entries: int, shards: int) -> Iterator[Entries]:
    """Names of nine digits, and a thousand labels."""
    for shard in range(shards):
        images = np.arange(shard * OF_A_SHARD, min((shard + 1) * OF_A_SHARD, entries))
        names = np.empty((len(images), 13), np.uint8)
        names[:, :9] = images[:, None] // 10 ** np.arange(8, -1, -1) % 10 + ord("0")
        names[:, 9:] = np.frombuffer(b".jpg", np.uint8)
        lengths, parts = (np.full(len(images), value, np.int32) for value in (512, WHOLE))
        columns: dict[str, np.ndarray] = {
            "offset": (images % OF_A_SHARD) * 1024, "length": lengths, "part": parts,
            "label": images % 1000, "names": names.ravel(),
            "ends": np.arange(1, len(images) + 1) * 13,
        }  # fmt: skip
        yield Entries(columns, [str(label) for label in range(1000)])


def own_memory() -> float:
    """Bytes of memory that this process shares with no other; without mapped files, which are the
    system's cache."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    (dirty,) = (line.split()[1] for line in lines if line.startswith("Private_Dirty"))
    return 1024 * float(dirty)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`, except the device."""
    add_images_flag(parser, 1000)
    number_of = cli.whole_number(1)
    entries_help = "images of the large index"
    parser.add_argument("--entries", type=number_of, default=10_000_000, help=entries_help)
    add_rounds_flag(parser)
    workers_help = "processes that read in order, and from the large index"
    parser.add_argument("--readers", type=number_of, default=4, help=workers_help)

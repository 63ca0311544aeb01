"""The same pictures as files, tars, zips and Parquet give the same data set."""

import multiprocessing
import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_files import GENERATIONS, KINDS, write_as, write_table, write_tar, write_zip

from data.decode import UnreadableImageError
from data.images import ImageList, find_all_images, find_images
from data.listing import write_names
from data.loading import ImageDataset, load_in_order
from data.packed.packed import Packed
from data.source import Joined
from data.transforms import central_crop

CPU = torch.device("cpu")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_each_kind_gives_the_files_bytes_order_and_labels(
    tree: Path, tmp_path: Path, kind: str
) -> None:
    files, images = find_images(tree), find_images(write_as(kind, tree, tmp_path / "other"))
    assert len(images) == 40
    for index in np.random.default_rng(0).permutation(40).tolist():
        with images.open(index) as one, files.open(index) as other:
            assert one.read() == other.read()
        assert torch.equal(images.read_pixels(index), files.read_pixels(index))
    np.testing.assert_array_equal(images.labels, files.labels)
    if "Parquet" not in kind and kind != "shards":
        assert images.classes == files.classes


def test_names_have_the_container_and_the_member(tree: Path, tmp_path: Path) -> None:
    names = {
        kind: list(find_images(write_as(kind, tree, tmp_path / kind)).names)
        for kind in ("pax", "shards", "stored zip", "Parquet 4.6")
    }
    assert names["pax"][0] == "x.tar/a/000.png"
    assert names["shards"][13:15] == ["x-1.tar/b/003.png", "x-1.tar/b/004.png"]
    assert names["stored zip"][39] == "x.zip/c/009.png"
    assert names["Parquet 4.6"][14] == "train-00001-of-00003.parquet/1 (b_004.png)"
    found = find_images(tmp_path / "pax")
    assert found.where(39) == f"{tmp_path}/pax/x.tar/c/009.png"
    assert list(find_all_images([tmp_path / "pax", tree]).names[39:41]) == [
        f"{tmp_path}/pax/x.tar/c/009.png",
        f"{tree}/a/000.png",
    ]


def rows_of(images: ImageList, workers: int) -> torch.Tensor:
    loader = load_in_order(ImageDataset(images, central_crop(16)), 7, workers, CPU)
    return torch.cat([batch.pixels for batch in loader])


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_workers_that_are_forked_or_spawned_read_the_same(
    tree: Path, tmp_path: Path, method: str
) -> None:
    kinds = ("pax", "shards", "stored zip", "deflated zip", *(f"Parquet {g}" for g in GENERATIONS))
    images = find_all_images([write_as(kind, tree, tmp_path / kind) for kind in kinds])
    for index in range(3, len(images), 40):
        images.read_pixels(index)  # the main process has the files open
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(method, force=True)
    try:
        found = rows_of(images, 2)
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert torch.equal(found, rows_of(find_images(tree), 0).repeat(len(kinds), 1, 1, 1))


def test_a_pickled_source_is_small_and_has_no_open_file(tree: Path, tmp_path: Path) -> None:
    images = find_images(write_as("pax", tree, tmp_path / "x")).take([3, 1, 2])
    with images.open(0) as file:
        content = file.read()
    pickled = pickle.dumps(images)
    assert len(pickled) < 2000
    again = pickle.loads(pickled)
    with again.open(0) as file:
        assert file.read() == content
    assert list(again.names) == [f"x.tar/a/{number:03d}.png" for number in (3, 1, 2)]
    assert again.digest == images.digest
    assert isinstance(again.source, Packed)
    mapped = again.source.index.arrays["offset"].base
    assert isinstance(mapped, np.memmap)


MANY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from data.images import find_all_images
images = find_all_images(sys.argv[1:])
order = [*range(200), *range(199, -1, -1)]
contents = [images.open(index).read() for index in order]
assert contents == [str(index).encode() for index in order]
assert images.names[199] == sys.argv[200] + "/x.png"
"""


def test_many_containers_as_arguments_need_few_open_files(tmp_path: Path) -> None:
    paths = [write_tar(tmp_path / f"{n}.tar", [("x.png", str(n).encode())]) for n in range(200)]
    command = [sys.executable, "-c", MANY, *map(str, paths)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])


def test_arguments_keep_their_order(tree: Path, tmp_path: Path) -> None:
    """Containers that follow each other have one index; another kind or files lie between."""
    for name in ("10", "9", "d/11", "12"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_tar(tmp_path / f"{name}.tar", [(f"c/{Path(name).name}.png", name.encode())])
    write_zip(tmp_path / "x.zip", [("y.png", b"zip")])
    given = ["10.tar", "d", "9.tar", "10.tar", "x.zip", "12.tar"]
    images = find_all_images([*(tmp_path / name for name in given), tree])
    names = ["10.tar/c/10.png", "d/11.tar/c/11.png", "9.tar/c/9.png", "10.tar/c/10.png"]
    names += ["x.zip/y.png", "12.tar/c/12.png"]
    assert list(images.names[:7]) == [
        *(f"{tmp_path}/{name}" for name in names),
        f"{tree}/a/000.png",
    ]
    contents = [images.open(index).read() for index in range(6)]
    assert contents == [b"10", b"d/11", b"9", b"10", b"zip", b"12"]
    assert isinstance(images.source, Joined)
    assert len(images.source.sources) == 4


def test_a_page_is_decompressed_once_in_order(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow

    images = find_images(write_as("Parquet 2.13", tree, tmp_path / "x"))
    calls = []
    decompress = pyarrow.decompress

    def counted(content: bytes, size: int, *more: object, **options: object) -> object:
        calls.append(size)
        return decompress(content, size, *more, **options)

    monkeypatch.setattr(pyarrow, "decompress", counted)
    for index in range(40):
        images.open(index).close()
    assert len(calls) == 6, "three files of 13 or 14 rows, 7 in a group"
    calls.clear()
    for index in (0, 20, 1, 21):
        images.open(index).close()
    assert len(calls) == 4


def test_slow_parquet_is_named_with_its_remedy(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("data.packed.find.LARGE", 100)
    for generation in ("2.13", "4.6"):
        path = write_as(f"Parquet {generation}", tree, tmp_path / generation)
        find_images(path)
        said = capsys.readouterr().err
        slow = "so training is slow; python -m tools.prepare_data" in said
        assert slow == (generation == "2.13")


def test_nulls_and_test_labels(tree: Path, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    content = (tree / "a" / "000.png").read_bytes()
    image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    rows = [
        {"image": {"bytes": content, "path": "x.png"}, "label": 3},
        {"image": {"bytes": None, "path": "gone.png"}, "label": -1},
        {"image": None, "label": None},
        {"image": {"bytes": b"", "path": None}, "label": 5},
        {"image": {"bytes": content, "path": None}, "label": 5},
    ]
    schema = pyarrow.schema({"image": image, "label": pyarrow.int64()})
    for generation, options in GENERATIONS.items():
        path = tmp_path / f"{generation}.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), path, **options)
        images = find_images(path)
        assert list(images.names[:4]) == [
            f"{path.name}/{name}" for name in ("0 (x.png)", "1 (gone.png)", "2", "3")
        ]
        assert images.labels is not None
        assert images.labels.tolist() == [0, -1, -1, 1, 1]
        for index in (0, 4):
            with images.open(index) as file:
                assert file.read() == content
        for index in (1, 2):
            with pytest.raises(UnreadableImageError, match=r"^the table has no bytes for it$"):
                images.open(index)
        with pytest.raises(UnreadableImageError, match="empty"):
            images.open(3)
        assert len(images.labelled()) == 3


@pytest.mark.parametrize("column", ["jpg", "img", "png", "webp", "image"])
def test_columns_of_bytes(tmp_path: Path, column: str) -> None:
    """As img2dataset writes them: named after the encoding, null for a failed download."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(
        {
            "key": ["000000000", "000000001", "000000002"],
            column: pyarrow.array([b"one", None, b"three"], pyarrow.binary()),
            "caption": ["a", "b", None],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "00000.parquet", row_group_size=2)
    images = find_images(tmp_path)
    assert list(images.names) == [
        f"00000.parquet/{row} (00000000{row})" for row in range(3)
    ]  # fmt: skip
    assert images.open(2).read() == b"three"
    assert images.labels is None
    with pytest.raises(UnreadableImageError):
        images.open(1)


def test_dictionaries_and_versions_of_pages(tmp_path: Path) -> None:
    """Repeated images are in a dictionary; the other pages are of both versions and all codecs."""
    rng = np.random.default_rng(0)
    different = [rng.bytes(int(size)) for size in rng.integers(1, 400, 30)]
    members = [(f"a/{n}", different[n % 30 if n < 150 else n % 7]) for n in range(200)]
    members += [(f"a/{n}", rng.bytes(50)) for n in range(200, 260)]
    number = 0
    for version in ("1.0", "2.0"):
        for codec in ("none", "snappy", "gzip", "zstd", "brotli"):
            for dictionary in (True, False):
                path = tmp_path / f"{number}.parquet"
                options = {"data_page_size": 300, "write_batch_size": 5, "row_group_size": 120}
                write_table(
                    path, members, "2.13", compression=codec, use_dictionary=dictionary,
                    data_page_version=version, dictionary_pagesize_limit=3000, **options,
                )  # fmt: skip
                images = find_images(path)
                read = [images.open(index).read() for index in range(260)]
                assert read == [content for _, content in members], (version, codec, dictionary)
                number += 1


def test_only_what_is_read_is_in_memory(tmp_path: Path) -> None:
    """Names and labels are made when asked for."""
    write_tar(tmp_path / "x.tar", [(f"{n % 3}/{n:05d}.png", b"x") for n in range(3000)])
    images = find_images(tmp_path / "x.tar")
    assert isinstance(images.source, Packed)
    assert not isinstance(images.names, list)
    assert not isinstance(images.folders, list)
    index = images.source.index
    assert sum(index.arrays[each].itemsize for each in ("container", "offset", "length")) == 16
    assert "part" not in index.arrays
    assert os.path.getsize(index.folder / "offset.npy") == 128 + 8 * 3000  # noqa: PTH202


def test_names_are_written_as_they_come(tmp_path: Path) -> None:
    path, lines = tmp_path / "images.txt", (f"x.tar/{number:060}.jpg" for number in range(100_000))
    tracemalloc.start()
    write_names(path, lines)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 200_000 < path.stat().st_size == 7_100_000

"""No file from elsewhere runs code, fills the memory, or writes outside its folder."""

import contextlib
import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import (
    Canary,
    archive_of,
    array_of,
    arrays_of,
    corpus,
    extension,
    old_file_of,
    pickles,
    tar_of,
    text,
)
from readers import READERS, small_networks

import hubconf
from checkpoints.checkpoint import load_model, read_checkpoint
from checkpoints.folder import place_of
from checkpoints.torch_file import load_torch_file
from cluster.pickles import Logger
from system.errors import InputError
from system.safe_pickle import read_plain
from tools.make_tiny_imagenet import lay_out

# These read any text.
TEXT = ("list_file", "listing", "names_of_rows", "places", "tiny_annotations")
BINARY = set(READERS) - {*TEXT, "stored_stage", "arrays_in_pickles"}


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    found = Canary(tmp_path)
    assert not found.is_touched()
    with extension(), small_networks():
        yield found
    found.restore()


def folder_in(tmp_path: Path) -> Path:
    """A folder for the reader, beside the canary."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def bites(canary: Canary, load: Callable[[], Any]) -> bool:
    """Whether loading does harm, which is then undone."""
    with contextlib.suppress(Exception):  # some fail after doing harm
        load()
    touched = canary.is_touched()
    canary.restore()
    return touched


@pytest.mark.filterwarnings("ignore")
def test_the_corpus_harms_careless_loaders(tmp_path: Path, canary: Canary) -> None:
    """Otherwise the tests below could not fail."""
    found = pickles(canary)
    assert len(found) > 40
    file = tmp_path / "file"
    for name, content in found.items():
        file.write_bytes(content)
        assert bites(canary, lambda: pickle.loads(file.read_bytes())), name
        for wrap in (archive_of, old_file_of, tar_of):
            file.write_bytes(wrap(content))
            assert bites(canary, lambda: torch.load(file, weights_only=False)), (name, wrap)
    file.write_bytes(array_of(canary))
    assert bites(canary, lambda: np.load(file, allow_pickle=True))
    file.write_bytes(arrays_of(canary))
    assert bites(canary, lambda: np.load(file, allow_pickle=True)["rows"])


@pytest.mark.parametrize("name", READERS)
def test_no_reader_is_harmed_by_the_corpus(tmp_path: Path, canary: Canary, name: str) -> None:
    reader = READERS[name](folder_in(tmp_path))
    for kind, content in corpus(canary).items():
        is_bad = reader.error_of(content) is not None
        assert not canary.is_touched(), kind
        assert is_bad or name not in BINARY, kind


@pytest.mark.parametrize(
    "read",
    [
        lambda path: Logger(path).data,
        lambda path: Logger(path).end,
        lambda path: place_of(path),
        lambda path: read_plain(path, "thing", "bytes"),
    ],
    ids=["Logger.data", "Logger.end", "place_of", "bytes"],
)
def test_other_readers_are_not_harmed_either(
    tmp_path: Path, canary: Canary, read: Callable[[Path], Any]
) -> None:
    for content in corpus(canary).values():
        (tmp_path / "file").write_bytes(content)
        with contextlib.suppress(Exception):  # its messages are tested elsewhere
            read(tmp_path / "file")
        assert not canary.is_touched()


@pytest.mark.parametrize("wrap", [bytes, archive_of, old_file_of, tar_of])
def test_torch_hub_is_not_harmed(
    tmp_path: Path, canary: Canary, wrap: Callable[[bytes], bytes]
) -> None:
    path = written(tmp_path, wrap(pickles(canary)["inside"]))
    with pytest.raises(ValueError, match=r"c\.pth\.tar: "):
        vars(hubconf)["alexnet"](path)
    assert not canary.is_touched()


def written(folder: Path, content: bytes) -> Path:
    path = folder / "c.pth.tar"
    path.write_bytes(content)
    return path


STATE = b"}" + text("state_dict")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"ccollections\nOrderedDict\n)R}" + text("items") + b"K\x01sb", "no 'state_dict'"),
        (b"ccollections\nOrderedDict\n)R}" + text("get") + b"K\x01sb", "no 'state_dict'"),
        (STATE + b"ccollections\nOrderedDict\n)R}" + text("items") + b"K\x01sbs", "fit none of"),
        (STATE + b"}" + text("w") + b"K\x01ss", "something other than weig"),
    ],
)
def test_attributes_of_a_dict_are_ignored(
    tmp_path: Path, canary: Canary, table: bytes, message: str
) -> None:
    path = written(tmp_path, archive_of(b"\x80\x02" + table + b"."))
    with pytest.raises(InputError, match=message):
        load_model(path)


def tensor(attribute: str) -> bytes:
    """A pickled tensor with an attached attribute."""
    storage = (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x01tQ"
    )
    args = b"(" + storage + b"K\x00K\x01\x85K\x01\x85\x89ccollections\nOrderedDict\n)Rt"
    state = b"}" + text(attribute) + b"K\x05s"
    build = b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\n"
    return build + b"ctorch\nTensor\n" + args + state + b"tR"


@pytest.mark.parametrize("attribute", ["isfinite", "detach", "numel", "untyped_storage"])
def test_attributes_of_a_tensor_are_bad_input(
    tmp_path: Path, canary: Canary, attribute: str
) -> None:
    content = b"\x80\x02" + STATE + b"}" + text("w") + tensor(attribute) + b"ss."
    loaded = torch.load(io.BytesIO(archive_of(content, **{"0": b"\0" * 4})), weights_only=True)
    assert getattr(loaded["state_dict"]["w"], attribute) == 5, "the attack works"
    with pytest.raises(InputError, match=r"c\.pth\.tar: "):
        load_model(written(tmp_path, archive_of(content, **{"0": b"\0" * 4})))


@pytest.mark.parametrize("shape", [(2**40, 0), (0,), (0, 3)])
def test_empty_weights_are_bad_input(
    tmp_path: Path, canary: Canary, shape: tuple[int, ...]
) -> None:
    """2^40 outputs would take a few bytes in the file, and terabytes in the network."""
    reader = READERS["checkpoints"](tmp_path)
    state = torch.load(io.BytesIO(reader.samples[0]), weights_only=True)
    state["state_dict"]["top_layer.weight"] = torch.empty(shape)
    torch.save(state, reader.file)
    with pytest.raises(InputError, match="something other than weights: 'top_layer"):
        load_model(reader.file)


def archives() -> dict[str, bytes]:
    """Zip archives in torch's layout whose contents are larger than the file."""
    compressed, overlapping = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(1 << 20))
    with zipfile.ZipFile(overlapping, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(1 << 16))
        member = archive.infolist()[-1]
        archive.filelist += [_renamed(member, f"archive/data/{i}") for i in range(1, 2000)]
    return {"compressed": compressed.getvalue(), "overlapping": overlapping.getvalue()}


def _renamed(member: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    """Another name for the same bytes."""
    other = zipfile.ZipInfo(name)
    for known in ("CRC", "compress_size", "file_size", "header_offset", "external_attr"):
        setattr(other, known, getattr(member, known))
    return other


@pytest.mark.parametrize("kind", ["compressed", "overlapping"])
def test_an_archive_larger_inside_than_outside_is_bad_input(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match="not a checkpoint, or a damaged one"):
        load_torch_file(written(tmp_path, archives()[kind]))


def test_a_tensor_larger_than_its_file_is_bad_input(tmp_path: Path, canary: Canary) -> None:
    """A call that torch's safe loader allows makes gigabytes of a few bytes; it isn't made here."""
    content = b"\x80\x02" + STATE + b"}" + text("w") + b"ctorch\nFloatTensor\nJ\0\0\0\x10\x85Rss."
    path = written(tmp_path, archive_of(content))
    with pytest.raises(InputError, match=r"it refers to torch\.FloatTensor, which might"):
        read_checkpoint(path)


TINY = "tiny-imagenet-200"
OUTSIDE = ["../../../evil.JPEG", "/tmp/evil.JPEG", "..\\..\\evil.JPEG", "a/../../../../evil.JPEG",
           "C:/evil.JPEG"]  # fmt: skip


def tiny_zip(path: Path, label: str = "n01", extra: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{TINY}/val/val_annotations.txt", f"val_0.JPEG\t{label}\t0\t1\n")
        archive.writestr(f"{TINY}/val/images/val_0.JPEG", b"image")
        archive.writestr(f"{TINY}/train/n01/images/n01_0.JPEG", b"image")
        for name, data in (extra or {}).items():
            archive.writestr(name, data)
    return path


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


PLACES = ["{}", f"{TINY}/train/n01/images/{{}}", f"{TINY}/train/{{}}/images/x.JPEG",
          f"{TINY}/val/images/{{}}"]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", OUTSIDE)
def test_an_archive_does_not_unpack_outside_its_folder(
    tmp_path: Path, name: str, place: str
) -> None:
    archive = tiny_zip(tmp_path / "t.zip", extra={place.format(name): b"evil"})
    with contextlib.suppress(InputError):
        lay_out(archive, tmp_path / "in" / "here" / "tree")
    outside = {path for path in files_below(tmp_path) if not path.startswith("in/here/tree/")}
    assert outside == {"t.zip"}
    assert not Path("/tmp/evil.JPEG").exists()


@pytest.mark.parametrize("label", ["..", "../..", "/tmp", "a/b"])
def test_classes_of_annotations_do_not_lead_outside(tmp_path: Path, label: str) -> None:
    archive = tiny_zip(tmp_path / "t.zip", label)
    with pytest.raises(InputError, match="has no class for"):
        lay_out(archive, tmp_path / "in" / "tree")
    assert files_below(tmp_path) == {"t.zip"}

"""Which files of a folder are images, and the lines about the others."""

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_images
from image_zoo import kinds
from PIL import Image

import extract_features
from data.folder import UNLABELLED, below_again, find_below
from data.images import find_all_images, find_images
from data.labelled import find_train_and_val
from system.errors import InputError
from system.names import from_lines, read_text
from tools import eval_quick, prepare_data
from training.finished_run import label_names
from visu import feature_map

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
LEFT = (".ipynb_checkpoints", "@eaDir", ".Trash-1000", ".thumbnails", "__MACOSX", "lost+found")


def litter(root: Path) -> None:
    """Copy an image of `root`/a into folders and names of systems, and beside the class folders."""
    image = root / "a" / "000.png"
    for name in LEFT:
        for folder in (root / name, root / "a" / name):
            folder.mkdir()
            shutil.copy(image, folder / "000.png")
    for folder in (root, root / "a"):
        shutil.copy(image, folder / "._000.png")
        (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    shutil.copy(image, root / "overview.png")


def test_names_that_systems_leave_are_skipped_with_one_line(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = find_images(tree)
    assert capsys.readouterr().err == "", "nothing to say of a clean folder"
    litter(tree)
    images = find_images(tree)
    assert images.names == ["overview.png", *clean.names]
    said = capsys.readouterr().err
    assert f"note: {tree}: passed over 16 names that are hidden or left by a system (2 " in said
    assert "1 image lies beside the class folders, so without a label" in said
    assert said.count("\n") == 2


def test_a_folder_of_only_such_names_has_no_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "@eaDir", 2)
    with pytest.raises(InputError, match="no image in this folder"):
        find_images(tmp_path)
    assert (
        "passed over 1 name that is hidden or left by a system (@eaDir)" in capsys.readouterr().err
    )


def test_hidden_names_are_named_without_a_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image,) = write_images(tmp_path, 1)
    for name in (".hidden.png", "Thumbs.db", ".a/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(image, tmp_path / name)
    find_images(tmp_path)
    said = "passed over 3 names that are hidden or left by a system (.a, .hidden.png, Thumbs.db)\n"
    assert capsys.readouterr().err.endswith(said)


def test_the_folder_itself_may_have_any_name(tmp_path: Path) -> None:
    write_images(tmp_path / ".cache" / "@eaDir", 2)
    assert len(find_images(tmp_path / ".cache" / "@eaDir")) == 2


@pytest.mark.parametrize("name", ["photo", "a.jpg_large", "b.jpg?w=640", "c.jpg.1", "no. 7"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_files_without_a_known_extension_count_by_their_first_bytes(
    tmp_path: Path, name: str, kind: str
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / name, kind)
    write_images(tmp_path, 1)
    assert sorted(find_images(tmp_path).names) == sorted(["000.png", name])


def test_every_readable_format_with_a_clear_signature_is_found(tmp_path: Path) -> None:
    """All kinds of image of the zoo but the few whose first bytes say nothing."""
    zoo = {name: kind for name, kind in kinds().items() if not kind.reason}
    for number, kind in enumerate(zoo.values()):
        (tmp_path / f"image {number}").write_bytes(kind.content)
    found = set(find_images(tmp_path).names)
    missed = {name for number, name in enumerate(zoo) if f"image {number}" not in found}
    assert {Path(name).suffix for name in missed} <= {".tga", ".pcx", ".dib", ".xbm", ".im", ".cur"}


TEXTS = (b"", b"hello", b'{"a": 1}', b"<svg", b"#define N 4\n")
BYTES = (b"PK\3\4", b"%PDF-1.4", b"\x93NUMPY\1\0", b"\x7fELF", bytes(64), b"(\0\0\0" * 9)
MEDIA = (b"\0\0\0\x18ftypisom", b"RIFF\0\0\0\0WAVEfmt ")


@pytest.mark.parametrize("content", [*TEXTS, *BYTES, *MEDIA])
def test_other_files_are_no_images(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, 1)
    (tmp_path / "other").write_bytes(content)
    assert find_images(tmp_path).names == ["000.png"]
    assert (
        "1 file is no image by name or first bytes, left out (1 without an"
        in capsys.readouterr().err
    )


def test_only_files_with_unknown_extensions_are_opened(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def note(path: str) -> bytes:
        read.append(path)
        return b""

    monkeypatch.setattr("data.sieve._first_bytes", note)
    (tree / "labels.txt").write_text("1")
    (tree / "a" / "x.dat").write_text("1")
    find_images(tree)
    assert read == [f"{tree}/a/x.dat"]


def test_pipes_and_dangling_links_without_an_extension_are_skipped(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to("nowhere")
    assert find_images(tmp_path).names == ["000.png"]


def test_files_that_are_no_images_are_counted_by_extension(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path, 1)
    for number in range(3):
        (tmp_path / f"IMG_{number}.HEIC").write_bytes(HEIC)
        (tmp_path / f"{number}.txt").write_text("hello")
    (tmp_path / "IMG_4").write_bytes(HEIC)
    (tmp_path / "x.MP4").write_bytes(b"\0\0\0\x18ftypisom")
    find_images(tmp_path)
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"note: {tmp_path}: 4 files are no images by name or first bytes, left out (3 .txt, .mp4)",
        f"note: {tmp_path}: left out 4 in HEIC, which can't be read; convert to JPEG first, for "
        "example with heif-convert or ImageMagick",
    ]


def test_images_beside_class_folders_have_no_label(tree: Path, tmp_path: Path) -> None:
    before = find_images(tree).labels
    write_images(tree, 2)
    images = find_images(tree)
    assert images.folders[:3] == [UNLABELLED, UNLABELLED, "a"]
    assert before is not None
    assert images.labels is not None
    assert images.labels.tolist() == [-1, -1, *before.tolist()]
    assert images.classes == ["a", "b", "c"] == label_names(images)
    assert len(images.labelled()) == 40
    assert below_again(tree, images.names) == find_below(tree), "a run read back"
    write_images(tmp_path / "flat", 1)
    joined = find_all_images([tree, tmp_path / "flat"])
    assert joined.labels is not None
    assert joined.labels.tolist() == [-1, -1, *(before + 1).tolist(), 0]


def test_one_class_folder_and_images_beside_it_are_no_classes(tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    write_images(tmp_path / "only", 2)
    assert find_images(tmp_path).labels is None


def test_evaluations_leave_images_without_a_label_out(tree: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for split in ("train", "val"):
        shutil.copytree(tree, data / split)
    clean = find_train_and_val(data)
    for split in ("train", "val"):
        litter(data / split)
    for before, now in zip(clean, find_train_and_val(data), strict=True):
        assert (now.images.names, now.classes) == (before.images.names, before.classes)
        assert now.labels.tolist() == before.labels.tolist()
        assert now.digest == before.digest


def test_every_script_takes_a_littered_folder(
    tree: Path, train: Callable[..., Path], tmp_path: Path
) -> None:
    clean = find_images(tree)
    data = tmp_path / "data"
    shutil.copytree(tree, data / "val")
    litter(tree)
    tree.rename(data / "train")
    exp = train(data / "train", "--probe", "1")
    listed = from_lines(read_text(exp / "images.txt"))
    assert listed == ["overview.png", *clean.names], "also trained on"
    assert (np.load(exp / "assignments" / "epoch_0001.npy") >= 0).all()
    model = str(exp / "checkpoint.pth.tar")
    for script, flags in (
        (extract_features, [model, data / "train", "--out", tmp_path / "rows"]),
        (prepare_data, [data / "train", tmp_path / "copy"]),
        (eval_quick, ["--data", data, "--model", model]),
        (feature_map, [exp, "--method", "pca"]),
    ):
        script.main(script.parse_args([*map(str, flags), "--workers", "0"]))
    names = from_lines(read_text(tmp_path / "rows" / "images.txt"))
    assert names == [f"{data}/train/{name}" for name in listed]
    assert find_images(tmp_path / "copy").names == listed
    assert '"no label"' in (exp / feature_map.NAME).read_text()


def test_class_folders_that_differ_only_in_normal_form_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["caf\xe9", unicodedata.normalize("NFD", "caf\xe9")]
    for name in (*names, "bar"):
        write_images(tmp_path / "train" / name, 1)
    assert find_images(tmp_path / "train").classes == ["bar", *sorted(names)]
    assert (
        "the class folders 'cafe\\u0301' and 'caf\\xe9' differ only in" in capsys.readouterr().err
    )


def test_a_val_class_in_another_normal_form_is_named(tmp_path: Path) -> None:
    names = {"train": "caf\xe9", "val": unicodedata.normalize("NFD", "caf\xe9")}
    for split, name in names.items():
        for label in (name, "bar"):
            write_images(tmp_path / split / label, 1)
    expected = r"val: its class 'cafe\\u0301' differs from .*train's only in Unicode normal form"
    with pytest.raises(InputError, match=expected):
        find_train_and_val(tmp_path)

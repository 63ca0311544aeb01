"""Lists of images as people have them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_images

import extract_features
from data.folder import UNLABELLED
from data.images import find_images
from data.labelled import find_train_and_val
from system.errors import InputError
from system.names import from_lines, read_text
from tools import eval_quick
from training.finished_run import clusters_at, read_run

NAMES = [f"c{k}/{i:03d}.png" for k in range(2) for i in range(12)]
LABELS = [["cat", "dog"][int(name[1])] for name in NAMES]
PAIRS = list(zip(NAMES, LABELS, strict=True))

UNLABELLED_LISTS = {
    "backslashes": [name.replace("/", "\\") for name in NAMES],
    "quotes": [f'"{name}"' for name in NAMES],
    "trailing blanks": [f"{name}  \t" for name in NAMES],
    "a leading slash": [f"/{name}" for name in NAMES],
    "backslashes in quotes after a leading one": [
        '"\\{}"'.format(name.replace("/", "\\")) for name in NAMES
    ],
    "a header": ["path", *NAMES],
    "a header with a counter": ["id,path", *(f"{i},{name}" for i, name in enumerate(NAMES))],
    "carriage returns": [f"{name}\r" for name in NAMES],
}
LABELLED_LISTS = {
    "a blank": [f"{name} {label}" for name, label in PAIRS],
    "a tab": [f"{name}\t{label}" for name, label in PAIRS],
    "commas": [f"{name},{label}" for name, label in PAIRS],
    "commas and blanks": [f"{name} , {label} " for name, label in PAIRS],
    "commas and quotes": [f'"{name}","{label}"' for name, label in PAIRS],
    "semicolons": [f"{name};{label}" for name, label in PAIRS],
    "commas and a header": ["path,label", *(f"{name},{label}" for name, label in PAIRS)],
    "a header with more fields": [
        "id,label,File Name,width",
        *(f"{i},{label},{name},40" for i, (name, label) in enumerate(PAIRS)),
    ],
    "a header with another name": ["file,pet", *(f"{name},{label}" for name, label in PAIRS)],
    "a header with another name and a counter": [
        ",file,pet",  # as pandas writes it
        *(f"{i},{name},{label}" for i, (name, label) in enumerate(PAIRS)),
    ],
    "the label first": [f"{label} {name}" for name, label in PAIRS],
    "the label first, and commas": [f"{label},{name}" for name, label in PAIRS],
    "backslashes and a leading one": [
        "\\{},{}".format(name.replace("/", "\\"), label) for name, label in PAIRS
    ],
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for label in ("c0", "c1"):
        write_images(tmp_path / label, 12)
    return tmp_path


def written(folder: Path, lines: list[str], encoding: str = "utf-8", name: str = "l.txt") -> Path:
    (folder / name).write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return folder / name


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("lines", UNLABELLED_LISTS.values(), ids=UNLABELLED_LISTS)
def test_paths_are_read_however_they_are_written(
    folder: Path, lines: list[str], encoding: str
) -> None:
    images = find_images(written(folder, lines, encoding))
    assert images.names == NAMES
    assert images.labels is not None
    assert images.labels.tolist() == [0] * 12 + [1] * 12, "the folders"
    images.open(0).close()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("lines", LABELLED_LISTS.values(), ids=LABELLED_LISTS)
def test_labels_are_taken_as_labels(folder: Path, lines: list[str], encoding: str) -> None:
    images = find_images(written(folder, lines, encoding))
    assert (images.names, images.folders) == (NAMES, LABELS)
    assert images.classes == ["cat", "dog"]


@pytest.mark.parametrize("lines", LABELLED_LISTS.values(), ids=LABELLED_LISTS)
@pytest.mark.parametrize("ending", [".txt", ".csv"])
def test_evaluations_take_the_same_lists(folder: Path, lines: list[str], ending: str) -> None:
    for split in ("train", "val"):
        written(folder, lines, name=f"{split}{ending}")
    for found in find_train_and_val(folder):
        assert (found.images.names, found.classes) == (NAMES, ["cat", "dog"])
        assert found.labels.tolist() == [0] * 12 + [1] * 12


def test_a_header_that_leaves_the_label_unclear_is_an_error(folder: Path) -> None:
    lines = ["file,pet,year", *(f"{name},{label},2026" for name, label in PAIRS)]
    with pytest.raises(InputError, match="'file,pet,year' has 3 fields, and which is the label"):
        find_images(written(folder, lines))


def test_a_note_on_how_a_list_is_read_is_printed_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find_images(written(folder, NAMES))
    assert capsys.readouterr().err == "", "nothing to say of a path on each line"
    path = written(folder, LABELLED_LISTS["commas and a header"])
    find_images(path)
    said = "read as fields between commas, with a header, the label in field 2, such as 'cat'"
    assert capsys.readouterr().err == f"note: {path}: {said}\n"


def test_names_with_blanks_commas_and_quotes_stay_as_they_are(tmp_path: Path) -> None:
    odd = ["a b.png", " c.png", "d,e.png", '"f".png', "g 1", "/h.png"[1:] + " ", "i\\j.png"]
    for image, name in zip(write_images(tmp_path, len(odd)), odd, strict=True):
        image.rename(tmp_path / name)
    assert find_images(written(tmp_path, odd)).names == odd
    images = find_images(written(tmp_path, [f"{name} 1" for name in odd if name.strip() == name]))
    assert images.names == [name for name in odd if name.strip() == name]


def test_a_missing_file_does_not_change_how_a_list_is_read(folder: Path) -> None:
    (folder / "c0" / "000.png").unlink()
    assert find_images(written(folder, NAMES)).names == NAMES
    assert find_images(written(folder, LABELLED_LISTS["commas"])).folders == LABELS


def test_an_empty_label_is_none(folder: Path) -> None:
    images = find_images(written(folder, [*LABELLED_LISTS["commas"][:-1], f"{NAMES[-1]},"]))
    assert images.folders[-1] == UNLABELLED
    assert images.labels is not None
    assert images.labels.tolist() == [0] * 12 + [1] * 11 + [-1]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["x/1.png"], "the first, 'x/1.png', is no file (paths are"),
        (["x\\1.png"], "the first, 'x\\\\1.png', is no file, and neither is 'x/1.png'"),
        (["x/1.png 3"], "the first, 'x/1.png 3', is no file, and neither is "),
        (["C:\\x\\1.png"], "the first, 'C:\\\\x\\\\1.png', is a path on a Windows disk"),
        (["https://example.org/1.png"], "is a web address; download"),
        (["# a comment"], "the first, '# a comment', is no file"),
    ],
)
def test_a_list_of_no_files_shows_its_first_line(folder: Path, lines: list[str], said: str) -> None:
    expected = re.escape(f"l.txt: none of its {len(lines)} lines names an image file: ")
    with pytest.raises(InputError, match=expected + ".*" + re.escape(said)):
        find_images(written(folder, lines))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([f"{n},a,b" for n in NAMES], "l.txt:1: 'c0/000.png,a,b' has 3 fields, and which is the"),
        ([f"{NAMES[0]},1", NAMES[1], f"{NAMES[2]},1"], "l.txt:2: 'c0/001.png' lacks a field"),
    ],
)
def test_unclear_fields_are_shown(folder: Path, lines: list[str], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        find_images(written(folder, lines))


def test_a_list_that_only_begins_like_utf_16_is_an_error(folder: Path) -> None:
    (folder / "l.txt").write_bytes(b"\xff\xfeabc")
    with pytest.raises(InputError, match=r"l.txt: begins like UTF-16, but is not"):
        find_images(folder / "l.txt")


def test_a_run_over_a_labelled_list_keeps_its_labels(
    folder: Path, train: Callable[..., Path], tmp_path: Path
) -> None:
    source = written(folder, LABELLED_LISTS["commas and a header"])
    exp = train(source)
    assert from_lines(read_text(exp / "images.txt")) == NAMES
    run = read_run(exp)
    assert run.images.folders == LABELS
    assert {view.label for view in clusters_at(run, 1)} <= {"cat", "dog"}
    model, out = str(exp / "checkpoint.pth.tar"), tmp_path / "rows"
    command = [model, str(source), "--out", str(out), "--workers", "0"]
    extract_features.main(extract_features.parse_args(command))
    for split in ("train", "val"):
        source.with_name(f"{split}.csv").write_bytes(source.read_bytes())
    command = ["--data", str(folder), "--model", model, "--workers", "0"]
    eval_quick.main(eval_quick.parse_args(command))
    assert json.loads((exp / "quick.json").read_text())["results"]["trained"]["plain_1nn"]
    assert from_lines(read_text(out / "images.txt")) == [f"{folder}/{name}" for name in NAMES]

"""Files moved away, and back."""

import errno
import os
from pathlib import Path

import pytest
from conftest import ErrorLine

from data import moving
from data.moving import check_move_folder, move_back, move_files
from system.errors import InputError
from tools import move_back as tool

NAMES = ["a.png", "sub/a.png", 'sub/c,"d".png', os.fsdecode(b"caf\xe9.png")]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    for name in NAMES:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ascii(name))
    (tmp_path / "away").mkdir()
    return [str(tmp_path / "photos" / name) for name in NAMES]


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "moved.csv"
    }


def test_moved_files_come_back(files: list[str], tmp_path: Path) -> None:
    away, photos = tmp_path / "away", tmp_path / "photos"
    before = contents(photos)
    moved = move_files(files[:3], away)
    assert [path.name for path in moved] == ["000000_a.png", "000001_a.png", '000002_c,"d".png']
    assert [path.read_text() for path in moved] == [ascii(name) for name in NAMES[:3]]
    assert contents(photos).keys() == {NAMES[3]}
    assert move_files(files[3:], away)[0].exists(), "a second time"
    assert (away / "moved.csv").read_bytes().count(b"from,to") == 1
    assert move_back(away) == ([*reversed(files)], [])
    assert contents(photos) == before
    assert contents(away) == {}
    assert move_back(away) == ([], []), "nothing left to do"


def test_the_note_is_there_before_the_first_move(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash between two moves, which also cut a later note."""
    move = moving._move

    def crash(path: str, target: Path) -> None:
        if path == files[2]:
            raise KeyboardInterrupt
        move(path, target)

    monkeypatch.setattr(moving, "_move", crash)
    with pytest.raises(KeyboardInterrupt):
        move_files(files, tmp_path / "away")
    monkeypatch.setattr(moving, "_move", move)
    with (tmp_path / "away" / "moved.csv").open("ab") as note:
        note.write(b"/cut/off")
    assert move_back(tmp_path / "away") == ([files[1], files[0]], [])
    assert len(contents(tmp_path / "photos")) == 4


def test_on_another_disk_a_file_is_copied_and_removed(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def elsewhere(path: Path, target: Path) -> Path:
        if "photos" in str(path):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", elsewhere)
    os.utime(files[0], (1, 1))
    (moved,) = move_files(files[:1], tmp_path / "away")
    assert moved.read_text() == ascii(NAMES[0])
    assert moved.stat().st_mtime == 1
    assert not Path(files[0]).exists()


def test_a_place_that_is_taken_is_never_overwritten(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = tmp_path / "away"
    first, second = move_files(files[:2], away)
    Path(files[0]).write_text("new")
    second.unlink()
    tool.main(tool.parse_args([str(away)]))
    out, error = capsys.readouterr()
    assert out == "0 files moved back, 2 left\n"
    assert error.count("left: ") == 2
    assert (Path(files[0]).read_text(), first.read_text()) == ("new", ascii(NAMES[0]))
    Path(files[1]).write_text("x")
    (away / "000004_a.png").write_text("in the way")
    (away / "a").write_text("another")
    with pytest.raises(InputError, match=r"000004_a\.png: is there already"):
        move_files([files[1]], away)


def test_bad_input_is_one_line(files: list[str], tmp_path: Path, error_line: ErrorLine) -> None:
    assert "moved.csv: cannot read it: No such file" in error_line(tool, tmp_path / "photos")
    Path(files[0]).unlink()
    with pytest.raises(InputError, match=r"a\.png: cannot move it to .*000000_a\.png: No such"):
        move_files(files, tmp_path / "away")
    (tmp_path / "away" / "moved.csv").write_text("from,to\none\n")
    assert "not the note of moved files: one" in error_line(tool, tmp_path / "away")
    with pytest.raises(InputError, match=r"photos/sub: lies in .*photos, where the images"):
        check_move_folder(tmp_path / "photos" / "sub", [tmp_path / "photos"])
    check_move_folder(tmp_path / "new" / "folder", [tmp_path / "photos"])
    assert (tmp_path / "new" / "folder").is_dir()

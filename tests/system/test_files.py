"""Files written whole or not at all."""

import os
import shutil
from pathlib import Path

import pytest

from system.files import (
    atomic_folder,
    atomic_write,
    new_numbered_folder,
    remove_leftovers,
    remove_leftovers_of,
    write_text,
)


def test_the_name_appears_when_the_file_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with atomic_write(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), atomic_write(path) as file:
        file.writelines([b"half", None])  # type: ignore[list-item]
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_folder_appears_when_it_is_complete_unless_the_name_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for there in (False, True):
        with atomic_folder(path) as folder:
            (folder / "f").touch()
            assert path.exists() == there
        assert [p.name for p in path.iterdir()] == ["f"]
        (path / "f").unlink()
    assert path.stat().st_mode & 0o700 == 0o700
    (path / "old").touch()
    with pytest.raises(OSError, match="not empty"), atomic_folder(path) as folder:
        (folder / "f").touch()

    def fail() -> None:
        with atomic_folder(tmp_path / "other") as folder:
            (folder / "f").touch()
            (folder / "f").mkdir()

    with pytest.raises(FileExistsError):
        fail()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["folder", "old"]


def test_leftovers_of_a_killed_process_can_be_removed(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "f") as file:
        (half_written,) = (p.name for p in tmp_path.iterdir())
        file.write(b"whole")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / half_written).write_bytes(b"half")
    (tmp_path / "below" / ".mine.tmp").write_bytes(b"another program's")
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == [".mine.tmp", "below", "f"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "f", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640


def test_text_keeps_the_bytes_of_odd_names(tmp_path: Path) -> None:
    write_text(tmp_path / "f", b"caf\xe9\n".decode("utf-8", "surrogateescape"))
    assert (tmp_path / "f").read_bytes() == b"caf\xe9\n"


def test_new_folders_take_the_next_free_number(tmp_path: Path) -> None:
    parent = tmp_path / "exp"
    (parent / "002").mkdir(parents=True)
    assert [new_numbered_folder(parent).name for _ in range(3)] == ["001", "003", "004"]


def test_the_longest_names_can_be_written_and_cleaned_up(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127, "[a*?].txt"):
        path = tmp_path / name
        with atomic_write(path) as file:
            (half_written,) = (p.name for p in tmp_path.iterdir())
            file.write(b"whole")
        path.unlink()
        with atomic_folder(path) as folder:
            (folder / "f").touch()
        shutil.rmtree(path)
        (tmp_path / half_written).touch()
        remove_leftovers_of(path)
        assert not list(tmp_path.iterdir())

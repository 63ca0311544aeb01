"""The one-time copy at a smaller size: same names, same order, smaller files."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ErrorLine, read_file
from lock_holder import held_elsewhere
from PIL import Image
from sklearn.datasets import load_sample_images

from data.decode import read_image
from data.images import find_images
from data.transforms import central_crop
from system.errors import InputError
from tools import prepare_data

PHOTOS = [Image.fromarray(photo) for photo in load_sample_images().images]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Ten images of several formats, large and small, in nested folders."""
    root = tmp_path / "source"
    for folder in ("a/deep", "b"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate(("top.jpg", "a/1.jpg", "a/deep/2.JPEG", "b/3.jpg", "b/4.jpg")):
        PHOTOS[number % 2].resize((300 + number, 200)).save(root / name, "JPEG", quality=95)
    PHOTOS[0].resize((150, 200)).save(root / "a" / "large.png")
    PHOTOS[0].resize((150, 200)).save(root / "a" / "large.webp", lossless=True)
    PHOTOS[0].resize((150, 200)).convert("P").save(root / "b" / "large.gif")
    PHOTOS[0].resize((80, 40)).save(root / "b" / "small.jpg", quality=95)
    PHOTOS[1].resize((80, 40)).convert("RGBA").save(root / "b" / "small.png")
    return root


def words(source: Path, target: Path, *flags: str) -> list[str]:
    return [str(source), str(target), "--size", "64", "--workers", "0", *flags]


def run(source: Path, target: Path, *flags: str) -> None:
    prepare_data.main(prepare_data.parse_args(words(source, target, *flags)))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_names_order_and_labels_stay_the_same(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "target")
    before, after = find_images(source), find_images(tmp_path / "target")
    assert after.names == before.names
    assert after.folders == before.folders
    assert after.digest == before.digest


def test_large_images_are_resized_and_small_ones_keep_their_bytes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(source, tmp_path / "target")
    before, after = contents(source), contents(tmp_path / "target")
    for name in before:
        with Image.open(tmp_path / "target" / name) as image:
            width, height = image.size
            kind = image.format
        assert kind == ("JPEG" if name.lower().endswith(("jpg", "jpeg")) else "PNG")
        if "small" in name:
            assert after[name] == before[name]
        else:
            assert min(width, height) == 64
            views = [read_file(read_image, root / name) for root in (source, tmp_path / "target")]
            slow, quick = (central_crop(56)(view).numpy().astype(int) for view in views)
            assert np.abs(slow - quick).mean() < (6 if kind == "JPEG" else 0.01), "as in training"
    sizes = [sum(len(c) for n, c in files.items() if n in before) for files in (before, after)]
    assert capsys.readouterr().out == (
        f"10 images, {sizes[0] / 1e6:.1f} MB → {sizes[1] / 1e6:.1f} MB "
        f"({sizes[1] / sizes[0]:.0%}): 8 resized, 2 copied as they are, 0 there already; "
        "0 unreadable, left out\n"
    )


def test_quality_changes_jpegs_only(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "low", "--quality", "30")
    run(source, tmp_path / "high", "--quality", "95")
    low, high = contents(tmp_path / "low"), contents(tmp_path / "high")
    assert len(low["a/1.jpg"]) < len(high["a/1.jpg"])
    assert low["a/large.png"] == high["a/large.png"]


def test_many_processes_write_the_same_files(source: Path, tmp_path: Path) -> None:
    for number in range(30):
        shutil.copy(source / "a" / "1.jpg", source / "a" / f"copy{number}.jpg")
    run(source, tmp_path / "one")
    run(source, tmp_path / "many", "--workers", "2")
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_an_interrupted_copy_continues(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "target"
    run(source, target)
    whole = contents(target)
    (target / "b" / "3.jpg").unlink()
    (target / "b" / "small.png").write_bytes(b"")  # as a crash of the machine leaves it
    (target / "a" / ".1.jpg.abcd_123.tmp").write_bytes(b"half")
    there = (target / "a" / "1.jpg").stat().st_mtime_ns
    capsys.readouterr()
    run(source, target)
    assert contents(target) == whole
    assert (target / "a" / "1.jpg").stat().st_mtime_ns == there
    assert "1 resized, 1 copied as they are, 8 there already" in capsys.readouterr().out


def test_a_second_copy_into_a_folder_is_an_error(
    source: Path, tmp_path: Path, error_line: ErrorLine
) -> None:
    run(source, tmp_path / "target")
    with held_elsewhere(tmp_path / "target" / prepare_data.LOCK):
        error = error_line(prepare_data, *words(source, tmp_path / "target"))
    assert error.endswith("target: another process is copying there; wait for it")
    run(source, tmp_path / "target")


def test_images_that_changed_in_the_source_are_copied_again(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(source, tmp_path / "target")
    shutil.copy(source / "b" / "4.jpg", source / "b" / "3.jpg")
    later = (tmp_path / "target" / "b" / "3.jpg").stat().st_mtime + 1
    os.utime(source / "b" / "3.jpg", (later, later))
    capsys.readouterr()
    run(source, tmp_path / "target")
    assert "1 resized, 0 copied as they are, 9 there already" in capsys.readouterr().out
    three, four = (tmp_path / "target" / "b" / name for name in ("3.jpg", "4.jpg"))
    assert three.read_bytes() == four.read_bytes()


def test_another_source_is_bad_input(source: Path, tmp_path: Path, error_line: ErrorLine) -> None:
    run(source / "a", tmp_path / "target")
    before = contents(tmp_path / "target")
    error = error_line(prepare_data, *words(source / "b", tmp_path / "target"))
    changed = f"source {source / 'a'} → {source / 'b'}"
    assert f"was made with other settings ({changed}); give another TARGET" in error
    assert contents(tmp_path / "target") == before


def test_unreadable_images_are_named_and_left_out(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = source / "a" / "1.jpg"
    cut.write_bytes(cut.read_bytes()[:2000])
    (source / "b" / "small.jpg").write_bytes(b"nothing")
    with pytest.raises(InputError, match="more than 1% of the images are unreadable"):
        run(source, tmp_path / "target")
    capsys.readouterr()
    monkeypatch.setattr(prepare_data, "MOST_UNREADABLE", 0.2)
    run(source, tmp_path / "target")
    out, err = capsys.readouterr()
    assert f"left out, unreadable: {cut}: image file is truncated" in err
    assert err.count("left out, unreadable") == 2
    assert "2 unreadable, left out" in out
    left = [p for p in find_images(source).names if p not in ("a/1.jpg", "b/small.jpg")]
    assert find_images(tmp_path / "target").names == left


@pytest.mark.parametrize("flags", [["x.tar"], ["x"], ["x", "--shards", "2"]])
def test_without_a_readable_image_nothing_stays(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / "in" / f"{number:02d}.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="more than 1% of the images are unreadable"):
        run(tmp_path / "in", tmp_path / flags[0], *flags[1:])
    assert not [path for path in tmp_path.iterdir() if path.name not in ("in", "x")]
    assert not [*(tmp_path / "x").glob("*")]
    err = capsys.readouterr().err
    assert err.count("left out, unreadable: ") == 32
    assert err.endswith("more than 32 are unreadable; the others have no line\n")


@pytest.mark.parametrize("name", ["x.zip", "x.parquet", "x.tar.gz", "x.tgz"])
def test_other_containers_than_tars_are_not_written(
    source: Path, tmp_path: Path, name: str, error_line: ErrorLine
) -> None:
    assert error_line(prepare_data, *words(source, tmp_path / name)).endswith(
        f"{name}: can't be written; give a folder, or a name that ends in .tar, or a folder and "
        "--shards N"
    )


def test_source_and_target_must_be_apart(
    source: Path, tmp_path: Path, error_line: ErrorLine
) -> None:
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "outer").mkdir()
    (tmp_path / "linking").mkdir()
    (tmp_path / "linking" / "a").symlink_to(tmp_path / "outer")
    PHOTOS[0].save(tmp_path / "outer" / "photo.jpg")
    before = contents(tmp_path)
    for given, target in (
        (source, source),
        (source, source / "new" / "folder"),
        (source, tmp_path / "link"),
        (source, tmp_path / "link" / "new"),
        (tmp_path / "link", source / "new"),
        (source, tmp_path),
        (source / "a", source),
        (tmp_path / "linking", tmp_path / "outer"),
    ):
        error = error_line(prepare_data, *words(given, target))
        assert "is in the source" in error or "is neither empty nor a copy" in error
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--quality", "101"], "--quality 101: give a number from 1 to 100"),
        (["--size", "32"], "prepare_data.json: was made with other settings (size 64 → 32); give"),
    ],
)
def test_bad_settings_are_one_line(
    source: Path, tmp_path: Path, error_line: ErrorLine, flags: list[str], message: str
) -> None:
    run(source, tmp_path / "target")
    assert message in error_line(prepare_data, *words(source, tmp_path / "target", *flags))


def test_bad_places_are_one_line(source: Path, tmp_path: Path, error_line: ErrorLine) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    (tmp_path / "list.txt").write_text("source/top.jpg\n")
    (tmp_path / "empty").mkdir()
    for given, target, message in (
        (source, "full", "is neither empty nor a copy"),
        (source, "list.txt", "cannot write a copy there"),
        (
            tmp_path / "list.txt",
            "new",
            "only a folder of image files can be copied to a folder",
        ),
        (tmp_path / "empty", "new", "no image in this folder"),
        (tmp_path / "nowhere", "new", "no such folder"),
    ):
        assert message in error_line(prepare_data, *words(given, tmp_path / target))
    assert not (tmp_path / "new").exists()


def test_a_target_that_cannot_be_written_stops_in_one_line(
    source: Path, tmp_path: Path, error_line: ErrorLine
) -> None:
    run(source, tmp_path / "target")
    shutil.rmtree(tmp_path / "target" / "b")
    (tmp_path / "target" / "b").write_text("in the way")
    assert "start again" in error_line(prepare_data, *words(source, tmp_path / "target"))

"""Damaged and odd containers: one line, or an unreadable image with its name."""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from packed_files import write_table, write_tar, write_zip

from data.decode import UnreadableImageError
from data.images import find_images
from system.errors import InputError

MEMBERS = [(f"{label}/{n}.png", bytes([n]) * 700) for label in "ab" for n in range(3)]


def reason(path: Path, index: int) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        find_images(path).open(index)
    return str(caught.value)


def test_a_cut_off_last_member_is_left_out_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    whole = path.read_bytes()
    last = whole.index(bytes([2]) * 700, 7000)
    for end, note in (
        (last + 300, "x.tar: b/2.png is cut off, left out"),
        (last - 512 + 100, "x.tar: is damaged or cut off after 5 members; the rest is left out"),
    ):
        path.write_bytes(whole[:end])
        assert list(find_images(path).names)[-1] == "x.tar/b/1.png"
        assert capsys.readouterr().err == f"note: {path}: {note}\n"
    path.write_bytes(whole[: last + 700 + 324])  # without the blocks at the end, as some writers do
    assert len(find_images(path)) == 6
    assert capsys.readouterr().err == ""
    path.write_bytes(whole[: last - 512] + b"\xff" * 512 + whole[last:])
    assert len(find_images(path)) == 5
    assert "is damaged or cut off after 5 members" in capsys.readouterr().err


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_odd_names(tmp_path: Path, format: int) -> None:
    long = "/".join(["d" * 40, "e" * 90, "f" * 90 + ".jpg"])
    names = [long, "./dotted/x.png", "ä\udcff/y.PNG", "z.jpeg"]
    members = [(name, name.encode("utf-8", "replace")) for name in names]
    path = write_tar(tmp_path / "x.tar", members, format)
    images = find_images(path)
    assert sorted(images.names) == sorted(
        f"x.tar/{name}" for name in (long, "dotted/x.png", "ä\udcff/y.PNG", "z.jpeg")
    )
    for index, name in enumerate(images.names):
        expected = {each.removeprefix("./"): each for each in names}[name.removeprefix("x.tar/")]
        assert images.open(index).read() == expected.encode("utf-8", "replace")


def test_a_name_with_a_line_break_is_unreadable(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [("a\nb.png", b"x"), ("c.png", b"y")])
    assert reason(path, 0) == "its name has a line break"


def test_links_folders_and_other_members_are_no_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            about = tarfile.TarInfo(f"{kind!r}.png")
            about.type, about.linkname = kind, "k.png"
            tar.addfile(about)
        for name in ("k.png", "k.cls", "x.npy", "y.npy", "._k.png", "__MACOSX/k.png"):
            about = tarfile.TarInfo(name)
            about.size = 3
            tar.addfile(about, io.BytesIO(b" 7\n"))
    images = find_images(path)
    assert list(images.names) == ["x.tar/k.png"]
    assert list(images.folders) == ["7"]
    said = [
        line.removeprefix(f"note: {path}: x.tar: ") for line in capsys.readouterr().err.split("\n")
    ]
    assert said == [
        "3 links or other special members, such as b'2'.png; left out",
        "passed over 2 names that are hidden or left by a system (._*, __MACOSX)",
        "2 members are no images by name, left out (2 .npy)",
        "",
    ]


def test_hard_links_are_read_as_their_files(tmp_path: Path) -> None:
    """As tar writes files that have several names, and links to links."""
    path = tmp_path / "x.tar"
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "1.png").write_bytes(b"one")
    for name in ("a/2.png", "3.png"):
        (tmp_path / "in" / name).hardlink_to(tmp_path / "in" / "a" / "1.png")
    with tarfile.open(path, "w") as tar:
        tar.add(tmp_path / "in", "./")
        about = tarfile.TarInfo("b//4.png")
        about.type, about.linkname = tarfile.LNKTYPE, "./a/2.png"
        tar.addfile(about)
        kinds = {member.type for member in tar.getmembers()}
    assert kinds == {tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.LNKTYPE}
    images = find_images(path)
    assert sorted(images.names) == [
        f"x.tar/{name}" for name in ("3.png", "a/1.png", "a/2.png", "b/4.png")
    ]
    assert {images.open(index).read() for index in range(4)} == {b"one"}


def test_names_outside_of_the_folder_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["../1.png", "/abs/2.png", "a/../../3.png", "a/./b/../4.png", ".//5.png"]
    members = [(name, b"x") for name in names]
    for path in (write_tar(tmp_path / "x.tar", members), write_zip(tmp_path / "x.zip", members)):
        assert list(find_images(path).names) == [f"{path.name}/5.png", f"{path.name}/a/4.png"]
        assert capsys.readouterr().err == (
            f"note: {path}: {path.name}: 3 names with .. or / at the start, such as ../1.png; left "
            "out\n"
        )


def test_labels_that_are_no_text_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [(f"a/{n}.jpg", b"x") for n in range(4)]
    for n, label in enumerate((b"caf\xe9", b"7", b"x" * 300)):
        members.append((f"a/{n}.cls", label))
    path = write_tar(tmp_path / "x.tar", members)
    assert list(find_images(path).folders) == ["", "7", "", "a"]
    assert capsys.readouterr().err == (
        f"note: {path}: x.tar: 2 labels in .cls can't be read as UTF-8, such as a/0.cls; taken as "
        "none\n"
    )


def test_an_empty_shard_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(3):
        write_tar(tmp_path / f"{n}.tar", [("x.png", b"x")] if n != 1 else [("x.txt", b"x")])
    assert len(find_images(tmp_path)) == 2
    assert capsys.readouterr().err == (
        f"note: {tmp_path}: 1 container has no image, such as 1.tar\n"
    )


def test_one_image_of_each_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["0.seg.png", "0.jpg", "0.cls", "1.png", "1.jpg", "1.json", "2.jpg", "2.png"]
    names += ["IMG.2020.a.jpg", "IMG.2020.b.jpg"]
    path = write_tar(tmp_path / "x.tar", [(name, b"5") for name in names])
    assert list(find_images(path).names) == [
        f"x.tar/{name}"
        for name in ("0.jpg", "1.jpg", "2.jpg", "2.png", "IMG.2020.a.jpg", "IMG.2020.b.jpg")
    ]
    said = capsys.readouterr().err
    assert "2 more images of the same samples, such as 0.seg.png; left out" in said


def test_of_duplicate_names_the_last_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = [("a/1.png", b"old"), ("a/2.png", b"x"), ("a/1.png", b"new")]
    path = write_tar(tmp_path / "x.tar", twice)
    assert [find_images(path).open(index).read() for index in range(2)] == [b"new", b"x"]
    assert capsys.readouterr().err == (
        f"note: {path}: x.tar: 1 name of several members, such as a/1.png; the last one counts\n"
        * 2
    )


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("x.tar.gz", "gzip -dc {0}/x.tar.gz > {0}/x.tar"),
        ("x.tgz", "gzip -dc {0}/x.tgz > {0}/x.tar"),
        ("x.tar", "gzip -dc {0}/x.tar > {0}/x.raw.tar"),
    ],
)
def test_compressed_tars_are_an_error_that_names_the_command(
    tmp_path: Path, name: str, command: str
) -> None:
    whole = write_tar(tmp_path / "whole", MEMBERS).read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(gzip.compress(whole))
    for path in (tmp_path / "in" / name, tmp_path / "in"):
        with pytest.raises(InputError) as caught:
            find_images(path)
        assert str(caught.value) == (
            f"{tmp_path}/in/{name}: is compressed, so its images can't be read one by one; unpack "
            f"it: {command.format(tmp_path / 'in')}"
        )


@pytest.mark.parametrize("kind", ["tar", "zip", "parquet"])
@pytest.mark.parametrize("content", [b"", b"nothing of that kind" * 100])
def test_other_files_are_one_line(tmp_path: Path, kind: str, content: bytes) -> None:
    path = tmp_path / f"x.{kind}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^{path}: (not a|the file is empty)"):
        find_images(path)


def test_containers_without_images_are_one_line(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", [("x.txt", b"x")])
    write_zip(tmp_path / "x.zip", [("x.txt", b"x")])
    write_table(tmp_path / "x.parquet", [])
    for kind in ("tar", "zip", "parquet"):
        with pytest.raises(InputError, match=rf"x\.{kind}: no image in this container$"):
            find_images(tmp_path / f"x.{kind}")
    write_tar(tmp_path / "y.tar", [])
    with pytest.raises(InputError, match=r"no image in any of its 2 containers$"):
        find_images(tmp_path / "*.tar")


def test_containers_that_vanish_or_change_after_indexing(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", MEMBERS)
    images = find_images(path)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    size = len(content)
    with pytest.raises(UnreadableImageError) as caught:
        images.open(0)
    changed = f"its container has changed: {size:,} bytes when indexed, {size - 1:,} now"
    assert str(caught.value) == changed
    path.unlink()
    with pytest.raises(UnreadableImageError, match=r"^No such file or directory$"):
        images.open(0)


def test_zip_bombs_and_odd_members(tmp_path: Path) -> None:
    bomb = zlib.compress(b"\0" * 5_000_000)[2:-4]
    path = tmp_path / "x.zip"
    write_zip(path, [("a.png", b"\0" * 5_000_000), ("b.png", b"hello")], zipfile.ZIP_DEFLATED)
    content = path.read_bytes()
    assert bomb in content
    for claimed, said in ((100, "the 100 bytes"), (2**31 - 2, "more than 536,870,910")):
        path.write_bytes(content.replace(struct.pack("<I", 5_000_000), struct.pack("<I", claimed)))
        assert said in reason(path, 0)
        assert find_images(path).open(1).read() == b"hello"
    path.write_bytes(content.replace(struct.pack("<I", 5_000_000), struct.pack("<I", 2**32 - 2)))
    assert reason(path, 0) == "has more than 2 GiB"
    write_zip(path, [("a.png", b"x" * 100)], zipfile.ZIP_BZIP2)
    assert reason(path, 0) == "is compressed with another method than deflate"
    encrypted = write_zip(path, [("a.png", b"x")]).read_bytes()
    at = encrypted.index(b"PK\1\2") + 8
    path.write_bytes(encrypted[:at] + b"\1" + encrypted[at + 1 :])
    assert reason(path, 0) == "is encrypted"


def test_a_member_longer_than_its_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", [("a.png", b"x" * 100), ("b.png", b"y" * 100)])
    content = path.read_bytes()
    at = content.rindex(b"PK\1\2") + 20
    path.write_bytes(content[:at] + struct.pack("<II", 9999, 9999) + content[at + 8 :])
    assert reason(path, 1) == "its container is cut off"
    path.write_bytes(content.replace(b"PK\3\4", b"PK\3\5", 1))
    other = "another or no member begins where the archive's directory says"
    assert reason(path, 0) == other
    path.write_bytes(content[: at + 22] + struct.pack("<I", 0) + content[at + 26 :])
    assert find_images(path).open(0).read() == b"x" * 100
    assert reason(path, 1) == other, "not the first picture under the second one's name"


def table(path: Path, **columns: object) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_tables_without_images_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    for columns, message in (
        ({"url": ["http://x"], "text": ["a"]}, "'url' holds text; download the images"),
        ({"image": ["a.jpg"]}, "'image' holds text; download the images"),
        ({"x": [1], "y": [b"2"]}, "has the columns 'x', 'y'"),
        ({"image": [[b"1"]]}, "has no column of images"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            find_images(table(path, **columns))
        assert str(caught.value).startswith(f"{path}: ")


def test_damaged_pages_are_one_line_or_unreadable(tmp_path: Path) -> None:
    path = write_table(tmp_path / "x.parquet", MEMBERS, "4.6", use_dictionary=False)
    content = path.read_bytes()
    at = content.index(bytes([1]) * 700) - 4
    path.write_bytes(content[:at] + struct.pack("<I", 2**31) + content[at + 4 :])
    with pytest.raises(InputError, match=r"can't be read: a value is longer than its page$"):
        find_images(path)
    write_table(tmp_path / "lz4.parquet", MEMBERS, compression="lz4")
    codec = r": can't be read: its images are compressed with lz4, not brotli, gzip, snappy, zstd$"
    with pytest.raises(InputError, match=codec):
        find_images(tmp_path / "lz4.parquet")
    path.write_bytes(content[:-200])
    with pytest.raises(InputError, match="not a Parquet file"):
        find_images(path)
    write_table(path, MEMBERS, "2.13", compression="zstd", use_dictionary=False)
    found = find_images(path)
    content = path.read_bytes()
    at = content.index(b"\x28\xb5\x2f\xfd")
    path.write_bytes(content[:at] + b"\0\0\0\0" + content[at + 4 :])
    with pytest.raises(UnreadableImageError, match="a page can't be decompressed"):
        found.open(0)


def test_a_missing_package_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_table(tmp_path / "x.parquet", MEMBERS)
    monkeypatch.setattr("system.extras._is_there", lambda package: False)
    with pytest.raises(InputError, match=r"x\.parquet: needs packages .* -m pip install pyarrow$"):
        find_images(path)

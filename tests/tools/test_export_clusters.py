"""A run's clusters with the paths of its images."""

import csv
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from conftest import ErrorLine, write_images
from torchvision.datasets import ImageFolder

from cluster.quality import describe_labels, label_metrics
from system.errors import InputError
from tools import export_clusters

ODD = ["a,b.png", 'a "b".png', "a\u2028b.png", "caf\udce9.png"]


def run(*rest: object) -> None:
    export_clusters.main(export_clusters.parse_args([*map(str, rest)]))


def read_csv(path: Path) -> list[tuple[str, int]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "cluster"]
    return [(name, int(cluster)) for name, cluster in rows]


@pytest.fixture
def original(tmp_path: Path, tree: Path) -> Path:
    """A folder of the original code, with only `clusters`: two epochs over the tree."""
    random = np.random.default_rng(0)
    epochs = []
    for k in (4, 5):
        clusters = random.integers(k, size=40)
        epochs.append([np.flatnonzero(clusters == c).tolist() for c in range(k)])
    folder = tmp_path / "original"
    folder.mkdir()
    (folder / "clusters").write_bytes(pickle.dumps(epochs, -1))
    return folder


@pytest.mark.parametrize("epoch", [None, 0, 1, 2])
def test_each_epochs_clusters_are_exported_and_the_last_ones_by_default(
    epoch: int | None, tree: Path, train: Callable[..., Path], tmp_path: Path
) -> None:
    (tree / "b" / "007.png").write_bytes(b"no image")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.unreadable.MOST_UNREADABLE", 0.1)
        folder = train(tree, "--epochs", "2")
    run(folder, "--out", tmp_path / "a.csv", *(() if epoch is None else ("--epoch", epoch)))
    assignment = np.load(folder / "assignments" / f"epoch_{2 if epoch is None else epoch:04d}.npy")
    names = (folder / "images.txt").read_text().splitlines()
    expected = [
        (f"{tree}/{name}", cluster)
        for name, cluster in zip(names, assignment.tolist(), strict=True)
        if cluster >= 0
    ]
    assert len(expected) == 39, "an image that was left out is in no cluster"
    assert read_csv(tmp_path / "a.csv") == expected
    assert all(Path(path).is_file() for path, _ in expected)


def test_all_output_formats_agree(
    tree: Path, train: Callable[..., Path], tmp_path: Path, capfdbinary: Any
) -> None:
    folder = train(tree)
    capfdbinary.readouterr()
    run(folder)
    out, error = capfdbinary.readouterr()
    (tmp_path / "a.csv").write_bytes(out)
    pairs = read_csv(tmp_path / "a.csv")
    paths, clusters = zip(*pairs, strict=True)
    labels = np.unique([Path(path).parent.name for path in paths], return_inverse=True)[1]
    agreement = describe_labels(label_metrics(np.array(clusters), labels))
    assert error.decode() == f"epoch 1: 40 images in 4 clusters; {agreement}\n"
    flags = ["--pickle", tmp_path / "a.pkl", "--folders", tmp_path / "folders"]
    run(folder, *flags, "--out", tmp_path / "a.parquet")
    columns = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert list(columns) == ["path", "cluster"]
    assert list(zip(*columns.values(), strict=True)) == pairs
    with (tmp_path / "a.pkl").open("rb") as file:
        assert [tuple(pair) for pair in pickle.load(file, encoding="latin1")] == pairs
    links = (tmp_path / "folders").glob("*/*")
    linked = {str(link.readlink()): int(link.parent.name[-4:]) for link in links}
    assert linked == dict(pairs)


def test_unusual_file_names_are_kept(train: Callable[..., Path], tmp_path: Path) -> None:
    images = tmp_path / "images"
    for path, name in zip(write_images(images, 12), ODD, strict=False):
        path.rename(images / name)
    folder = train(images)
    run(folder, "--out", tmp_path / "a.csv", "--folders", tmp_path / "folders")
    assert {path for path, _ in read_csv(tmp_path / "a.csv")} == set(map(str, images.iterdir()))
    assert all(link.resolve().is_file() for link in (tmp_path / "folders").glob("*/*"))


def test_paths_in_a_list_are_relative_to_it(
    tree: Path, train: Callable[..., Path], tmp_path: Path
) -> None:
    names = [f"images/a/{number:03d}.png" for number in range(10)]
    (tmp_path / "list.txt").write_text("".join(f"{name}\n" for name in names))
    run(train(tmp_path / "list.txt"), "--out", tmp_path / "a.csv")
    assert [path for path, _ in read_csv(tmp_path / "a.csv")] == [f"{tmp_path}/{n}" for n in names]


def test_images_that_have_moved_are_found_with_data(
    tree: Path, train: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(tree)
    run(folder, "--out", tmp_path / "before.csv")
    tree.rename(tmp_path / "moved")
    run(folder, "--out", tmp_path / "gone.csv")
    assert "note: " in capsys.readouterr().err
    assert (tmp_path / "gone.csv").read_bytes() == (tmp_path / "before.csv").read_bytes()
    with pytest.raises(InputError, match="images are gone"):
        run(folder, "--folders", tmp_path / "folders")
    run(folder, "--folders", tmp_path / "folders", "--data", tmp_path / "moved")
    assert len(list((tmp_path / "folders").glob("*/*.png"))) == 40


@pytest.mark.parametrize("epoch", [None, 0, 1])
def test_images_of_the_original_codes_runs_are_in_image_folders_order(
    epoch: int | None, original: Path, tree: Path, tmp_path: Path
) -> None:
    flags = () if epoch is None else ("--epoch", epoch)
    run(original, "--data", tree, "--out", tmp_path / "a.csv", *flags)
    lists = pickle.loads((original / "clusters").read_bytes())[-1 if epoch is None else epoch]
    paths = [path for path, _ in ImageFolder(str(tree)).samples]
    expected = {paths[image]: number for number, part in enumerate(lists) for image in part}
    assert dict(read_csv(tmp_path / "a.csv")) == expected


def test_without_assignments_the_pickle_is_read(
    tree: Path, train: Callable[..., Path], tmp_path: Path
) -> None:
    folder = train(tree, "--epochs", "2")
    run(folder, "--epoch", 1, "--out", tmp_path / "a.csv")
    shutil.rmtree(folder / "assignments")
    run(folder, "--out", tmp_path / "b.csv")  # the pickle lacks the finished network's clusters
    assert read_csv(tmp_path / "b.csv") == read_csv(tmp_path / "a.csv")


def test_other_images_than_the_runs_are_bad_input(
    original: Path, tree: Path, tmp_path: Path
) -> None:
    for change in (lambda: (tree / "c" / "999.gif").touch(), lambda: shutil.rmtree(tree / "c")):
        change()
        with pytest.raises(InputError, match=r"holds clusters of 40 images, .*images has (41|30);"):
            run(original, "--data", tree, "--out", tmp_path / "a.csv")
    assert not (tmp_path / "a.csv").exists()


BAD = {
    "{}/nowhere": "{}/nowhere: not a run's folder: has neither images.txt nor clusters",
    "{}/original": "{}/original: has no images.txt; give the run's images with --data",
    "{}/original --data {}/nowhere": "{}/nowhere: no such folder or file",
    "{}/original --data {}/images --epoch 2": "--epoch 2: {}/original/clusters has the epochs 0 to",
    "{}/original --data {}/images --epoch -1": "argument --epoch: '-1' is not a whole number of 0",
    "{}/original --out {}/a.xlsx": "--out {}/a.xlsx: give a name that ends in .csv or .parquet",
    "{}/original --folders {}/images": "--folders {}/images: is there already; give a new folder",
    "{}/ours --epoch 7": "--epoch 7: {}/ours has clusters of 0",
    "{}/ours": "epoch_0000.npy: cannot read this assignment: ",
    "{}/broken --data {}/images": "{}/broken/clusters: ",
    "{}/empty --data {}/images": "{}/empty/clusters: no clusters yet",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    command: str, original: Path, tmp_path: Path, error_line: ErrorLine
) -> None:
    for name, content in (("broken", b"no pickle"), ("empty", pickle.dumps([]))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "clusters").write_bytes(content)
    (tmp_path / "ours" / "assignments").mkdir(parents=True)
    (tmp_path / "ours" / "images.txt").write_text("images/a/000.png\n")
    with (tmp_path / "ours" / "assignments" / "epoch_0000.npy").open("wb") as file:
        np.save(file, np.array([{}]), allow_pickle=True)
    before = sorted(tmp_path.rglob("*"))
    out = [] if "--out" in command else ["--out", str(tmp_path / "a.csv")]
    words = [*command.replace("{}", str(tmp_path)).split(), *out]
    error = error_line(export_clusters, *words)
    assert BAD[command].replace("{}", str(tmp_path)) in error
    assert sorted(tmp_path.rglob("*")) == before

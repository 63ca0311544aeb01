"""`assign.py`: new images to clusters, and its output files."""

import csv
import io
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from conftest import ErrorLine, image_list, read_file, tiny, write_images
from PIL import Image
from runs import Server
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

import assign
from checkpoints.checkpoint import load_model, save_checkpoint
from cluster.components import Components
from cluster.quality import describe_labels, label_metrics
from cluster.tables import Assignment, print_csv, write_folders, write_table
from clustering import Kmeans
from data.decode import read_image
from data.transforms import central_crop, to_input
from models import MODELS
from system.errors import InputError
from visu.contact_sheet import thumbnail

ROOT = Path(__file__).parents[1]
FLAGS = "--workers 0 --device cpu --precision fp32"
ODD = ["a,b.png", 'a "b".png', "é.png", " a.png", "caf\udce9.png"]
Train = Callable[..., Path]


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint without clusters."""
    monkeypatch.setitem(MODELS, "tiny", tiny)
    torch.manual_seed(0)
    path = tmp_path / "released.pth.tar"
    state = {"epoch": 5, "arch": "tiny", "state_dict": tiny(out=4).state_dict()}
    save_checkpoint(path, {**state, "settings": {"size": 32}})
    return path


def run(model: Path, *rest: object) -> None:
    assign.main(assign.parse_args([str(model), *map(str, rest), *FLAGS.split()]))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def clusters_in(path: Path) -> list[int]:
    return [int(row["cluster"]) for row in read_csv(path)]


def by_hand(model: Path, paths: list[str]) -> np.ndarray:
    """Embeddings `(N, 32) float64`, one image at a time."""
    network = load_model(model).eval()
    with torch.no_grad():
        rows = [
            network.embedding(
                to_input(central_crop(32)(read_file(read_image, p))[None], torch.device("cpu"))
            )
            for p in paths
        ]
    return torch.cat(rows).double().numpy()


def test_a_runs_own_images_go_to_the_finished_networks_clusters(
    tree: Path, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(tree, "--epochs", "2")
    run(folder / "checkpoint.pth.tar", tree, "--out", tmp_path / "own.csv", "--batch", "8")
    listed = (folder / "images.txt").read_text().splitlines()
    rows = read_csv(tmp_path / "own.csv")
    assert [row["path"] for row in rows] == [f"{tree}/{name}" for name in listed]
    expected = np.load(folder / "assignments" / "epoch_0002.npy")
    assert clusters_in(tmp_path / "own.csv") == expected.tolist()
    error = capsys.readouterr().err
    assert "note:" not in error
    assert "40 images: " in error


def test_a_new_image_goes_to_the_nearest_centroid(tree: Path, train: Train, tmp_path: Path) -> None:
    """The reference: distances in float64, of features that were never in half precision."""
    model = train(tree) / "checkpoint.pth.tar"
    new = [str(path) for path in write_images(tmp_path / "new", 15, seed=7)]
    run(model, tmp_path / "new", "--out", tmp_path / "new.csv")
    found = torch.load(model, weights_only=True)["clusters"]
    white = (by_hand(model, new) - found["pca_mean"].numpy()) @ found["pca_matrix"].numpy()
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    every = np.linalg.norm(white[:, None] - found["centroids"].numpy(), axis=2)
    rows = read_csv(tmp_path / "new.csv")
    assert [row["path"] for row in rows] == new
    distances = np.array([float(row["distance"]) for row in rows])
    np.testing.assert_allclose(distances, every.min(axis=1), atol=0.02)
    np.testing.assert_allclose(
        distances, every[range(15), clusters_in(tmp_path / "new.csv")], atol=0.02
    )
    assert distances.min() >= 0
    assert distances.max() <= 2


def test_all_outputs_agree(tree: Path, released: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    flags = ["--pickle", out / "a.pickle", "--folders", out / "folders"]
    run(released, tree, "--recluster", 3, *flags, "--out", out / "a.parquet")
    run(released, tree, "--recluster", 3, "--out", out / "a.csv")
    rows = read_csv(out / "a.csv")
    pairs = [(row["path"], int(row["cluster"])) for row in rows]

    table = pyarrow.parquet.read_table(out / "a.parquet")
    assert table.schema.names == ["path", "cluster", "distance"]
    assert [str(kind) for kind in table.schema.types] == ["string", "int64", "float"]
    columns = table.to_pydict()
    assert list(zip(columns["path"], columns["cluster"], strict=True)) == pairs
    assert columns["distance"] == [np.float32(row["distance"]) for row in rows]

    with (out / "a.pickle").open("rb") as file:
        assert [tuple(pair) for pair in pickle.load(file, encoding="latin1")] == pairs

    linked = {}
    for links in sorted((out / "folders").iterdir()):
        distances = []
        for number, link in enumerate(sorted(links.iterdir())):
            target = str(link.readlink())
            assert link.resolve().is_file()
            assert link.name == f"{number:06d}_{Path(target).name}"
            linked[target] = int(links.name.removeprefix("cluster_"))
            distances.append(next(float(r["distance"]) for r in rows if r["path"] == target))
        assert distances == sorted(distances), "the nearest first"
    assert linked == dict(pairs)
    assert sorted(path.name for path in out.iterdir()) == [
        "a.csv", "a.parquet", "a.pickle", "folders",
    ]  # fmt: skip


def test_without_an_output_csv_goes_to_stdout_and_the_rest_to_stderr(
    tree: Path, released: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    run(released, tree, "--recluster", 3)
    out, error = capfdbinary.readouterr()
    rows = list(csv.reader(io.StringIO(out.decode())))
    assert rows[0] == ["path", "cluster", "distance"]
    assert len(rows) == 41
    assert b"3 of 3 clusters not empty" in error
    assert re.search(rb"; silhouette -?\d\.\d{3}, stability -?\d\.\d{3}; distance", error)
    clusters = np.array([int(cluster) for _, cluster, _ in rows[1:]])
    labels = np.unique([Path(path).parent.name for path, *_ in rows[1:]], return_inverse=True)[1]
    assert describe_labels(label_metrics(clusters, labels)) in error.decode()


def test_a_closed_pipe_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        print_csv(Assignment(["a"] * 20_000, np.zeros(20_000, np.int64)))
        sys.stdout.flush()  # as at the end of every script


def test_the_contact_sheet_has_the_largest_clusters_first_and_the_nearest_images(
    tmp_path: Path, tree: Path, released: Path
) -> None:
    run(released, tree, "--recluster", 3, "--contact-sheet", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 10 * assign.SIDE
        assert 3 * assign.SIDE < sheet.height < 4 * assign.SIDE + 100

    images = image_list(*write_images(tmp_path / "new", 15))
    clusters = np.array([7] * 2 + [2] * 12 + [5])
    distances = np.linspace(1.4, 0, 15).astype(np.float32)
    strips = assign.strips_of(Assignment(images.names, clusters, distances), images)
    assert [strip.title for strip in strips] == [
        "cluster 2: 12 images, mean distance 0.650",
        "cluster 7: 2 images, mean distance 1.350",
        "cluster 5: 1 images, mean distance 0.000",
    ]
    assert [len(strip.pictures) for strip in strips] == [10, 2, 1]
    assert list(strips[1].pictures) == [thumbnail(images, index, assign.SIDE) for index in (1, 0)]


def test_unreadable_images_are_left_out_and_the_others_assigned(
    tree: Path, released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [tree / "a" / "003.png", tree / "c" / "000.png"]
    for path in broken:
        path.write_bytes(b"no image")
    run(released, tree, "--recluster", 3, "--out", tmp_path / "a.csv")
    assigned = {row["path"] for row in read_csv(tmp_path / "a.csv")}
    assert assigned == {str(path) for path in tree.rglob("*.png")} - set(map(str, broken))
    error = capsys.readouterr().err
    assert all(f"left out, unreadable: {path}: " in error for path in broken)
    assert "2 of 40 images left out: unreadable\n" in error

    for path in tree.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="none of the 40 images can be read"):
        run(released, tree, "--recluster", 3, "--out", tmp_path / "b.csv")
    assert not (tmp_path / "b.csv").exists()


@pytest.mark.parametrize(
    ("given", "components"), [("", "auto"), ("--dim_pca 5", 5), ("--dim_pca 0", 0)]
)
def test_recluster_runs_k_means_on_these_images(
    tree: Path,
    released: Path,
    tmp_path: Path,
    given: str,
    components: Components,
    capsys: pytest.CaptureFixture[str],
) -> None:
    saved = tmp_path / "clusters.pth"
    recluster = ["--recluster", 5, *given.split(), "--out"]
    run(released, tree, *recluster, tmp_path / "a.csv", "--save-clusters", saved)
    note = "note: whitened to 3 dimensions: 40 rows are too few for 256"
    assert (note in capsys.readouterr().err) == (components == "auto")
    inputs = assign.open_inputs(assign.parse_args([str(released), str(tree), *FLAGS.split()]))
    kmeans = Kmeans(5, seed=31, device=torch.device("cpu"), pca=components)
    kmeans.cluster(inputs.features(lambda done: None).rows)
    assert clusters_in(tmp_path / "a.csv") == kmeans.assignments.tolist()

    run(released, tree, "--clusters", saved, "--out", tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()
    run(released, tree, "--seed", 8, *recluster, tmp_path / "c.csv")
    assert clusters_in(tmp_path / "c.csv") != clusters_in(tmp_path / "a.csv")


def test_a_note_says_that_clusters_are_from_an_earlier_network(
    tree: Path, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(tree, "--epochs", "2", "--checkpoints", "7")
    run(folder / "checkpoints" / "checkpoint_1.pth.tar", tree, "--out", tmp_path / "a.csv")
    error = capsys.readouterr().err
    assert "its clusters were found before epoch 1, and the network has been" in error


@pytest.mark.parametrize(
    "spoil",
    [
        {"centroids": None},
        {"pca_mean": torch.zeros(31)},
        {"pca_matrix": torch.zeros(32, 255)},
        {"centroids": torch.full((4, 256), float("nan"))},
        {"centroids": torch.zeros(0, 256)},
        {"centroids": torch.zeros(4, 256).double()},
        {"algorithm": 3},
        {"epoch": "2"},
    ],
)
def test_malformed_clusters_end_in_one_line(
    spoil: dict[str, Any], released: Path, tree: Path, tmp_path: Path
) -> None:
    sound = {
        "algorithm": "Kmeans",
        "epoch": 5,
        "pca_mean": torch.zeros(32),
        "pca_matrix": torch.ones(32, 256),
        "centroids": torch.zeros(4, 256),
    }
    state = torch.load(released, weights_only=True)
    save_checkpoint(released, {**state, "clusters": sound})
    run(released, tree, "--out", tmp_path / "a.csv")
    save_checkpoint(released, {**state, "clusters": {**sound, **spoil}})
    with pytest.raises(InputError, match=r"released.pth.tar: its clusters are malformed$"):
        run(released, tree, "--out", tmp_path / "b.csv")
    assert not (tmp_path / "b.csv").exists()


BAD = {
    "": "{}/released.pth.tar: holds no clusters; give --recluster K to find K among these images",
    "--dim_pca 5": "--dim_pca 5: only --recluster whitens anew; add it",
    "--recluster 3 --dim_pca x": "argument --dim_pca: 'x': give auto, 0 or a number of",
    "--recluster 41": "--recluster 41: more clusters than the 40 images",
    "--recluster 1": "argument --recluster: '1' is not a whole number of 2 or more",
    "--recluster 3 --out {}/a.txt": "--out {}/a.txt: give a name that ends in .csv or .parquet",
    "--recluster 3 --out {}/none/a.csv": "--out {}/none/a.csv: cannot write there: No such file",
    "--recluster 3 --pickle {}/a": "--pickle {}/a: give a name that ends in .pickle or .pkl",
    "--recluster 3 --contact-sheet {}/a.jpg": "--contact-sheet {}/a.jpg: give a name that ends in",
    "--recluster 3 --folders {}/images": "--folders {}/images: is there already; give a new folder",
    "--recluster 3 --folders {}/released.pth.tar": "released.pth.tar: is there already",
    "--recluster 3 --clusters x.pth": "--clusters: not allowed with argument --recluster",
    "--clusters {}/none.pth": "{}/none.pth: cannot read this checkpoint: No such file",
    "--clusters {}/images/a/000.png": "000.png: not a checkpoint, or a damaged one",
    "--clusters {}/released.pth.tar": "released.pth.tar: holds no clusters",
    "--clusters {}/wide.pth": "wide.pth: its clusters need features of 64 dimensions; the",
    "--clusters {}/another.pth": "another.pth: its clusters were made with another network, or at "
    "another --size",
    "--clusters {}/same_size.pth": "same_size.pth: its clusters were made with another network",
    "--clusters {}/other_size.pth": "other_size.pth: its clusters were made with --size 20, not 32",
    "--clusters {}/small.pth": "small.pth: its clusters were made with --size 20, not 32",
    "--recluster 3 --save-clusters {}/wide.pth --clusters {}/wide.pth": "not allowed with",
    "--clusters {}/own.pth --save-clusters {}/own.pth": "own.pth: is read, too; give another",
    "--recluster 3 --size 1": "--size 1: too small for tiny",
    "{}/nowhere --recluster 3": "{}/nowhere: no such folder or file",
}


@pytest.mark.parametrize("flags", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    flags: str, tree: Path, released: Path, tmp_path: Path, error_line: ErrorLine
) -> None:
    wide = Kmeans(2)
    wide.cluster(np.random.default_rng(0).normal(size=(99, 64)))
    assign.save_clusters(tmp_path / "wide.pth", assign.Clusters.of(wide, 0))
    fits = assign.Clusters.of(wide, 0)
    assign.save_clusters(tmp_path / "another.pth", fits, "another network's digest")
    assign.save_clusters(tmp_path / "same_size.pth", fits, "another network's digest", 32)
    assign.save_clusters(tmp_path / "other_size.pth", fits, "with other position embeddings", 20)
    assign.save_clusters(tmp_path / "small.pth", fits, size=20)
    assign.save_clusters(tmp_path / "own.pth", fits)
    before = sorted(tmp_path.rglob("*"))
    words = flags.format(*[tmp_path] * 2).split()
    error = error_line(assign, released, tree, *words, *FLAGS.split())
    assert BAD[flags].replace("{}", str(tmp_path)) in error
    assert sorted(tmp_path.rglob("*")) == before


def test_tables_keep_any_file_name(tmp_path: Path) -> None:
    rows = Assignment(ODD, np.arange(5), np.linspace(0, 1, 5).astype(np.float32))
    write_table(tmp_path / "a.csv", rows)
    write_table(tmp_path / "a.parquet", rows)
    found = read_csv(tmp_path / "a.csv")
    assert [row["path"] for row in found] == ODD
    assert [np.float32(row["distance"]) for row in found] == rows.distances.tolist()  # type: ignore[union-attr]
    paths = pyarrow.parquet.read_table(tmp_path / "a.parquet")["path"].to_pylist()
    assert paths == [*ODD[:-1], "caf\\xe9.png"]


def test_links_to_equal_names_do_not_collide_and_long_names_are_cut(tmp_path: Path) -> None:
    long = "é" * 120 + "n" * 8 + ".png"
    paths = [str(p) for name in "ab" for p in write_images(tmp_path / name, 2)]
    shutil.copy(paths[0], tmp_path / long)
    rows = Assignment([*paths, str(tmp_path / long)], np.array([0, 0, 0, 12345, 0]))
    (tmp_path / "folders").mkdir()  # an empty folder is fine
    write_folders(tmp_path / "folders", rows)
    few, one = sorted((tmp_path / "folders").iterdir())
    assert (few.name, one.name) == ("cluster_00000", "cluster_12345")
    links = sorted(few.iterdir())
    assert [link.name for link in links[:3]] == [
        "000000_000.png",
        "000001_001.png",
        "000002_000.png",
    ]
    assert links[3].name.endswith("nnn.png")
    assert [str(link.resolve()) for link in links] == [*paths[:3], str(tmp_path / long)]
    with pytest.raises(InputError, match="is there already; give a new folder or an empty one"):
        write_folders(tmp_path / "folders", rows)
    write_folders(tmp_path / "none", Assignment([], np.empty(0, np.int64)))
    assert list((tmp_path / "none").iterdir()) == []


def test_links_to_relative_paths_work_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_images(tmp_path / "images", 1)
    monkeypatch.chdir(tmp_path)
    write_folders(Path("folders"), Assignment(["images/000.png"], np.array([0])))
    monkeypatch.chdir("/")
    assert (tmp_path / "folders" / "cluster_0000" / "000000_000.png").resolve() == path
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir("here")
    with pytest.raises(InputError, match="is the folder that you are in"):
        write_folders(Path(), Assignment([], np.empty(0, np.int64)))


def test_two_processes_give_the_result_of_one(
    server: Server, tree: Path, released: Path, tmp_path: Path
) -> None:
    """The same processes also run cluster_features.py, to save time."""
    (tree / "b" / "004.png").write_bytes(b"no image")
    (tree / "c" / "009.png").unlink()
    saved = tmp_path / "clusters.pth"
    run(released, tree, "--recluster", 3, "--out", tmp_path / "one.csv", "--save-clusters", saved)
    features, truth = make_blobs(501, 40, centers=8, random_state=0)
    np.save(tmp_path / "features.npy", features)
    features[470] = np.nan
    np.save(tmp_path / "broken.npy", features)

    script = ROOT / "tests" / "sharded_assigning.py"
    output = server.run_script(script, [tmp_path], tmp_path / "run")
    assert "1 of 39 images left out: unreadable\n" in output
    assert output.count("written to") == 2, "each script says it once"
    one, two = read_csv(tmp_path / "one.csv"), read_csv(tmp_path / "two.csv")
    assert len(two) == 38
    for row, other in zip(one, two, strict=True):
        assert (other["path"], other["cluster"]) == (row["path"], row["cluster"])
        assert float(other["distance"]) == pytest.approx(float(row["distance"]), abs=2e-3)
    assert adjusted_rand_score(truth, np.load(tmp_path / "assignment.npy")) == 1
    error = f"{tmp_path}/broken.npy: row 470 is not finite (NaN, infinite or too large)"
    assert [(tmp_path / f"error_{rank}.txt").read_text() for rank in range(2)] == [error] * 2

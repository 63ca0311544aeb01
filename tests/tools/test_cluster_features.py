"""Features of any origin → clusters, through the files."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from arrays import correlated
from safetensors.numpy import save_file
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import normalize

from checkpoints.clusters import load_clusters
from clustering import Kmeans
from system import cli
from system.errors import InputError
from system.names import to_lines
from tools import cluster_features

CPU = "--device cpu"


def run(*rest: object) -> None:
    cluster_features.main(cluster_features.parse_args([*map(str, rest), *CPU.split()]))


@pytest.fixture
def blobs(tmp_path: Path) -> np.ndarray:
    """The true cluster of each row of `blobs.npy` `(300, 20) float64`: one of eight."""
    x, truth = make_blobs(300, 20, centers=8, random_state=0)
    np.save(tmp_path / "blobs.npy", x)
    return truth


def read_csv(path: Path) -> list[tuple[str, int]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "cluster"]
    return [(name, int(cluster)) for name, cluster in rows]


def save_npy(path: Path, x: np.ndarray) -> Path:
    np.save(path.with_suffix(".npy"), x)
    return path.with_suffix(".npy")


def save_columns(path: Path, x: np.ndarray) -> Path:
    return save_npy(path, np.asfortranarray(x))


def save_safetensors(path: Path, x: np.ndarray) -> Path:
    save_file({"anything": x}, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def save_safetensors_with_more(path: Path, x: np.ndarray) -> Path:
    save_file({"labels": x[:, 0].copy(), "features": x}, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    "save", [save_npy, save_columns, save_safetensors, save_safetensors_with_more]
)
def test_every_kind_of_file_is_clustered_as_the_array_is(
    save: Callable[[Path, np.ndarray], Path], dtype: type, tmp_path: Path
) -> None:
    x: np.ndarray = correlated(200, 30).astype(dtype)
    run(save(tmp_path / "x", x), "--k", 7, "--seed", 3, "--out", tmp_path / "out.npy")
    kmeans = Kmeans(7, seed=3, device=torch.device("cpu"))
    kmeans.cluster(x)
    found = np.load(tmp_path / "out.npy", allow_pickle=False)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, kmeans.assignments)


@pytest.mark.parametrize("flags", ["--k 8 --kmeans_init kmeans++", "--clustering PIC --sigma 1"])
def test_clear_clusters_are_found(flags: str, blobs: np.ndarray, tmp_path: Path) -> None:
    run(tmp_path / "blobs.npy", *flags.split(), "--pca", 5, "--out", tmp_path / "out.npy")
    found = np.load(tmp_path / "out.npy")
    if "PIC" in flags:  # it may split, but not mix
        assert all(len(set(blobs[found == cluster])) == 1 for cluster in set(found))
    else:
        assert adjusted_rand_score(blobs, found) == 1


def test_the_loss_is_that_of_scikit_learn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After its PCA-whitening and normalisation, k-means that begins with these clusters' means;
    to half a percent, since that is a step further."""
    x = correlated(600, 40)
    np.save(tmp_path / "x.npy", x)
    saved = tmp_path / "clusters.pth"
    run(
        tmp_path / "x.npy", "--k", 6, "--pca", 10, "--out", tmp_path / "out.npy",
        "--save-clusters", saved,
    )  # fmt: skip
    shown = capsys.readouterr().out.splitlines()
    white = normalize(PCA(10, whiten=True, svd_solver="full").fit_transform(x))
    found = np.load(tmp_path / "out.npy")
    means = np.array([white[found == cluster].mean(axis=0) for cluster in range(6)])
    reference = KMeans(6, init=means, n_init=1, max_iter=1).fit(white)
    loss = float(shown[0].split("loss ")[1].split(",")[0])
    assert loss == pytest.approx(reference.inertia_, rel=0.005)
    sizes = np.bincount(found)
    assert shown[0].startswith(
        f"6 of 6 clusters not empty, sizes {sizes.min()} to {sizes.max()}, median "
        f"{np.median(sizes):g}, loss "
    )
    assert shown[1:] == [f"written to {tmp_path}/out.npy", f"written to {saved}"]

    clusters = load_clusters(saved, 40, "", 32)
    nearest, distances = clusters.assign(x)
    np.testing.assert_array_equal(nearest, found)
    own = (x - clusters.whitening.mean) @ clusters.whitening.matrix.astype(np.float64)
    every = cdist(normalize(own), clusters.centroids)
    np.testing.assert_allclose(distances, every.min(axis=1), atol=1e-5)


def test_without_a_pca_the_rows_are_taken_as_they_are(blobs: np.ndarray, tmp_path: Path) -> None:
    x = np.load(tmp_path / "blobs.npy")
    flags = ["--k", 8, "--kmeans_init", "kmeans++", "--no-pca"]
    run(tmp_path / "blobs.npy", *flags, "--out", tmp_path / "out.npy")
    found = np.load(tmp_path / "out.npy")
    assert adjusted_rand_score(blobs, found) == 1
    means = np.array([x[found == cluster].mean(axis=0) for cluster in range(8)])
    np.testing.assert_array_equal(cdist(x, means).argmin(axis=1), found)


def test_rows_have_names_in_a_table(blobs: np.ndarray, tmp_path: Path) -> None:
    names = [f"images/{number}, {number}.png" for number in range(298)]
    names += ["two\nlines.png", "caf\udce9.png"]
    text = to_lines(names)
    (tmp_path / "images.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    flags = [tmp_path / "blobs.npy", "--k", 8]
    run(*flags, "--out", tmp_path / "out.npy")
    for ending in ("csv", "parquet"):
        out = tmp_path / f"out.{ending}"
        run(*flags, "--names", tmp_path / "images.txt", "--out", out)
    found = np.load(tmp_path / "out.npy").tolist()
    assert read_csv(tmp_path / "out.csv") == list(zip(names, found, strict=True))
    columns = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert columns == {"path": [*names[:-1], "caf\\xe9.png"], "cluster": found}


def test_the_array_goes_where_one_is_unless_told_otherwise(
    blobs: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run("../blobs.npy", "--k", 8)
    assert [path.name for path in Path().iterdir()] == ["assignment.npy"]


BAD = {
    "x.npy --k 21": "--nmb_cluster 21: more clusters than the 20 rows of {}/x.npy; give 20 at most",
    "x.npy": "--nmb_cluster 10000: more clusters than the 20 rows of {}/x.npy",
    "x.npy --clustering PIC --nnn 20": "--nnn 20: each has only 19 neighbours among the 20 rows of",
    "none.npy --k 2": "{}/none.npy: cannot read these features: No such file or directory",
    "x.txt --k 2": "{}/x.txt: give features in a file that ends in .npy or .safetensors",
    "cube.npy --k 2": "{}/cube.npy: holds an array of shape (4, 3, 2); give (N, D), a row for each",
    "row.npy --k 2": "{}/row.npy: holds an array of shape (20,); give (N, D)",
    "whole.npy --k 2": "{}/whole.npy: holds int64; give float16, float32 or float64",
    "swapped.npy --k 2": "{}/swapped.npy: holds >f4; give float16, float32 or float64",
    "pickled.npy --k 2": "{}/pickled.npy: cannot read these features: ",
    "empty.npy --k 2": "{}/empty.npy: cannot read these features: ",
    "cut.npy --k 2": "{}/cut.npy: cannot read these features: ",
    "text.npy --k 2": "{}/text.npy: cannot read these features: ",
    "text.safetensors --k 2": "{}/text.safetensors: cannot read these features: ",
    "two.safetensors --k 2": "{}/two.safetensors: holds a, b; give a file with one tensor, or one",
    "bf16.safetensors --k 2": "{}/bf16.safetensors: holds BF16; give float16, float32 or float64",
    "nan.npy --k 2": "{}/nan.npy: row 13 is not finite (NaN, infinite or too large)",
    "large.npy --k 2": "{}/large.npy: row 7 is not finite (NaN, infinite or too large)",
    "x.npy --k 2 --pca 0": "argument --pca: '0' is not a whole number of 1 or more",
    "x.npy --k 2 --out {}/a.csv": "--out {}/a.csv: --names and a table (.csv or .parquet) go",
    "x.npy --k 2 --names {}/short.txt": "--out assignment.npy: --names and a table (.csv or",
    "x.npy --k 2 --out {}/a.csv --names {}/short.txt": "short.txt: has 2 lines for 20 rows",
    "x.npy --k 2 --out {}/a.csv --names {}/no.txt": "--names {}/no.txt: cannot read it: No such",
    "x.npy --k 2 --out {}/x.npy": "--out {}/x.npy: is read, too; give another",
    "x.npy --k 2 --out {}/no/a.npy": "--out {}/no/a.npy: cannot write there: No such file",
    "x.npy --k 2 --no-pca --save-clusters {}/a.pth": "{}/a.pth: assign.py needs clusters of",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    x = correlated(20, 6).astype(np.float32)
    nan, large = x.copy(), x.astype(np.float64)
    nan[13, 2], large[7, 5] = np.nan, 1e39
    for name, array in (
        ("x", x), ("cube", x[:4].reshape(4, 3, 2)), ("row", x[:, 0]), ("nan", nan),
        ("whole", x.astype(np.int64)), ("swapped", x.astype(">f4")), ("large", large),
    ):  # fmt: skip
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "pickled.npy", np.array([{}, {}]), allow_pickle=True)
    shutil.copy(tmp_path / "x.npy", tmp_path / "x.txt")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:300])
    (tmp_path / "empty.npy").touch()
    for name in ("text.npy", "text.safetensors", "short.txt"):
        (tmp_path / name).write_text("no\nfeatures\n")
    save_file({"a": x, "b": x}, tmp_path / "two.safetensors")
    header = b'{"x":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}'
    (tmp_path / "bf16.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + b"\0" * 8
    )
    before = sorted(tmp_path.iterdir())
    words = f"{tmp_path}/{command}".replace("{}", str(tmp_path)).split()
    try:
        status = cli.run(cluster_features.main, cluster_features.parse_args, [*words, *CPU.split()])
    except SystemExit as stop:
        status = int(stop.code or 0)
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert BAD[command].replace("{}", str(tmp_path)) in line
    assert sorted(tmp_path.iterdir()) == before


def test_features_that_cannot_be_whitened_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", correlated(30, 4) * 1e30)
    with pytest.raises(InputError, match=r"x.npy: features: too large for products in float32"):
        run(tmp_path / "x.npy", "--k", 2, "--out", tmp_path / "out.npy")

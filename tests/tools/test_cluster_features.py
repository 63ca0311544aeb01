"""Features from a file → clusters."""

import csv
import io
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from arrays import correlated
from conftest import ErrorLine
from old_numpy import array_pickle, rows_pickle
from safetensors.numpy import save
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.preprocessing import normalize

from checkpoints.clusters import load_clusters
from cluster.whitening import Whitening
from clustering import Kmeans
from features import row_file
from system.errors import InputError
from system.names import to_lines
from tools import cluster_features

CPU = "--device cpu"


def run(*rest: object) -> None:
    cluster_features.main(cluster_features.parse_args([*map(str, rest), *CPU.split()]))


@pytest.fixture
def blobs(tmp_path: Path) -> np.ndarray:
    """The true cluster, of eight, of each row of `blobs.npy` `(300, 20) float64`."""
    x, truth = make_blobs(300, 20, centers=8, random_state=0)
    np.save(tmp_path / "blobs.npy", x)
    return truth


def read_csv(path: Path) -> list[tuple[str, int]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "cluster"]
    return [(name, int(cluster)) for name, cluster in rows]


def to_npy(x: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, x)
    return file.getvalue()


PICKLES: dict[str, Callable[[np.ndarray], bytes]] = {
    "array.pkl": pickle.dumps,
    "rows.pkl": lambda x: pickle.dumps([row.copy() for row in x]),
    "array of Python 2.pkl": array_pickle,
    "rows of Python 2.pickle": rows_pickle,
}
FILES: dict[str, Callable[[np.ndarray], bytes]] = {
    "array.npy": to_npy,
    "columns.npy": lambda x: to_npy(np.asfortranarray(x)),
    "one.safetensors": lambda x: save({"anything": x}),
    "two.safetensors": lambda x: save({"labels": x[:, 0].copy(), "features": x}),
    **PICKLES,
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", FILES)
def test_every_file_format_gives_the_clusters_of_the_array(
    name: str, dtype: type, tmp_path: Path
) -> None:
    x: np.ndarray = correlated(200, 30).astype(dtype)
    (tmp_path / name).write_bytes(FILES[name](x))
    run(tmp_path / name, "--k", 7, "--seed", 3, "--out", tmp_path / "out.npy")
    kmeans = Kmeans(7, seed=3, device=torch.device("cpu"), pca="auto")
    kmeans.cluster(x)
    found = np.load(tmp_path / "out.npy", allow_pickle=False)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, kmeans.assignments)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("form", [np.asarray, np.asfortranarray, list, tuple])
def test_every_pickle_protocol_gives_rows_that_torch_takes_without_a_warning(
    form: Callable[[np.ndarray], object], protocol: int, tmp_path: Path
) -> None:
    x = correlated(60, 30)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(form(x), protocol))
    count, rows = row_file.read_rows(tmp_path / "x.pkl")
    assert (count, rows.dtype) == (60, np.float32)
    np.testing.assert_array_equal(torch.from_numpy(rows).numpy(), x)


@pytest.mark.parametrize("name", PICKLES)
def test_a_process_keeps_only_its_share_of_a_pickle(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = correlated(50, 30)
    path = tmp_path / name
    path.write_bytes(PICKLES[name](x))
    for share in (range(10, 30), range(50, 50)):
        monkeypatch.setattr(row_file, "shard_of", {50: share}.get)
        count, rows = row_file.read_rows(path)
        assert count == 50
        assert rows.base is None, "the other rows stay in memory"
        np.testing.assert_array_equal(rows, x[share.start : share.stop])


def test_a_repeated_row_does_not_fill_the_memory(tmp_path: Path) -> None:
    """The file has 32 kB, and its array would take 128 MB."""
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps([np.zeros(2000)] * 8000))
    assert path.stat().st_size < 40_000
    with pytest.raises(InputError, match=r"holds rows of shape \(8000, 2000\), too many for"):
        row_file.read_rows(path)


@pytest.mark.parametrize("flags", ["--k 8 --kmeans_init kmeans++", "--clustering PIC --sigma 1"])
def test_clear_clusters_are_found(flags: str, blobs: np.ndarray, tmp_path: Path) -> None:
    run(tmp_path / "blobs.npy", *flags.split(), "--pca", 5, "--out", tmp_path / "out.npy")
    found = np.load(tmp_path / "out.npy")
    if "PIC" in flags:  # which may split clusters, but not mix them
        assert all(len(set(blobs[found == cluster])) == 1 for cluster in set(found))
    else:
        assert adjusted_rand_score(blobs, found) == 1


def test_the_loss_equals_scikit_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """scikit-learn's k-means starts from these clusters' means, after its PCA-whitening; it is one
    step further, so that the losses differ by up to half a percent."""
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
    silhouette, stability = map(float, re.findall(r"[\d.]+", shown[1]))
    assert shown[1] == f"silhouette {silhouette:.3f}, stability {stability:.3f}"
    assert silhouette == pytest.approx(silhouette_score(white, found), abs=0.001)
    assert shown[2:] == [f"written to {tmp_path}/out.npy", f"written to {saved}"]

    clusters = load_clusters(saved, 40, "", 32)
    assert isinstance(clusters.whitening, Whitening)
    nearest, distances = clusters.assign(x)
    np.testing.assert_array_equal(nearest, found)
    own = (x - clusters.whitening.mean) @ clusters.whitening.matrix.astype(np.float64)
    every = cdist(normalize(own), clusters.centroids)
    np.testing.assert_allclose(distances, every.min(axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("flags", "components", "remark"),
    [
        ([], 16, "whitened to 16 dimensions: 600 rows are too few for 256"),
        (["--dim_pca", "20"], 20, ""),
        (["--pca", "31"], 31, "clusters of 600 rows whitened to 31 dimensions tend to noise"),
        (["--dim_pca", "0"], 0, ""),
    ],
)
def test_the_dimensions_suit_the_number_of_rows_or_are_given(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    components: int,
    remark: str,
) -> None:
    np.save(tmp_path / "x.npy", correlated(600, 40))
    saved = tmp_path / "clusters.pth"
    run(tmp_path / "x.npy", "--k", 6, *flags, "--out", tmp_path / "a.npy", "--save-clusters", saved)
    shown = capsys.readouterr().out
    assert (remark in shown) if remark else shown.startswith("6 of 6 clusters")
    assert load_clusters(saved, 40, "", 32).whitening.components == components


def test_without_a_pca_the_rows_are_clustered_unchanged(blobs: np.ndarray, tmp_path: Path) -> None:
    x = np.load(tmp_path / "blobs.npy")
    flags = ["--k", 8, "--kmeans_init", "kmeans++", "--no-pca"]
    run(tmp_path / "blobs.npy", *flags, "--out", tmp_path / "out.npy")
    found = np.load(tmp_path / "out.npy")
    assert adjusted_rand_score(blobs, found) == 1
    means = np.array([x[found == cluster].mean(axis=0) for cluster in range(8)])
    np.testing.assert_array_equal(cdist(x, means).argmin(axis=1), found)


def test_a_table_has_the_names_of_the_rows(blobs: np.ndarray, tmp_path: Path) -> None:
    names = [f"images/{number}, {number}.png" for number in range(298)]
    names += ["\\back\\nslash.png", "caf\udce9.png"]
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


def test_folders_in_the_names_are_labels(
    blobs: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"kind {truth}/{number}.png" for number, truth in enumerate(blobs)]
    (tmp_path / "images.txt").write_text(to_lines(names))
    flags = [tmp_path / "blobs.npy", "--k", 8, "--kmeans_init", "kmeans++", "--pca", 5]
    run(*flags, "--names", tmp_path / "images.txt", "--out", tmp_path / "out.csv")
    agreement = "NMI to the labels 1.000, ACC 1.000, ARI 1.000, AMI 1.000, purity 1.000"
    assert agreement in capsys.readouterr().out.splitlines()
    (tmp_path / "flat.txt").write_text(to_lines([f"{number}.png" for number in range(300)]))
    run(*flags, "--names", tmp_path / "flat.txt", "--out", tmp_path / "flat.csv")
    assert "NMI" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["x/{0}.tar/{0}/{1}.jpg", "{0}.parquet/{1} (old/x.png)"])
def test_folders_in_the_names_of_containers_are_no_labels(
    blobs: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """The same class is in many shards, and may be in a `.cls` or a column."""
    names = [name.format(truth, number) for number, truth in enumerate(blobs)]
    (tmp_path / "images.txt").write_text(to_lines(names))
    flags = [tmp_path / "blobs.npy", "--k", 8, "--names", tmp_path / "images.txt"]
    run(*flags, "--out", tmp_path / "out.csv")
    assert "NMI" not in capsys.readouterr().out
    lines = [f'"{name}",{truth}' for name, truth in zip(names, blobs, strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    run(*flags, "--out", tmp_path / "out.csv", "--labels", tmp_path / "labels.csv")
    assert "NMI to the labels" in capsys.readouterr().out


def test_labels_of_a_table_by_the_names(
    blobs: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"flat/{number}.png" for number in range(300)]
    (tmp_path / "images.txt").write_text(to_lines(names))
    lines = [f"{name},kind {truth}" for name, truth in zip(names, blobs, strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    flags = [tmp_path / "blobs.npy", "--k", 8, "--kmeans_init", "kmeans++", "--pca", 5]
    flags += ["--names", tmp_path / "images.txt", "--labels", tmp_path / "labels.csv"]
    run(*flags, "--out", tmp_path / "out.csv")
    assert "NMI to the labels 1.000" in capsys.readouterr().out


def test_the_default_output_is_an_array_in_the_current_folder(
    blobs: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run("../blobs.npy", "--k", 8)
    assert [path.name for path in Path().iterdir()] == ["assignment.npy"]


BAD = {
    "x.npy --k 21": "--k 21: more clusters than the 20 rows of {}/x.npy; give 20 at most",
    "x.npy": "--k 10000: more clusters than the 20 rows of {}/x.npy",
    "x.npy --clustering PIC --nnn 20": "--nnn 20: each has only 19 neighbours among the 20 rows of",
    "none.npy --k 2": "{}/none.npy: cannot read these features: No such file or directory",
    "x.txt --k 2": "{}/x.txt: give a file whose name ends in .npy or .safetensors or .pkl or",
    "cube.npy --k 2": "{}/cube.npy: holds an array of shape (4, 3, 2); give (N, D)",
    "whole.npy --k 2": "{}/whole.npy: holds int64; give float16, float32 or float64",
    "swapped.npy --k 2": "{}/swapped.npy: holds >f4; give float16, float32 or float64",
    "pickled.npy --k 2": "{}/pickled.npy: cannot read these features: ",
    "cut.npy --k 2": "{}/cut.npy: cannot read these features: ",
    "text.safetensors --k 2": "{}/text.safetensors: cannot read these features: ",
    "two.safetensors --k 2": "{}/two.safetensors: holds a, b; give one tensor, or one named",
    "bf16.safetensors --k 2": "{}/bf16.safetensors: holds BF16; give float16, float32 or float64",
    "none.pkl --k 2": "{}/none.pkl: cannot read this feature file: No such file or directory",
    "cube.pkl --k 2": "{}/cube.pkl: holds an array of shape (4, 3, 2); give (N, D)",
    "number.pkl --k 2": "{}/number.pkl: holds 7; give an array (N, D), or a list of N arrays (D,)",
    "empty.pkl --k 2": "{}/empty.pkl: holds []; give an array (N, D), or a list of N arrays (D,)",
    "dict.pkl --k 2": "{}/dict.pkl: holds {'features': array([0.])}; give an array (N, D), or a",
    "ragged.pkl --k 2": "{}/ragged.pkl: row 1 is an array of float32 and shape (5,); give arrays",
    "mixed.pkl --k 2": "{}/mixed.pkl: row 1 is an array of float64 and shape (6,); give arrays "
    "(D,) of one type and length",
    "pairs.pkl --k 2": "{}/pairs.pkl: row 0 is ('a.jpg', array([",
    "call.pkl --k 2": "{}/call.pkl: not a feature file, or a damaged one: it refers to "
    f"{os.system.__module__}.system",
    "cut.pkl --k 2": "{}/cut.pkl: not a feature file, or a damaged one: pickle data was truncated",
    "nan.pkl --k 2": "{}/nan.pkl: row 13 is not finite (NaN, infinite or too large)",
    "nan.npy --k 2": "{}/nan.npy: row 13 is not finite (NaN, infinite or too large)",
    "large.npy --k 2": "{}/large.npy: row 7 is not finite (NaN, infinite or too large)",
    "x.npy --k 2 --pca -1": "argument --dim_pca/--pca: '-1': give auto, 0 or a number",
    "x.npy --k 2 --pca 5 --no-pca": "argument --no-pca: not allowed with argument --dim_pca/--pca",
    "x.npy --k 2 --out {}/a.csv": "--out {}/a.csv: --names and a table (.csv or .parquet) go",
    "x.npy --k 2 --names {}/short.txt": "--out assignment.npy: --names and a table (.csv or",
    "x.npy --k 2 --out {}/a.csv --names {}/short.txt": "short.txt: has 2 lines for 20 rows",
    "x.npy --k 2 --out {}/a.csv --names {}/no.txt": "--names {}/no.txt: cannot read it: No such",
    "x.npy --k 2 --labels {}/l.csv": "--labels {}/l.csv: goes with --names",
    "x.npy --k 2 --out {}/x.npy": "--out {}/x.npy: is read, too; give another",
    "x.npy --k 2 --out {}/no/a.npy": "--out {}/no/a.npy: cannot write there: No such file",
    "x.npy --k 2 --no-pca --save-clusters {}/a.pth": "{}/a.pth: assign.py needs clusters of",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(
    command: str,
    tmp_path: Path,
    error_line: ErrorLine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    x = correlated(20, 6).astype(np.float32)
    nan, large = x.copy(), x.astype(np.float64)
    nan[13, 2], large[7, 5] = np.nan, 1e39
    for name, array in (
        ("x", x), ("cube", x[:4].reshape(4, 3, 2)), ("nan", nan),
        ("whole", x.astype(np.int64)), ("swapped", x.astype(">f4")), ("large", large),
    ):  # fmt: skip
        np.save(tmp_path / f"{name}.npy", array)
    np.save(tmp_path / "pickled.npy", np.array([{}, {}]), allow_pickle=True)
    shutil.copy(tmp_path / "x.npy", tmp_path / "x.txt")
    for name, content in (
        ("cube", x[:4].reshape(4, 3, 2)), ("number", 7),
        ("empty", []), ("nan", nan), ("pairs", [("a.jpg", x[0])]),
        ("dict", {"features": np.zeros(1)}), ("ragged", [x[0], x[0, :5]]), ("call", [os.system]),
        ("mixed", [x[0], np.zeros(6)]),
    ):  # fmt: skip
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(content))
    (tmp_path / "cut.pkl").write_bytes((tmp_path / "nan.pkl").read_bytes()[:300])
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:300])
    for name in ("text.safetensors", "short.txt"):
        (tmp_path / name).write_text("no\nfeatures\n")
    (tmp_path / "two.safetensors").write_bytes(save({"a": x, "b": x}))
    header = b'{"x":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}'
    (tmp_path / "bf16.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + b"\0" * 8
    )
    before = sorted(tmp_path.iterdir())
    words = f"{tmp_path}/{command}".replace("{}", str(tmp_path)).split()
    error = error_line(cluster_features, *words, *CPU.split())
    assert BAD[command].replace("{}", str(tmp_path)) in error
    assert sorted(tmp_path.iterdir()) == before


def test_features_that_cannot_be_whitened_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", correlated(30, 4) * 1e30)
    with pytest.raises(InputError, match=r"x.npy: features: too large for products in float32"):
        run(tmp_path / "x.npy", "--k", 2, "--out", tmp_path / "out.npy")

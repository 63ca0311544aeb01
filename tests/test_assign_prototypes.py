"""The prototypes of SwAV and DeepCluster-v2 as clusters: of new images (`assign.py --prototypes`),
and of a run's own."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ErrorLine, read_file, tiny, write_images

import assign
from checkpoints.checkpoint import load_model, read_checkpoint, save_checkpoint
from data.decode import read_image
from data.transforms import central_crop
from models import MODELS
from tools import export_clusters

Train = Callable[..., Path]

FLAGS = "--workers 0 --device cpu --precision fp32"
CROPS = "--nmb_crops 2 --size_crops 32 --min_scale_crops 0.4 --max_scale_crops 1"
METHODS = {
    "swav": f"--method swav {CROPS} --hidden_mlp 8 --feat_dim 6",
    "deepclusterv2": f"--method deepclusterv2 {CROPS} --hidden_mlp 8 --feat_dim 6",
}


def scores_by_hand(model_path: Path, images: list[Path]) -> np.ndarray:
    """Cosines `(M, K) float64` of the images' embeddings with the first head's prototypes, from the
    weights in the file; everything in eval mode."""
    model = load_model(model_path).eval().double()
    model.top_layer = None
    heads = {name: weight.double() for name, weight in read_checkpoint(model_path)["heads"].items()}
    prototypes = next(weight for name, weight in heads.items() if name.startswith("prototypes"))
    pixels = torch.stack([central_crop(32)(read_file(read_image, path)) for path in images])
    shape = (3, 1, 1)
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(shape)
    std = torch.tensor([0.228, 0.224, 0.225], dtype=torch.float64).view(shape)
    with torch.no_grad():
        x = model((pixels.double() / 255 - mean) / std)
    hidden = x @ heads["projection_head.0.weight"].T + heads["projection_head.0.bias"]
    hidden = (hidden - heads["projection_head.1.running_mean"]) / (
        heads["projection_head.1.running_var"] + 1e-5
    ).sqrt()
    hidden = hidden * heads["projection_head.1.weight"] + heads["projection_head.1.bias"]
    found = hidden.relu() @ heads["projection_head.3.weight"].T + heads["projection_head.3.bias"]
    cosines = torch.nn.functional.normalize(found) @ torch.nn.functional.normalize(prototypes).T
    return cosines.numpy()


@pytest.mark.parametrize("method", list(METHODS))
def test_an_image_goes_to_the_prototype_of_the_largest_score(
    method: str, tree: Path, train: Train, tmp_path: Path
) -> None:
    model = train(tree, *METHODS[method].split()) / "checkpoint.pth.tar"
    images = [
        path
        for seed in range(12)
        for path in write_images(tmp_path / "new" / f"{seed:02d}", 1, seed)
    ]
    out = tmp_path / "new.csv"
    command = [str(model), str(tmp_path / "new"), "--prototypes", "--out", str(out)]
    assign.main(assign.parse_args([*command, *FLAGS.split()]))
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == list(map(str, images))
    scores = scores_by_hand(model, images)
    found = np.array([int(row["cluster"]) for row in rows])
    # an image between two prototypes may go to either
    np.testing.assert_allclose(scores[range(12), found], scores.max(axis=1), atol=1e-5)
    distances = [float(row["distance"]) for row in rows]
    np.testing.assert_allclose(distances, np.sqrt(2 - 2 * scores.max(axis=1)), atol=1e-2)


@pytest.mark.parametrize("method", list(METHODS))
def test_a_finished_run_has_its_own_images_prototypes(
    method: str, tree: Path, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.unreadable.MOST_UNREADABLE", 0.1)
    (tree / "b" / "007.png").write_bytes(b"no image")
    exp = train(tree, *METHODS[method].split())
    images = [tree / name for name in (exp / "images.txt").read_text().splitlines()]
    found = np.load(exp / "assignments" / "prototypes.npy")
    assert (found.shape, found.dtype) == ((40,), np.int64)
    assert np.flatnonzero(found == -1).tolist() == [17], "images.txt has it, b/007.png"
    kept = np.flatnonzero(found >= 0)
    scores = scores_by_hand(exp / "checkpoint.pth.tar", [images[row] for row in kept])
    # features are kept in half precision
    np.testing.assert_allclose(scores[range(39), found[kept]], scores.max(axis=1), atol=2e-3)
    assert "its clusters by prototypes: " in (exp / "log.txt").read_text()
    out = tmp_path / "a.csv"
    for chosen, name in (("--prototypes", "prototypes.npy"), ("--epoch=0", "epoch_0000.npy")):
        command = [str(exp), chosen, "--out", str(out)]
        export_clusters.main(export_clusters.parse_args(command))
        clusters = np.load(exp / "assignments" / name)
        with out.open(newline="") as file:
            rows = [(row["path"], int(row["cluster"])) for row in csv.DictReader(file)]
        expected = np.flatnonzero(clusters >= 0)
        assert rows == [(str(images[row]), clusters[row]) for row in expected]


def test_runs_without_prototypes_are_one_line(trained: Path, error_line: ErrorLine) -> None:
    line = error_line(export_clusters, trained, "--prototypes")
    assert "prototypes.npy does not exist; only a finished run of SwAV or DeepCluster-v2" in line
    line = error_line(export_clusters, trained, "--prototypes", "--epoch", "1")
    assert "--epoch: not allowed with argument --prototypes" in line
    line = error_line(export_clusters, trained / "checkpoints", "--prototypes")
    assert "not the experiment folder of a run: it has no images.txt" in line


def test_bad_input_is_one_line(
    tree: Path, tmp_path: Path, error_line: ErrorLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    torch.manual_seed(0)
    state = {"epoch": 5, "arch": "tiny", "state_dict": tiny(out=4).state_dict()}
    state = {**state, "settings": {"size": 32}}
    narrow = {
        "projection_head.weight": torch.zeros(6, 31),
        "projection_head.bias": torch.zeros(6),
        "prototypes.weight": torch.zeros(4, 6),
    }
    for name, heads in (("none", {}), ("narrow", {"heads": narrow}), ("odd", {"heads": {"a": 1}})):
        save_checkpoint(tmp_path / f"{name}.pth.tar", {**state, **heads})
    wide = {**narrow, "projection_head.weight": torch.zeros(6, 32)}
    save_checkpoint(tmp_path / "good.pth.tar", {**state, "heads": wide})

    def error(name: str, *more: str) -> str:
        path = tmp_path / f"{name}.pth.tar"
        return error_line(assign, path, tree, "--prototypes", *more, *FLAGS.split())

    assert "none.pth.tar: holds no prototypes; only SwAV and DeepCluster-v2" in error("none")
    assert "narrow.pth.tar: its heads take features of 31 dimensions; the network's have 32" in (
        error("narrow")
    )
    assert "odd.pth.tar: not the heads of SwAV or DeepCluster-v2" in error("odd")
    saved = str(tmp_path / "clusters.pth")
    line = error("good", "--save-clusters", saved)
    assert f"--save-clusters {saved}: keeps no --prototypes" in line
    assert "--recluster: not allowed with argument --prototypes" in error(
        "good", "--recluster", "3"
    )
    assert "--dim_pca 8: only --recluster whitens anew; add it" in error("good", "--dim_pca", "8")
    assert not Path(saved).exists()

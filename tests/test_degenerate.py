"""Identical images, more clusters than different images, and counts that don't divide evenly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_images
from PIL import Image
from runs import load_clusters, load_metrics

from checkpoints.checkpoint import load_model, read_checkpoint
from cluster.kmeans import INITIALISATIONS
from clustering import PIC, Kmeans, KmeansOptions
from data.loading import EpochBatches

Train = Callable[..., Path]
RNG = np.random.default_rng(0)
SAME: dict[str, np.ndarray] = {
    "few": np.full((37, 300), 3, np.float16),
    "many": np.full((701, 30), 3, np.float32),
    "nothing": np.zeros((37, 300), np.float32),
}


def repeated(kinds: int, count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` features of `kinds` different images, and the kind of each."""
    kind = np.arange(count) % kinds
    return RNG.standard_normal((kinds, dim)).astype(np.float32)[kind], kind


@pytest.mark.parametrize("init", list(INITIALISATIONS))
@pytest.mark.parametrize("name", list(SAME))
def test_kmeans_of_equal_features_finds_one_cluster(name: str, init: str) -> None:
    kmeans = Kmeans(7, options=KmeansOptions(init=init))
    assert kmeans.cluster(SAME[name]) == 0
    assert sorted(map(len, kmeans.images_lists)) == [0] * 6 + [len(SAME[name])]
    assert np.isfinite(kmeans.centroids).all()


@pytest.mark.parametrize("graph", ["exact", "approximate"])
@pytest.mark.parametrize("name", list(SAME))
def test_pic_of_equal_features_finds_one_cluster(name: str, graph: str) -> None:
    pic = PIC(graph=graph)
    assert pic.cluster(SAME[name]) == 0
    assert set(pic.assignments) == {0}
    assert np.isfinite(pic.centroids).all()


@pytest.mark.parametrize(("kinds", "count", "dim"), [(5, 37, 300), (5, 701, 30), (36, 37, 300)])
def test_with_more_clusters_than_kinds_of_images_each_cluster_holds_one_kind(
    kinds: int, count: int, dim: int
) -> None:
    features, kind = repeated(kinds, count, dim)
    kmeans = Kmeans(37, options=KmeansOptions(init="kmeans++"))
    assert kmeans.cluster(features) == pytest.approx(0, abs=1e-3 * count)
    lists = [members for members in kmeans.images_lists if members]
    assert len(lists) >= kinds
    assert all(len(set(kind[members])) == 1 for members in lists)
    pic = PIC(pca=256)
    pic.cluster(features)
    assert all(len(set(kind[members])) == 1 for members in pic.images_lists if count > 100)


@pytest.mark.parametrize("flags", ["--k 7 --reweight", "--clustering PIC --nnn 3"])
def test_a_run_on_copies_of_one_image(flags: str, tree: Path, train: Train) -> None:
    for path in tree.rglob("*.png"):
        Image.new("RGB", (40, 40), (200, 30, 90)).save(path)
    folder = train(
        tree, *flags.split(), "--epochs", "2", "--reassign", "1.3", "--probe", "1", report=True
    )
    for lists in load_clusters(folder):
        assert sorted(map(len, lists))[-1] == 40
    for line in load_metrics(folder):
        assert line["nonempty_clusters"] == 1
        assert line["nmi_labels"] == 0
        assert np.isfinite(line["convnet_loss"])
    model = load_model(folder / "checkpoint.pth.tar")
    assert all(weight.isfinite().all() for weight in model.state_dict().values())
    log = (folder / "log.txt").read_text()
    assert "the features are nearly the same for all images" in log
    assert "one cluster holds 100% of the images" in log
    assert (folder / "report.html").exists()


def test_a_run_with_more_clusters_than_different_images(tree: Path, train: Train) -> None:
    originals = sorted(tree.rglob("*.png"))[:3]
    for number, path in enumerate(sorted(tree.rglob("*.png"))):
        path.write_bytes(originals[number % 3].read_bytes())
    folder = train(tree, "--k", "11")
    (line,) = load_metrics(folder)
    assert line["clusters"] == 11
    assert line["nonempty_clusters"] < 11
    checkpoint = read_checkpoint(folder / "checkpoint.pth.tar")
    assert len(checkpoint["state_dict"]["top_layer.weight"]) == 11
    assert sum(map(len, load_clusters(folder)[0])) == 40


@pytest.mark.parametrize(("images", "batch", "reassign"), [(37, 7, 1.0), (9, 8, 3.7)])
def test_a_run_with_counts_that_do_not_divide(
    images: int, batch: int, reassign: float, tmp_path: Path, train: Train
) -> None:
    write_images(tmp_path / "images", images)
    folder = train(
        tmp_path / "images", "--batch", str(batch), "--reassign", str(reassign), "--k", "3"
    )
    (line,) = load_metrics(folder)
    assert line["iterations"] == -(-int(reassign * images) // batch)
    assert sum(map(len, load_clusters(folder)[0])) == images


@pytest.mark.parametrize(("images", "batch", "parts"), [(37, 7, 3), (1, 6, 4), (13, 4, 4)])
def test_the_processes_shares_make_up_the_batch(images: int, batch: int, parts: int) -> None:
    order = RNG.permutation(images)
    shares = [EpochBatches(batch, part, parts) for part in range(parts)]
    for share in shares:
        share.start_epoch(0, order)
    drawn = [
        sorted((draw.position, draw.image) for part in step for draw in part)
        for step in zip(*shares, strict=True)
    ]
    whole = np.split(order, range(batch, images, batch))
    assert [len(step) for step in drawn] == [len(part) for part in whole]
    assert [image for step in drawn for _, image in step] == order.tolist()

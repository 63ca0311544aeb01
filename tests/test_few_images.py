"""The dimensions of the whitening, from the flags of a run to every reader of its clusters."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_images
from runs import assert_same_weights

import assign
import extract_features
import hubconf
from checkpoints.checkpoint import load_model
from training.finished_run import read_run
from visu import clusters, feature_map
from visu.report_page import describe_run

Train = Callable[..., Path]
CPU = ["--device", "cpu", "--precision", "fp32", "--workers", "0"]


def checkpoint_of(folder: Path) -> dict[str, Any]:
    return dict(torch.load(folder / "checkpoint.pth.tar", weights_only=True))


@pytest.mark.parametrize(
    "flags",
    ["", "--dim_pca auto", "--dim_pca 5 --final_dim_pca 7", "--clustering PIC --sigma 1"],
)
def test_a_finished_run_that_goes_on_trains_as_if_it_had_not_been_finished(
    tree: Path, train: Train, flags: str
) -> None:
    """Its last clusters have other dimensions than those it trains on."""
    whole = train(tree, "--epochs", "3", *flags.split(), exp="whole")
    train(tree, "--epochs", "2", *flags.split())
    resumed = train(tree, "--epochs", "3", "--resume", str(whole.parent / "exp/checkpoint.pth.tar"))
    assert_same_weights(resumed / "checkpoint.pth.tar", whole / "checkpoint.pth.tar")
    for epoch in range(4):
        name = f"assignments/epoch_{epoch:04d}.npy"
        np.testing.assert_array_equal(np.load(resumed / name), np.load(whole / name))


@pytest.mark.parametrize("flags", ["--dim_pca auto", "--dim_pca 0"])
def test_a_run_resumed_within_an_epoch_ends_with_the_same_weights(
    tree: Path, train: Train, flags: str
) -> None:
    whole = train(tree, "--epochs", "2", "--checkpoints", "7", *flags.split(), exp="whole")
    midway = whole / "checkpoints" / "checkpoint_1.pth.tar"
    assert torch.load(midway, weights_only=True)["step"] == 2
    rest = train(tree, "--epochs", "2", "--resume", str(midway), exp="rest")
    assert_same_weights(rest / "checkpoint.pth.tar", whole / "checkpoint.pth.tar")


def test_the_report_counts_the_clusters_that_pic_found_for_the_finished_network(
    tree: Path, train: Train
) -> None:
    folder = train(tree, "--clustering", "PIC", "--sigma", "1")
    found = len(set(read_run(folder).assignment(1).tolist()))
    content = describe_run(read_run(folder), 10, 2, ())
    assert (str(found), f"of {found} clusters not empty") in content["overview"]


def test_a_resume_keeps_the_number_that_auto_chose(tree: Path, train: Train) -> None:
    before = train(tree, "--dim_pca", "auto")
    write_images(tree / "d", 60)  # of 100 images auto would take 8
    resume = ["--resume", str(before / "checkpoint.pth.tar"), "--dim_pca", "auto", "--epochs", "2"]
    after = train(tree, *resume, exp="after")
    for folder in (before, after):
        checkpoint = checkpoint_of(folder)
        assert (checkpoint["auto_dim"], checkpoint["settings"]["dim_pca"]) == (3, "auto")
    assert "dim_pca" not in (after / "log.txt").read_text()


def test_a_flag_of_a_resume_holds_from_the_next_clustering_on(tree: Path, train: Train) -> None:
    folder = train(tree)
    resume = ["--resume", str(folder / "checkpoint.pth.tar"), "--epochs", "2"]
    train(tree, *resume, "--dim_pca", "6", "--final_dim_pca", "6")
    assert checkpoint_of(folder)["clusters"]["centroids"].shape == (4, 6)
    assert checkpoint_of(folder)["settings"]["dim_pca"] == 6


def test_a_checkpoint_from_before_there_was_a_choice_trains_on_256(
    tree: Path, train: Train
) -> None:
    folder = train(tree)
    checkpoint = checkpoint_of(folder)
    for name in ("dim_pca", "final_dim_pca"):
        del checkpoint["settings"][name]
    torch.save(checkpoint, folder / "old.pth.tar")
    train(tree, "--resume", str(folder / "old.pth.tar"), "--epochs", "2", exp="resumed")
    whole = train(tree, "--epochs", "2", exp="whole")
    found = whole.parent / "resumed" / "checkpoint.pth.tar"
    assert_same_weights(found, whole / "checkpoint.pth.tar")


def test_every_reader_takes_clusters_without_a_pca(tree: Path, train: Train) -> None:
    folder = train(tree, "--final_dim_pca", "0")
    model, out = str(folder / "checkpoint.pth.tar"), folder.parent
    expected = read_run(folder).assignment(1)
    assert checkpoint_of(folder)["clusters"]["pca_matrix"] is None

    assign.main(assign.parse_args([model, str(tree), "--out", str(out / "own.csv"), *CPU]))
    lines = (out / "own.csv").read_text().splitlines()[1:]
    assert [int(line.split(",")[1]) for line in lines] == expected.tolist()

    to = ["--out", str(out / "features"), "--whiten", "checkpoint"]
    extract_features.main(extract_features.parse_args([model, str(tree), *to, *CPU]))
    rows = np.load(out / "features" / "features.npy").astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)
    centroids = checkpoint_of(folder)["clusters"]["centroids"].numpy()
    nearest = ((rows[:, None] - centroids) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(nearest, expected)

    feature_map.main(feature_map.parse_args([str(folder), *CPU]))
    assert (folder / "feature_map.html").exists()
    clusters.main(clusters.parse_args([str(folder), *CPU]))
    assert list(folder.glob("clusters_*"))


def test_the_docs_snippet_and_the_hub_take_clusters_without_a_pca(tree: Path, train: Train) -> None:
    folder = train(tree, "--final_dim_pca", "0")
    model = str(folder / "checkpoint.pth.tar")
    found = []
    for image in sorted(tree.rglob("*.png")):
        names = {"exp/001/checkpoint.pth.tar": model, "new.jpg": str(image), "(224)": "(32)"}
        found.append(int(run_snippet(names)["cluster"]))
    assert found == read_run(folder).assignment(1).tolist()

    weights = hubconf._entry_point("tiny")(model).state_dict()
    for name, weight in load_model(model).state_dict().items():
        assert torch.equal(weights[name], weight), name


def run_snippet(names: dict[str, str]) -> dict[str, Any]:
    """The variables of docs/clustering.md's program, with these names in place of its own."""
    page = (Path(__file__).parents[1] / "docs" / "clustering.md").read_text()
    (code,) = (
        part for part in re.findall(r"```python\n(.*?)```", page, re.S) if "pca_matrix" in part
    )
    for old, new in names.items():
        assert old in code
        code = code.replace(old, new)
    variables: dict[str, Any] = {}
    exec(code, variables)
    return variables

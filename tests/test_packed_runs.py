"""Runs of main.py and the scripts over tars, zips and Parquet files are those over image files."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import ErrorLine, write_images
from packed_files import GENERATIONS, pairs_of, write_as, write_table, write_tar, write_zip
from runs import (
    Server,
    assert_equal,
    contents_of,
    load_clusters,
    output_of,
    without_times,
)

import assign
import eval_knn
import eval_linear
import extract_features
from data.images import find_images
from tools import export_clusters
from training.finished_run import read_run
from visu import activ_retrieval, clusters, feature_map

CPU = ["--device", "cpu", "--precision", "fp32", "--workers", "0"]


def call(script: ModuleType, *command: object) -> None:
    script.main(script.parse_args([str(part) for part in command]))


def assert_same_run(one: Path, other: Path) -> None:
    """The same weights, clusters and metrics, bit for bit."""
    first, second = contents_of(one), contents_of(other)
    for checkpoint in (first, second):
        del checkpoint["settings"]["data"], checkpoint["images_digest"]
    assert_equal(first, second, "checkpoint")
    assert load_clusters(one) == load_clusters(other)
    assert without_times(one) == without_times(other)
    for path in sorted((one / "assignments").iterdir()):
        np.testing.assert_array_equal(np.load(path), np.load(other / "assignments" / path.name))


MORE = ["--epochs", "2", "--checkpoints", "5", "--no-report"]


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over image files that was never killed, with the files beside it."""
    folder = tmp_path_factory.mktemp("whole")
    for label in "ab":
        write_images(folder / "images" / label, 13, seed=ord(label))
    assert server.wait(server.start(folder / "images", folder, more=MORE)) == [0], output_of(folder)
    return folder


@pytest.mark.parametrize(
    "kind",
    ["list", "shards", "stored zip", "deflated zip", "Parquet 2.13", "Parquet 4.1", "Parquet 4.6"],
)
def test_a_run_killed_and_resumed_ends_like_one_over_files(
    server: Server, whole: Path, tmp_path: Path, kind: str
) -> None:
    """Two epochs, killed in the middle of the second one."""
    data = write_as(kind, whole / "images", tmp_path / "data")
    (process,) = server.start(data, tmp_path / "cut", more=MORE, pause_in=["training", 2])
    while not (tmp_path / "cut" / "paused").exists():
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    assert server.wait([process]) == [-signal.SIGKILL]
    (tmp_path / "cut" / "paused").unlink()
    resumed = server.start(data, tmp_path / "cut", more=MORE)
    assert server.wait(resumed) == [0], output_of(tmp_path / "cut")
    assert "resuming from" in (tmp_path / "cut" / "exp" / "log.txt").read_text()
    assert_same_run(whole / "exp", tmp_path / "cut" / "exp")


def test_two_processes_find_the_same_images(server: Server, tmp_path: Path) -> None:
    for label in "ab":
        write_images(tmp_path / "images" / label, 13, seed=ord(label))
    more = ["--epochs", "1", "--no-report"]
    kinds = ("list", "shards", "stored zip", "deflated zip", *(f"Parquet {g}" for g in GENERATIONS))
    for kind in ("folder", *kinds):
        data = write_as(kind, tmp_path / "images", tmp_path / "data")
        started = server.start(data, tmp_path / kind.replace(" ", ""), ranks=2, more=more)
        assert server.wait(started) == [0, 0], output_of(tmp_path / kind.replace(" ", ""))
        shutil.rmtree(tmp_path / "data")
    for kind in kinds:
        exp = tmp_path / kind.replace(" ", "") / "exp"
        assert_same_run(tmp_path / "folder" / "exp", exp)


def outputs(data: Path, exp: Path, found: Path) -> dict[str, bytes | np.ndarray]:
    """Outputs of the scripts that apply a network, without names of images."""
    model = exp / "checkpoint.pth.tar"
    call(extract_features, model, data, "--out", found, *CPU)
    call(assign, model, data, "--out", found / "assigned.csv", *CPU)
    rows = (found / "assigned.csv").read_text().splitlines()
    flags = ["--model", model, "--data", data, "--exp", found / "visu", "--count", 2]
    call(activ_retrieval, *flags, *CPU)
    sheet = (found / "visu" / "conv1" / "images-0-7.jpeg").read_bytes()
    call(feature_map, model, data, "--out", found / "map.html", *CPU)
    names = [f'"{line}"' for line in (found / "images.txt").read_text().splitlines()]
    assert f'"name":[{",".join(names)}]' in (found / "map.html").read_text()
    numbers = np.array([row.rsplit(",", 2)[1:] for row in rows[1:]], np.float64)
    return {"features": np.load(found / "features.npy"), "clusters": numbers, "sheet": sheet}


@pytest.mark.parametrize("kind", ["shards", "deflated zip", "Parquet 2.13"])
def test_scripts_give_the_same_as_for_files(
    trained: Path, tree: Path, tmp_path: Path, kind: str
) -> None:
    data = write_as(kind, tree, tmp_path / "data")
    expected = outputs(tree, trained, tmp_path / "files")
    for name, found in outputs(data, trained, tmp_path / "found").items():
        np.testing.assert_array_equal(found, expected[name], name)


def test_evaluations_give_the_same_as_for_files(
    trained: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = pairs_of(find_images(tree))
    halves = {"train": members[::2], "val": members[1::2]}
    for split, half in halves.items():
        for name, content in half:
            path = tmp_path / "files" / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        for kind, write in (("tar", write_tar), ("zip", write_zip), ("parquet", write_table)):
            (tmp_path / kind).mkdir(exist_ok=True)
            write(tmp_path / kind / f"{split}-0.{kind}", half)
    flags = ["--model", trained / "checkpoint.pth.tar", *CPU]
    said = dict[str, str]()
    for kind in ("files", "tar", "zip", "parquet"):
        for script, own in ((eval_knn, ["--k", 3]), (eval_linear, ["--protocol", "simple"])):
            data = ["--data", tmp_path / kind, "--exp", tmp_path / "results" / kind]
            call(script, *flags, *data, *own)
        said[kind] = capsys.readouterr().out.replace(f"results/{kind}", "")
    assert "trained" in said["files"]
    assert len(set(said.values())) == 1, said


def test_a_run_lists_its_containers_and_is_read_back(
    tree: Path, tmp_path: Path, train: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_as("shards", tree, tmp_path / "data")
    exp = train(data, report=True)
    lines = (exp / "images.txt").read_text().splitlines()
    digest = find_images(data).digest
    assert lines == [
        f"//containers, with the number of images in each; SHA-256 of the images' names: {digest}",
        "x-0.tar\t13", "x-1.tar\t13", "x-2.tar\t14",
    ]  # fmt: skip
    run = read_run(exp)
    assert list(run.images.names) == list(find_images(data).names)
    assert "x-0.tar/a/000.png" in (exp / "report.html").read_text()
    call(clusters, exp, *CPU)
    call(export_clusters, exp, "--out", tmp_path / "clusters.csv")
    assert f"{data}/x-2.tar/c/009.png," in (tmp_path / "clusters.csv").read_text()
    few = train(data, "--size_dataset", "20", exp="few")
    assert (few / "images.txt").read_text().splitlines()[1:] == ["x-0.tar\t13", "x-1.tar\t7"]
    assert len(read_run(few).images) == 20
    moved = shutil.move(data, tmp_path / "moved")
    assert len(read_run(exp, Path(moved)).images) == 40


def test_unreadable_members_are_named(
    tmp_path: Path, tree: Path, train: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.unreadable.MOST_UNREADABLE", 0.1)
    (tree / "b" / "007.png").write_bytes(b"nothing")
    exp = train(write_as("pax", tree, tmp_path / "data"))
    assert (exp / "bad_images.txt").read_text() == ("x.tar/b/007.png\tcannot identify image file\n")


def test_other_containers_are_one_line(
    tmp_path: Path, tree: Path, train: Callable[..., Path], error_line: ErrorLine
) -> None:
    data = write_as("shards", tree, tmp_path / "data")
    exp = train(data)
    links = ["--folders", tmp_path / "links"]
    for script, words in ((assign, [exp / "checkpoint.pth.tar", data]), (export_clusters, [exp])):
        assert "--folders: needs image files" in error_line(script, *words, *links)
    write_tar(data / "x-1.tar", [("other.png", b"x")])
    gone = f"{data}: the run's containers of images are gone, or hold other images now"
    assert f"{gone} (28 images there, 40 in the run); give" in error_line(export_clusters, exp)
    (data / "x-1.tar").write_bytes(b"no tar" * 200)
    assert f"{gone} ({data}/x-1.tar: not a tar" in error_line(export_clusters, exp)

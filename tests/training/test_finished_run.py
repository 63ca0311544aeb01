"""A run read back from its experiment folder, and its clusters epoch by epoch."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_images

from cluster.quality import purity
from data.images import ImageList, find_images
from system.errors import InputError
from training.experiment import Experiment
from training.finished_run import Run, clusters_at, label_names, read_run

# of 40 images: a has 0 to 9, b 10 to 29, c 30 to 39
FIRST = np.repeat([0, 1, 2, 3], 10)
SECOND = np.concatenate([np.full(12, 2), [-1], np.full(5, 0), np.full(22, 5)])


def written(folder: Path, images: ImageList, data: Path) -> Path:
    """The folder of a run of two epochs with these assignments."""
    settings = {"data": data, "verbose": False, "size": 32}
    with Experiment(folder, images, settings) as experiment:
        for epoch, assignment in enumerate([FIRST, SECOND]):
            metrics = {"epoch": epoch, "nmi_previous": None}
            experiment.log_epoch(metrics, assignment, 6)
    return folder


@pytest.fixture
def exp(tmp_path: Path, tree: Path) -> Path:
    return written(tmp_path / "exp", find_images(tree), tree)


def test_a_run_is_read_back(exp: Path, tree: Path) -> None:
    run = read_run(exp)
    assert run.epochs == [0, 1]
    assert run.images == find_images(tree)
    assert (run.assignment(1) == SECOND).all()
    assert run.settings["size"] == 32
    assert [line["epoch"] for line in run.metrics] == [0, 1]
    run.require_images()


def test_members_sizes_and_moves_are_those_of_the_assignments(exp: Path) -> None:
    views = {view.number: view for view in clusters_at(read_run(exp), 1)}
    assert sorted(views) == [0, 2, 5]  # neither empty ones nor left-out images
    assert views[2].members.tolist() == list(range(12))
    assert (views[2].before, views[2].stayed) == (0, 10 / 12)
    assert (views[0].before, views[0].stayed) == (1, 1.0)
    assert (views[5].before, views[5].stayed) == (2, 10 / 22)  # the first of two equals
    assert (views[2].label, views[2].purity) == ("a", 10 / 12)
    assert (views[5].label, views[5].purity) == ("b", 12 / 22)
    assert views[5].size == 22


def test_purities_weighted_by_size_are_the_purity_of_the_run(exp: Path) -> None:
    run = read_run(exp)
    views = clusters_at(run, 1)
    assert run.images.labels is not None
    weighted = sum(v.size * (v.purity or 0) for v in views) / sum(v.size for v in views)
    assert weighted == pytest.approx(purity(SECOND, run.images.labels))


def test_no_epoch_comes_before_the_first(exp: Path) -> None:
    assert all(v.stayed is None and v.before is None for v in clusters_at(read_run(exp), 0))


def test_images_that_were_left_out_before_do_not_count_as_together(exp: Path) -> None:
    np.save(exp / "assignments" / "epoch_0000.npy", np.where(np.arange(40) < 4, 0, -1))
    views = {view.number: view for view in clusters_at(read_run(exp), 1)}
    assert (views[2].before, views[2].stayed) == (0, 4 / 12)
    assert (views[0].before, views[0].stayed) == (None, None)


def test_a_missing_epoch_is_skipped(exp: Path) -> None:
    shutil.copy(exp / "assignments" / "epoch_0001.npy", exp / "assignments" / "epoch_0007.npy")
    (exp / "assignments" / "epoch_0001.npy").unlink()
    run = read_run(exp)
    assert (run.epochs, run.epoch_before(7), run.epoch_before(0)) == ([0, 7], 0, None)
    assert clusters_at(run, 7)[1].stayed == 10 / 12


def test_images_in_one_folder_have_no_labels(tmp_path: Path) -> None:
    write_images(tmp_path / "flat", 40)
    exp = written(tmp_path / "exp", find_images(tmp_path / "flat"), tmp_path / "flat")
    run = read_run(exp)
    assert run.images.labels is None
    assert all(v.purity is None and v.label is None for v in clusters_at(run, 1))


def test_a_list_file_keeps_its_labels(tmp_path: Path, tree: Path) -> None:
    names = [f"images/{path}" for path in find_images(tree).names]
    (tmp_path / "list.txt").write_text("\n".join(names))
    listed = find_images(tmp_path / "list.txt")
    run = read_run(written(tmp_path / "exp", listed, tmp_path / "list.txt"))
    assert run.images == listed
    assert label_names(run.images) == ["a", "b", "c"]
    run.require_images()


def test_relative_data_is_found_from_the_folders_above_the_run(
    tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "experiments" / "exp", find_images(tree), Path("images"))
    monkeypatch.chdir(tmp_path / "experiments")
    read_run(Path("exp")).require_images()


def test_images_that_have_moved_are_named_and_can_be_given(exp: Path, tree: Path) -> None:
    moved = tree.rename(tree.parent / "elsewhere")
    with pytest.raises(InputError, match=r"exp: its images .*a/000\.png.* --data"):
        read_run(exp).require_images()
    assert clusters_at(read_run(exp), 1)[1].label == "a"  # from images.txt
    run = read_run(exp, moved)
    run.require_images()
    assert run.images == find_images(moved)
    with pytest.raises(InputError, match=r"--data .*nowhere"):
        read_run(exp, tree.parent / "nowhere")


def test_an_older_or_interrupted_run_is_read_as_far_as_possible(exp: Path, tree: Path) -> None:
    (exp / "config.json").unlink()
    shutil.rmtree(exp / "assignments")
    with (exp / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "nmi_prev')
    run = read_run(exp, tree)
    assert (run.settings, run.epochs, len(run.metrics)) == ({}, [], 2)
    with pytest.raises(InputError, match="none yet"):
        run.assignment(0)


def test_bad_files_are_named(exp: Path, tree: Path) -> None:
    def error_of(act: Callable[[], object]) -> str:
        with pytest.raises(InputError) as error:
            act()
        assert "\n" not in str(error.value)
        return str(error.value)

    run: Run = read_run(exp)
    assert "only of: 0 to 1" in error_of(lambda: run.assignment(5))
    np.save(exp / "assignments" / "epoch_0001.npy", np.zeros(7, np.int64))
    assert "(7,)" in error_of(lambda: run.assignment(1))
    (exp / "assignments" / "epoch_0001.npy").write_bytes(b"no array")
    assert "epoch_0001.npy" in error_of(lambda: run.assignment(1))
    (exp / "config.json").write_text(json.dumps([1]))
    assert "config.json" in error_of(lambda: read_run(exp))
    assert "no images.txt" in error_of(lambda: read_run(tree))


def test_another_folder_of_the_same_name_does_not_end_the_search(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "experiments" / "exp", find_images(tree), Path("images"))
    (tmp_path / "here" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    run = read_run(tmp_path / "experiments" / "exp")
    run.require_images()
    assert run.images.root == tree

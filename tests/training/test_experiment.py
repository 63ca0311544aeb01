"""The experiment folder: bad input, unreadable images, a run that resumes."""

import contextlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import image_list, write_images

from data.images import ImageList, find_images
from system.errors import InputError
from system.results import versions
from training.experiment import RESULTS, Bystander, Experiment
from training.resume import AUTO

SETTINGS = {"verbose": False, "data": Path("somewhere"), "lr": 0.1}
CLUSTERS = [[0, 1], [], [2]]


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    write_images(tmp_path / "images", 3)
    return find_images(tmp_path / "images")


def epoch(number: int) -> dict[str, Any]:
    return {"epoch": number, "convnet_loss": 2.5, "nmi_labels": None, "seconds": {"training": 1.0}}


def checkpoint(number: int) -> dict[str, Any]:
    """The keys that the experiment reads in a checkpoint saved before an epoch."""
    return {"epoch": number, "step": 0, "assignment": torch.tensor([0, 0, 2])}


def run_epochs(folder: Path, images: ImageList, count: int) -> list[dict[str, Any]]:
    """A new run; returns the checkpoint after each epoch."""
    saved = []
    with Experiment(folder, images, SETTINGS) as experiment:
        for number in range(count):
            experiment.log_epoch(epoch(number), np.array([0, 0, 2]), 3)
            saved.append(checkpoint(number + 1))
    return saved


def test_the_files_of_a_run(tmp_path: Path, images: ImageList) -> None:
    folder = tmp_path / "new" / "exp"
    run_epochs(folder, images, 2)
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"] == {"verbose": False, "data": "somewhere", "lr": 0.1}
    assert config["images"] == 3
    assert config["versions"] == versions()
    assert (folder / "images.txt").read_text() == "000.png\n001.png\n002.png\n"
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [epoch(0), epoch(1)]
    assert np.load(folder / "assignments" / "epoch_0001.npy").tolist() == [0, 0, 2]
    assert list((folder / "tensorboard").iterdir())


@pytest.mark.parametrize("result", RESULTS)
def test_another_runs_results_are_not_overwritten(
    tmp_path: Path, images: ImageList, result: str
) -> None:
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / result).write_text("precious")
    message = r"holds another run's results .*; give --resume auto to continue it, or another --exp"
    with pytest.raises(InputError, match=message):
        Experiment(tmp_path / "exp", images, SETTINGS)
    assert [p.name for p in (tmp_path / "exp").iterdir()] == [result]


def resumed(folder: Path, images: ImageList, saved: dict[str, Any]) -> Experiment:
    return Experiment(folder, images, SETTINGS, folder / "checkpoint.pth.tar", saved)


@pytest.mark.parametrize("step", [0, 3])
def test_another_runs_assignments_are_noticed_at_resume(
    tmp_path: Path, images: ImageList, step: int
) -> None:
    run_epochs(tmp_path, images, 2)
    others = checkpoint(2) | {"assignment": torch.tensor([0, 1, 2])}
    if step:
        others |= {"step": step, "previous": others["assignment"]}
    message = r"epoch_0001\.npy differs from the checkpoint's .* another run's results; give anoth"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=message):
        resumed(tmp_path, images, others)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_is_not_continued_without_its_assignments(tmp_path: Path, images: ImageList) -> None:
    *_, saved = run_epochs(tmp_path, images, 3)
    lost = tmp_path / "assignments" / "epoch_0000.npy"
    whole = lost.read_bytes()
    lost.unlink()
    with pytest.raises(
        InputError, match=r"assignments has the epochs \[1, 2\] and should have \[0, "
    ):
        resumed(tmp_path, images, saved)
    lost.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"epoch_0000\.npy: cannot read this assignment: "):
        resumed(tmp_path, images, saved)


@pytest.mark.parametrize("content", [None, b"no pickle", b""])
def test_clusters_are_rebuilt_from_the_assignments(
    tmp_path: Path, images: ImageList, content: bytes | None
) -> None:
    """They have the same bytes, empty clusters included."""
    clusters = tmp_path / "clusters"
    with Experiment(tmp_path, images, SETTINGS) as experiment:
        for number in range(3):
            metrics = {**epoch(number), "clusters": 3}
            experiment.log_epoch(metrics, np.array([-1, 1, 1]), 3)
    whole = clusters.read_bytes()
    if content is None:
        clusters.unlink()
    else:
        clusters.write_bytes(content)
    with resumed(tmp_path, images, checkpoint(3) | {"assignment": torch.tensor([-1, 1, 1])}):
        assert clusters.read_bytes() == whole


def test_clusters_of_very_many_images_are_left_out(
    tmp_path: Path, images: ImageList, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, saved = run_epochs(tmp_path, images, 1)
    assert (tmp_path / "clusters").exists()
    for module in ("experiment", "rewind"):
        monkeypatch.setattr(f"training.{module}.MOST_LISTED", 2)
    with resumed(tmp_path, images, saved) as experiment:
        experiment.log_epoch(epoch(1), np.array([0, 0, 2]), 3)
    assert not (tmp_path / "clusters").exists()
    assert "not written for more than 2 images; assignments" in (tmp_path / "log.txt").read_text()
    assert np.load(tmp_path / "assignments" / "epoch_0001.npy").tolist() == [0, 0, 2]
    with resumed(tmp_path, images, checkpoint(2)) as experiment:
        assert [m["epoch"] for m in experiment.read_metrics()] == [0, 1]


def test_a_run_without_results_can_be_started_again(tmp_path: Path, images: ImageList) -> None:
    run_epochs(tmp_path / "exp", images, 0)
    run_epochs(tmp_path / "exp", images, 1)


def test_a_folder_that_cannot_be_made(tmp_path: Path, images: ImageList) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--exp .*file/exp: cannot write there: Not a directory"):
        Experiment(tmp_path / "file" / "exp", images, SETTINGS)


def test_a_continued_runs_logs_hold_each_epoch_once(tmp_path: Path, images: ImageList) -> None:
    folder = tmp_path / "exp"
    saved = run_epochs(folder, images, 3)
    with (folder / "metrics.jsonl").open("a") as lines:
        lines.write('{"epoch": 3, "half')
    resume = folder / "checkpoints" / "checkpoint_1.pth.tar"
    with Experiment(folder, images, SETTINGS, resume, saved[1]) as experiment:
        assert [m["epoch"] for m in experiment.read_metrics()] == [0, 1]
        assert experiment.clusters.data == [CLUSTERS, CLUSTERS]
        experiment.log_epoch(epoch(2), np.array([-1, 0, -1]), 1)
        assert [m["epoch"] for m in experiment.read_metrics()] == [0, 1, 2]
        assert experiment.clusters.data == [CLUSTERS, CLUSTERS, [[1]]]


def test_a_run_killed_before_its_first_checkpoint_starts_over(
    tmp_path: Path, images: ImageList
) -> None:
    folder = tmp_path / "exp"
    run_epochs(folder, images, 1)
    (folder / ".checkpoint.pth.tar.abcd_123.tmp").touch()
    with Experiment(folder, images, SETTINGS, AUTO) as experiment:
        assert experiment.read_metrics() == experiment.clusters.data == []
        assert "starts over" in experiment.how_to_resume()
    assert not list(folder.glob("assignments/*"))
    assert not list(folder.rglob("*.tmp"))


def test_a_run_that_goes_on_has_no_prototypes_until_its_end(
    tmp_path: Path, images: ImageList
) -> None:
    """Those of an earlier end would belong to another network."""
    (saved,) = run_epochs(tmp_path, images, 1)
    path = tmp_path / "assignments" / "prototypes.npy"
    for resume, content in ((tmp_path / "checkpoint.pth.tar", saved), (AUTO, None)):
        with Experiment(tmp_path, images, SETTINGS, resume, content) as experiment:
            assert not path.exists()
            experiment.save_finished(1, np.array([0, 1, 1]), np.array([2, -1, 0]))
        assert np.load(path).tolist() == [2, -1, 0]
        assert np.load(path.with_name("epoch_0001.npy")).tolist() == [0, 1, 1]
        path.with_name("epoch_0001.npy").unlink()  # more than one can't be begun again


@pytest.mark.parametrize("name", ["assignments", "metrics.jsonl", "clusters"])
def test_a_run_whose_checkpoints_are_gone_does_not_start_over(
    tmp_path: Path, images: ImageList, name: str
) -> None:
    """A run saves after each epoch, so somebody has removed the checkpoints."""
    run_epochs(tmp_path / "whole", images, 2)
    folder = tmp_path / "exp"
    folder.mkdir()
    (tmp_path / "whole" / name).rename(folder / name)
    with pytest.raises(InputError, match=f"{name} has 2 epochs of a run, and there is no checkpoi"):
        Experiment(folder, images, SETTINGS, AUTO)
    assert (folder / name).exists()


def test_other_images_are_noticed_at_resume(tmp_path: Path, images: ImageList) -> None:
    (saved,) = run_epochs(tmp_path / "exp", images, 1)
    write_images(images.root, 4)
    with pytest.raises(InputError, match=r"not those .* \(3 there, 4 now: 1 added, such as 0"):
        resumed(tmp_path / "exp", find_images(images.root), saved)


def test_the_originals_logs_are_not_continued(tmp_path: Path, images: ImageList) -> None:
    with pytest.raises(InputError, match="saved by the original code, whose logs"):
        Experiment(tmp_path, images, SETTINGS, tmp_path / "checkpoint.pth.tar", {"epoch": 4})


def test_a_continued_run_does_not_name_unreadable_images_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["a.png", "a\ttab.png", "two\nlines.png", "no\udcff UTF-8.png"]
    images = image_list(*names, *(f"{n}.png" for n in range(400)))
    with Experiment(tmp_path / "exp", images, SETTINGS) as experiment:
        experiment.unreadable.report(dict.fromkeys((0, 1, 3), "cannot be read"))
        saved = checkpoint(0)
    caplog.clear()
    resume = tmp_path / "exp" / "checkpoint.pth.tar"
    with Experiment(tmp_path / "exp", images, SETTINGS, resume, saved) as experiment:
        experiment.unreadable.report(dict.fromkeys((0, 1, 3), "cannot be read"))
        assert not any("unreadable" in message for message in caplog.messages)
        experiment.unreadable.report({2: "cannot be read"})
    with Experiment(tmp_path / "exp", images, SETTINGS, resume, saved) as experiment:
        experiment.unreadable.leave_out({0, 1, 2, 3})
        assert set(experiment.unreadable.now) == {0, 1, 2, 3}, "odd names, too"


def test_an_image_that_can_be_read_again_is_no_longer_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is away for a moment costs its images one epoch."""
    images = image_list(*(f"{n}.png" for n in range(200)))
    bad = tmp_path / "exp" / "bad_images.txt"
    with Experiment(tmp_path / "exp", images, SETTINGS) as experiment:
        for away in range(190, 200, 2):  # 1% in each pass, 5% in all
            experiment.unreadable.begin_pass()
            experiment.unreadable.report(dict.fromkeys((away, away + 1), "Stale file handle"))
            experiment.unreadable.gather()
        assert bad.read_text() == "198.png\tStale file handle\n199.png\tStale file handle\n"
        experiment.unreadable.begin_pass()
        experiment.unreadable.report(dict.fromkeys((198, 199), "Stale file handle"))
        experiment.unreadable.gather()
        assert caplog.text.count("199.png") == 1, "once, while it stays unreadable"
        experiment.unreadable.begin_pass()
        experiment.unreadable.gather()
        assert not bad.exists()


@pytest.mark.parametrize("step", [0, 3])
def test_at_resume_unreadable_images_are_tried_again_with_the_next_epoch(
    tmp_path: Path, step: int
) -> None:
    images = image_list(*(f"{n}.png" for n in range(200)))
    with Experiment(tmp_path / "exp", images, SETTINGS) as experiment:
        experiment.unreadable.report({7: "empty"})
        saved = checkpoint(0) | {"step": step}
        saved["assignment"] = torch.where(torch.arange(200) == 7, -1, 0)
    resume = tmp_path / "exp" / "checkpoint.pth.tar"
    with Experiment(tmp_path / "exp", images, SETTINGS, resume, saved) as experiment:
        assert set(experiment.unreadable.now) == {7}
        experiment.unreadable.begin_pass()
        assert not experiment.unreadable.now


@pytest.mark.parametrize("kind", [Experiment, Bystander])
def test_an_epoch_without_a_pass_tries_only_its_own_images_again(
    tmp_path: Path, kind: type[Experiment] | type[Bystander]
) -> None:
    """DeeperCluster draws no image that the last clustering could not read."""
    images = image_list(*(f"{n}.png" for n in range(400)))
    folder = Bystander() if kind is Bystander else Experiment(tmp_path / "exp", images, SETTINGS)
    with folder as experiment:
        unreadable = experiment.unreadable
        unreadable.report({7: "empty", 9: "empty", 300: "empty"})
        unreadable.begin_pass(np.array([[1, 0], [7, 3], [300, 2], [7, 0]]))
        assert set(unreadable.now) == {9}
        unreadable.begin_pass(np.array([1, 9]))
        assert not unreadable.now


def test_an_unreadable_image_can_have_any_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = [*(f"{number}.png" for number in range(150)), "no\udcff UTF-8.png"]
    images = image_list(*paths)
    with Experiment(tmp_path / "exp", images, SETTINGS) as experiment:
        console = io.TextIOWrapper(io.BytesIO(), "ascii", errors="backslashreplace")
        with contextlib.redirect_stdout(console):
            experiment.unreadable.report({150: "empty"})
    assert capfd.readouterr().err == "", "no traceback from logging"
    log = (tmp_path / "exp" / "log.txt").read_text(encoding="utf-8")
    assert "left out, unreadable: no\\udcff UTF-8.png: empty" in log


def test_a_closed_console_does_not_end_the_run(
    tmp_path: Path, images: ImageList, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with Experiment(tmp_path / "exp", images, {**SETTINGS, "verbose": True}):
        monkeypatch.setattr("sys.stdout", Gone())
        logging.getLogger("deepcluster").info("an epoch's summary")
    assert "an epoch's summary" in (tmp_path / "exp" / "log.txt").read_text()


def test_unreadable_images_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path / "images", 200)
    with Experiment(tmp_path / "exp", find_images(tmp_path / "images"), SETTINGS) as experiment:
        with caplog.at_level(logging.WARNING, "deepcluster"):
            experiment.unreadable.report({7: "cut short"})
            experiment.unreadable.report({7: "cut short", 3: "empty"})
            experiment.unreadable.report({})
        assert caplog.messages == [
            "left out, unreadable: 007.png: cut short",
            "left out, unreadable: 003.png: empty",
        ]
        bad = (tmp_path / "exp" / "bad_images.txt").read_text()
        assert bad == "003.png\tempty\n007.png\tcut short\n"


def test_a_run_that_ends_for_unreadable_images_lists_them_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It ends after the pass, not at the first image above 1%."""
    images = image_list(*(f"{n}.png" for n in range(200)))
    with Experiment(tmp_path / "exp", images, SETTINGS) as experiment:
        for start in range(0, 200, 4):
            experiment.unreadable.report(dict.fromkeys((start, start + 1), "empty"))
        with pytest.raises(InputError, match="100 of 200 images are unreadable, more than 1%"):
            experiment.unreadable.gather()
    bad = (tmp_path / "exp" / "bad_images.txt").read_text().splitlines()
    assert bad == [f"{n}.png\tempty" for n in range(200) if n % 4 < 2]
    assert caplog.text.count("left out, unreadable") == 4, "the log has the first"

"""A full or failing disk: earlier files stay intact, and one line says what did not fit."""

import contextlib
import errno
import io
import json
import logging
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ErrorLine, image_list
from runs import assert_same_weights, load_clusters, load_metrics, without_times
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main
from checkpoints.checkpoint import read_checkpoint, save_checkpoint
from checkpoints.folder import sound_checkpoints
from cluster.pickles import Logger
from system.files import append, atomic_write, write_text
from training.experiment import Experiment
from training.logs import Curves

Train = Callable[..., Path]
NO_ROOM = [errno.ENOSPC, errno.EDQUOT, errno.EROFS]


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Writing beyond this size fails with EFBIG, in the middle of a file. Meanwhile Python writes
    no byte code, of which it would keep half a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # for child processes
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def write_in_pieces(path: Path) -> None:
    with atomic_write(path) as file:
        for _ in range(300):
            file.write(b"x" * 1000)


def failing_sync(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Let fsync of the files with this name fail with this error."""
    fsync = os.fsync

    def fail(handle: int) -> None:
        if name in Path(f"/proc/self/fd/{handle}").readlink().name:
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", fail)


def test_a_file_that_does_not_fit_is_named_with_its_size_and_the_room(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    write_text(path, "old")
    with files_no_larger_than(200_000), pytest.raises(OSError, match="File too large") as error:
        write_text(path, "x" * 300_000)
    assert error.value.filename == str(path)
    said = str(error.value.strerror)
    assert re.search(r"it needs 0\.3 MB, and [\d,]+\.\d MB are free", said)
    with files_no_larger_than(200_000), pytest.raises(OSError, match="it needs more than "):
        write_in_pieces(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


@pytest.mark.parametrize("number", NO_ROOM)
def test_an_error_of_fsync_is_reported_in_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "f"
    write_text(path, "old")
    failing_sync(monkeypatch, ".f.", number)
    with pytest.raises(OSError, match=f"{os.strerror(number)}: it needs 3 bytes") as error:
        write_text(path, "new")
    assert error.value.errno == number
    assert path.read_text() == "old"


def test_files_and_their_names_are_fsynced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    write_text(tmp_path / "f", "whole")
    begun, folder = synced
    assert begun.startswith(".f.")
    assert folder == tmp_path.name
    synced.clear()
    append(tmp_path / "lines", b"a line\n")
    assert synced == ["lines"]


def test_a_line_is_appended_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append(path, b"a line\n")
    with files_no_larger_than(20), pytest.raises(OSError, match="it needs 30 bytes"):
        append(path, b"b" * 29 + b"\n")
    assert path.read_bytes() == b"a line\n"
    append(path, b"another\n")
    assert path.read_bytes() == b"a line\nanother\n"


def test_the_clusters_file_stays_loadable_on_a_full_disk(tmp_path: Path) -> None:
    log = Logger(tmp_path / "clusters")
    log.log([[1]])
    with files_no_larger_than(100), pytest.raises(OSError, match=r"it needs [\d,]+ bytes"):
        log.log([list(range(1000))])
    assert log.data == [[[1]]]
    log.log([[2]])
    assert Logger(log.path).data == [[[1]], [[2]]]


def test_a_checkpoint_that_does_not_fit_is_named_with_its_whole_size(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    small, large = ({"state_dict": {"w": torch.zeros(n)}, "epoch": n} for n in (10, 100_000))
    save_checkpoint(path, small)
    size = io.BytesIO()
    torch.save(large, size)
    wanted = f"it needs {len(size.getvalue()) / 1e6:.1f} MB, and "
    with files_no_larger_than(100_000), pytest.raises(OSError, match=wanted) as error:
        save_checkpoint(path, large, tmp_path / "before.pth.tar")
    assert error.value.filename == str(path)
    assert torch.load(path)["epoch"] == 10
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_checkpoint_that_cannot_be_read_back_does_not_replace_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pth.tar"
    save_checkpoint(path, {"epoch": 1})
    save = torch.save

    def lossy(state: Any, file: Any) -> None:
        save(state, file)
        file.seek(-1000, io.SEEK_CUR)
        file.write(b"?")

    monkeypatch.setattr(torch, "save", lossy)
    with pytest.raises(OSError, match="the new file cannot be read back"):
        save_checkpoint(path, {"epoch": 2, "w": torch.ones(1000)})
    assert torch.load(path)["epoch"] == 1


@pytest.mark.parametrize("name", ["clusters", "epoch_0001.npy", "metrics.jsonl", "checkpoint.pth"])
def test_a_run_stopped_by_a_full_disk_can_resume(
    name: str,
    tree: Path,
    train: Train,
    error_line: ErrorLine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = train(tree, "--epochs", "2", exp="whole")
    cut = train(tree, exp="cut")
    kept = (cut / "checkpoint.pth.tar").read_bytes()
    flags = f"{tree} --resume {cut / 'checkpoint.pth.tar'} --epochs 2 --no-report --device cpu"
    with monkeypatch.context() as patch:
        failing_sync(patch, name, errno.ENOSPC)
        error = error_line(main, *flags.split(), "--precision", "fp32")
    assert re.search(
        rf"error: \S+{name}\S*: No space left on device: it needs (more than )?[\d.,]+ \w+, ", error
    )
    assert (cut / "checkpoint.pth.tar").read_bytes() == kept
    assert all(isinstance(line, dict) for line in load_metrics(cut)), "no half line"
    assert load_clusters(cut)[0] == load_clusters(whole)[0]
    assert not list(cut.rglob(".*.tmp"))

    train(tree, "--resume", str(cut / "checkpoint.pth.tar"), "--epochs", "2", exp="cut")
    assert_same_weights(whole / "checkpoint.pth.tar", cut / "checkpoint.pth.tar")
    assert load_clusters(whole) == load_clusters(cut)
    assert without_times(whole) == without_times(cut)


def test_a_real_disk_that_fills_up(
    small_disk: Path, tree: Path, train: Train, error_line: ErrorLine
) -> None:
    train(tree, exp="disk/exp")
    folder = small_disk / "exp"
    flags = f"{tree} --resume {folder / 'checkpoint.pth.tar'} --epochs 9 --checkpoints 1"
    error = error_line(main, *flags.split())
    assert re.search(r"error: \S+: No space left on device: it needs .*, and .* are free", error)
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    load_clusters(folder)
    newest, *_ = sound_checkpoints(folder)
    assert read_checkpoint(newest)["epoch"] >= 1
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    train(tree, "--resume", str(folder / "checkpoint.pth.tar"), "--no-report", exp="disk/exp")


def test_a_read_only_disk(small_disk: Path, tree: Path, error_line: ErrorLine) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    error = error_line(main, tree, "--k", "4", "--exp", small_disk / "exp")
    assert error.endswith("exp: cannot write there: Read-only file system")


def test_a_run_stopped_by_a_full_disk_ends_its_workers(tree: Path, tmp_path: Path) -> None:
    """Workers ignore the signal with which Python would end them."""
    flags = "--arch resnet18_small --sobel --size 32 --k 4 --batch 8 --workers 1 --epochs 1"
    flags += " --device cpu --precision fp32"
    command = [sys.executable, "main.py", str(tree), *flags.split()]
    with files_no_larger_than(1_000_000):  # which the process inherits
        done = subprocess.run(
            [*command, "--exp", str(tmp_path / "exp")],
            cwd=Path(main.__file__).parent, capture_output=True, text=True, timeout=100,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "checkpoint.pth.tar: File too large: it needs" in line


def test_a_run_continues_if_the_log_and_the_curves_do_not_fit(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = image_list("a.png", "b.png")
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "log.txt").symlink_to("/dev/full")
    (tmp_path / "exp" / "tensorboard").touch()  # a file, not a folder
    with Experiment(tmp_path / "exp", images, {"verbose": False, "data": "there"}) as experiment:
        for _ in range(3):
            logging.getLogger("deepcluster").info("a line")
        experiment.log_epoch({"epoch": 0, "loss": 1.5}, np.array([0, 1]), 2)
    out, err = capfd.readouterr()
    assert err == "", "no traceback"
    assert out.count("log.txt: No space left on device: the run continues without its log") == 1
    assert "TensorBoard lacks epoch 0" in out
    assert load_metrics(tmp_path / "exp") == [{"epoch": 0, "loss": 1.5}]


def test_tensorboard_shows_each_step_of_a_resumed_run_once(
    tmp_path: Path,
) -> None:
    first = Curves(tmp_path / "tensorboard", 0)
    for step in range(4):
        first.add({"loss": 4.0 - step, "size/largest": float(step)}, step)
    again = Curves(tmp_path / "tensorboard", 2)
    with files_no_larger_than(10), pytest.raises(OSError, match="it needs"):
        again.add({"loss": 9.0}, 2)
    again.add({"loss": 0.5}, 2)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    points = [(point.step, point.value) for point in found.Scalars("loss")]
    assert points == [(0, 4.0), (1, 3.0), (2, 0.5)]
    assert {"loss", "size/largest"} == set(found.Tags()["scalars"])

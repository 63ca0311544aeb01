"""Faults between a worker and its parent: no run hangs, and one line says why it ends or waits."""

import errno
import multiprocessing
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, BinaryIO

import pytest
import torch
from conftest import ErrorLine
from torch.utils.data import get_worker_info

import assign
import eval_knn
import eval_linear
import extract_features
import main
from data import loader as waiting
from data import parcel
from data.images import ImageList, find_images
from data.loading import ImageDataset, load_in_order
from data.transforms import central_crop
from system import cli
from system.errors import Fault, Stopped
from tools import prepare_data
from visu import clusters as clusters_page

CPU = torch.device("cpu")
BATCH = 8


def load(tree: Path, workers: int, **options: Any) -> waiting.Loader[Any]:
    """Batches of 8 images of 32 × 32 pixels, 24,576 bytes."""
    dataset = ImageDataset(find_images(tree), central_crop(32))
    return load_in_order(dataset, BATCH, workers, CPU, **options)


def in_workers(monkeypatch: pytest.MonkeyPatch, read: Callable[[], object], index: int = 0) -> None:
    """Call a function before a worker, or a process without workers, reads an image."""
    opened = ImageList.open

    def intercepted(images: ImageList, image: int) -> BinaryIO:
        if image == index:
            read()
        return opened(images, image)

    monkeypatch.setattr(ImageList, "open", intercepted)


def full(*args: object) -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left")


@pytest.mark.parametrize("room", ["too small", "taken by others"])
def test_batches_that_shared_memory_has_no_room_for_are_the_same(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], room: str
) -> None:
    expected = list(load(tree, workers=2))
    assert capsys.readouterr().err == ""
    if room == "too small":
        small = SimpleNamespace(total=64_000_000, free=parcel.SPARE + 20_000)
        monkeypatch.setattr(parcel.shutil, "disk_usage", lambda path: small)
    else:
        monkeypatch.setattr(parcel, "ForkingPickler", SimpleNamespace(dumps=full))
    loader = load(tree, workers=2)
    for _ in range(2):
        for one, other in zip(expected, loader, strict=True):
            assert torch.equal(one.pixels, other.pixels)
            assert torch.equal(one.index, other.index)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: batches travel through pipes, which is slower: ")
    if room == "too small":
        assert line.endswith(
            ": /dev/shm has 64.0 MB, of which 1.1 MB are free, and a batch needs 24,576 bytes; "
            "give a container more with --shm-size or --ipc=host, or give fewer --workers or a "
            "smaller --batch"
        )


def test_a_temporary_folder_with_too_long_a_path_for_sockets_is_named(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ("x" * 108)  # a socket's path has at most 107 bytes
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    own: Any = multiprocessing.process.current_process()
    monkeypatch.delitem(own._config, "tempdir", False)  # where it was found before
    assert sum(len(batch.index) for batch in load(tree, workers=1)) == 40
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(f": {folder} is too long a path for sockets; set TMPDIR to a shorter one")


def test_shared_memory_without_room_for_queues_is_a_fault(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(multiprocessing, "Queue", refuse)
    said = r"--workers 2: cannot start them: /dev/shm has .* are free; give a container more with"
    with pytest.raises(Fault, match=said):
        list(load(tree, workers=2))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGKILL, ", as the kernel does when memory runs out; give fewer --workers or a"),
        (signal.SIGBUS, ", as when shared memory runs out: /dev/shm has .*--shm-size or --ipc"),
        (signal.SIGSEGV, "$"),
    ],
)
@pytest.mark.parametrize("image", [0, 39])
def test_a_killed_worker_is_a_fault(
    tree: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str, image: int
) -> None:
    in_workers(monkeypatch, lambda: os.kill(os.getpid(), number), image)
    name = signal.Signals(number).name
    with pytest.raises(Fault, match=rf"reads images \(pid \d+\) was killed by {name}{said}"):
        list(load(tree, workers=2))


def test_a_worker_killed_between_two_iterations_is_a_fault(tree: Path) -> None:
    loader = load(tree, workers=1)
    list(loader)
    (worker,) = loader._workers
    worker.kill()
    worker.join()
    with pytest.raises(Fault, match="was killed by SIGKILL"):
        list(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_that_runs_out_is_a_fault(
    tree: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def fail(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageList, "read_pixels", fail)
    with pytest.raises(Fault, match="memory ran out while images were read; give fewer --workers"):
        list(load(tree, workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_any_other_error_is_raised_as_it_is(
    tree: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(ImageList, "read_pixels", lambda *args: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        list(load(tree, workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_disk_that_stalls_is_waited_for(
    tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    workers: int,
) -> None:
    expected = [batch.index.tolist() for batch in load(tree, workers)]
    monkeypatch.setattr(waiting, "LOOK", 0.02)
    stalled, back = tmp_path / "stalled", tmp_path / "back"
    seen: list[list[int]] = []
    said: list[str] = []

    def wait() -> None:
        stalled.touch()
        while not back.exists():
            time.sleep(0.001)

    def look(seconds: float) -> None:
        if stalled.exists() and not back.exists() and len(seen) == 2:
            monkeypatch.setattr(waiting, "PATIENCE", 0.0)
        said.append(capsys.readouterr().err)
        if "no images" in said[-1]:
            monkeypatch.setattr(waiting, "PATIENCE", 1000.0)
            back.touch()

    in_workers(monkeypatch, wait, index=19)
    for batch in load(tree, workers, while_waiting=look):
        seen.append(batch.index.tolist())
    assert seen == expected
    first, second = ("".join(said) + capsys.readouterr().err).splitlines()
    assert re.fullmatch(rf"no images for \d+ s; waiting for {tree}/b/006.png and others", first)
    assert re.fullmatch(r"images come again after \d+ s", second)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_signal_is_followed_while_a_disk_stalls(
    tree: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(waiting, "LOOK", 0.02)
    tested, before = threading.Event(), threading.enumerate()
    in_workers(monkeypatch, lambda: tested.wait(60), index=19)

    def stop(seconds: float) -> None:
        raise Stopped

    def read_all() -> None:
        for batch in load(tree, workers, while_waiting=stop):
            loaded.append(batch)

    loaded: list[Any] = []
    with pytest.raises(Stopped):
        read_all()
    assert len(loaded) <= 2
    cli.end_workers()
    assert not multiprocessing.active_children()
    tested.set()
    if workers == 0:  # a thread that reads later would disturb other tests' random numbers
        for thread in set(threading.enumerate()) - set(before):
            thread.join(60)
            assert not thread.is_alive()


def scripts(tree: Path, trained: Path, tmp_path: Path) -> dict[ModuleType, list[object]]:
    """Each script that reads images in another place, with its arguments."""
    model = trained / "checkpoint.pth.tar"
    both = tmp_path / "both"
    both.mkdir()
    for split in ("train", "val"):
        (both / split).symlink_to(tree)
    training = "--arch tiny --k 4 --batch 8 --size 32 --epochs 1 --device cpu"
    return {
        main: [tree, *training.split(), "--exp", tmp_path / "exp"],
        extract_features: [model, tree, "--out", tmp_path / "rows", "--device", "cpu"],
        assign: [model, tree, "--out", tmp_path / "assigned.csv", "--device", "cpu"],
        eval_knn: ["--data", both, "--model", model, "--device", "cpu"],
        eval_linear: ["--data", both, "--model", model, "--conv", 1, "--device", "cpu"],
        prepare_data: [tree, tmp_path / "copy"],
        clusters_page: [trained, "--out", tmp_path / "sheets", "--device", "cpu"],
    }


SCRIPTS = [main, extract_features, assign, eval_knn, eval_linear, prepare_data, clusters_page]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_killed_worker_is_one_line_in_every_script(
    tree: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error_line: ErrorLine,
    script: ModuleType,
) -> None:
    def die() -> None:
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)

    in_workers(monkeypatch, die)
    line = error_line(script, *scripts(tree, trained, tmp_path)[script], "--workers", "1")
    assert "was killed by SIGKILL, as the kernel does when memory runs out; give fewer" in line


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_temporary_folder_is_one_line_in_every_script(
    tree: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error_line: ErrorLine,
    script: ModuleType,
) -> None:
    arguments = [*scripts(tree, trained, tmp_path)[script], "--workers", "1"]
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    line = error_line(script, *arguments)
    assert "No usable temporary directory found in" in line
    assert line.endswith("; set TMPDIR to a folder that can be written")

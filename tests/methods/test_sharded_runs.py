"""`--shard_heads` in whole runs of two processes: they train as one process with all heads, and
resume with the same bits, whether a checkpoint holds the heads whole or in a file of each process.
"""

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ErrorLine
from networks import plain
from PIL import Image
from runs import Server, assert_equal, contents_of, load_metrics, output_of

import main
from checkpoints.folder import place_of
from models import MODELS
from training import slices

FLAGS = (
    "--method deepercluster --super_classes 8 --k 6 --epochs 3 --reassignment 2 --niter 3 "
    "--lr 0.02 --batch 16 --arch plain --size 32 --device cpu --precision fp32 --no-report"
)
SHARDED = f"{FLAGS} --shard_heads"
GROUNDS = [(20, 20, 20), (235, 235, 235), (220, 30, 30), (30, 30, 220)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 noisy images on four grounds."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(48):
        pixels = np.array(GROUNDS[number % 4]) + rng.integers(-20, 21, size=(40, 40, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02d}.png")
    return folder


def run(server: Server, images: Path, folder: Path, ranks: int = 2, **options: Any) -> Path:
    """Start a run in `folder`/exp, or resume the run there."""
    processes = server.start(images, folder, ranks, **{"flags": SHARDED, **options})
    assert server.wait(processes) == [0] * ranks, output_of(folder)
    return folder / "exp"


def test_two_processes_train_as_one_with_all_heads(
    images: Path, server: Server, tmp_path: Path
) -> None:
    two, one = (
        run(server, images, tmp_path / "two"),
        run(server, images, tmp_path / "one", ranks=1, flags=FLAGS),
    )
    found, expected = contents_of(two), contents_of(one)
    for part in ("state_dict", "heads"):
        assert found[part].keys() == expected[part].keys()
        for name, weight in expected[part].items():
            torch.testing.assert_close(found[part][name], weight, rtol=1e-4, atol=1e-6)
    momenta = [state["momentum_buffer"] for state in expected["optimizer"]["state"].values()]
    for momentum, name in zip(momenta[-2:], ("sub.weight", "sub.bias"), strict=True):
        torch.testing.assert_close(found["momentum"][name], momentum, rtol=1e-4, atol=1e-6)
    for first, second in zip(load_metrics(one), load_metrics(two), strict=True):
        for name in ("super_loss", "sub_loss"):
            assert second[name] == pytest.approx(first[name], rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("whole", [2**31, 0])
def test_a_resumed_run_has_the_same_bits(
    whole: int, images: Path, server: Server, tmp_path: Path
) -> None:
    """From step 2 of epoch 1, within a period."""
    straight = run(server, images, tmp_path / "whole", whole=whole)
    more = ["--checkpoints", "5"]
    cut = run(server, images, tmp_path / "cut", whole=whole, more=[*more, "--epochs", "2"])
    for name in ("checkpoint.pth.tar", "checkpoint.previous.pth.tar"):
        (cut / name).unlink()
    run(server, images, tmp_path / "cut", whole=whole, more=["--epochs", "3"])
    one, other = contents_of(straight), contents_of(cut)
    assert_equal(one, other, "checkpoint")  # with the digests of all files of heads
    assert ("slices" in one) == (whole == 0) == ("sub.weight" not in one["heads"])
    files = sorted(path.name for path in cut.glob("heads/*"))
    if whole:
        assert files == []
        assert {tuple(each.shape) for each in one["momentum"].values()} == {(8, 3, 4), (8, 3)}
    else:  # those of the checkpoints in the folder
        places = ["epoch_0001_step_000002", "epoch_0003_step_000000"]
        assert len(one["slices"]) == 2
        assert files == [f"{place}.{rank}_of_2.pth.tar" for place in places for rank in range(2)]


def test_a_run_killed_between_its_heads_and_the_checkpoint_resumes_from_the_one_before(
    images: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the second checkpoint, with all files of its heads in place."""
    more = ["--epochs", "2"]
    straight = run(server, images, tmp_path / "whole", whole=0, more=more)
    folder = tmp_path / "cut"
    processes = server.start(
        images, folder, 2, flags=SHARDED, more=more, whole=0, pause_in=["checkpoint", 2]
    )
    while not (folder / "paused").exists():
        time.sleep(0.001)
    for process in processes:
        os.kill(process, signal.SIGKILL)
    assert server.wait(processes) == [-signal.SIGKILL] * 2, output_of(folder)
    (folder / "paused").unlink()
    exp, places = folder / "exp", ["epoch_0001_step_000000", "epoch_0002_step_000000"]
    files = [exp / "heads" / f"{place}.{rank}_of_2.pth.tar" for place in places for rank in (0, 1)]
    assert sorted(exp.glob("heads/*")) == files
    assert place_of(exp / "checkpoint.pth.tar") == (1, 0)
    rows = []
    monkeypatch.setattr(slices, "world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(slices, "rank", lambda rank=rank: rank)
        checkpoint = contents_of(exp)
        slices.read_slices(checkpoint, exp / "checkpoint.pth.tar")
        rows.append(checkpoint["heads"]["sub.weight"])
    assert torch.cat(rows, dim=1).shape == (8, 3, 4)

    run(server, images, folder, whole=0, more=more)
    assert_equal(contents_of(straight), contents_of(exp), "checkpoint")
    assert sorted(exp.glob("heads/*")) == files[2:]


def test_files_of_heads_that_are_not_those_of_the_checkpoint_are_named(
    images: Path,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error_line: ErrorLine,
) -> None:
    more = ["--epochs", "2", "--checkpoints", "5"]
    exp = run(server, images, tmp_path / "run", whole=0, more=more)
    newest = exp / "checkpoint.pth.tar"
    monkeypatch.setitem(MODELS, "plain", plain)
    line = error_line(main, images, *FLAGS.split(), "--epochs", "3", "--resume", newest)
    assert f"{newest}: its heads are in the files of 2 processes; resume with as many, not" in line

    file = exp / "heads" / "epoch_0002_step_000000.1_of_2.pth.tar"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    earlier = exp / "checkpoints" / "checkpoint_1.pth.tar"
    assert error_of_both(server, images, tmp_path / "run").endswith(
        f"{file}: was saved with {newest} and is another one; give --resume {earlier}"
    )
    file.unlink()
    shutil.rmtree(earlier.parent)
    assert error_of_both(server, images, tmp_path / "run").endswith(
        f"{file}: was saved with {newest} and cannot be read: No such file or directory; there is "
        "no earlier checkpoint"
    )

    shutil.rmtree(exp)
    said = "--shard_heads: --k 2 gives each super-class 1 sub-classes, fewer than the 2 processes"
    assert said in error_of_both(server, images, tmp_path / "run", "--k", "2")


def error_of_both(server: Server, images: Path, folder: Path, *flags: str) -> str:
    """The last line of both processes of a run that ends with status 2."""
    for output in folder.glob("output_*"):
        output.unlink()
    more = ["--epochs", "3", *flags]
    processes = server.start(images, folder, 2, flags=SHARDED, more=more, silence=0)
    assert server.wait(processes) == [2, 2], output_of(folder)
    first, second = ((folder / f"output_{rank}").read_text().splitlines() for rank in range(2))
    assert first[-1] == second[-1]
    return first[-1]

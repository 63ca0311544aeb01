"""The folder of a resumed run: damaged logs, older checkpoints, a disk without room."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ErrorLine
from runs import assert_same_weights

import main

Train = Callable[..., Path]

DAMAGED_METRICS = {
    "[1]\n": "metrics.jsonl: not a JSON object on each line: line 1 has no metrics of an epoch",
    '{"epoch": "x"}\n': "metrics.jsonl: not a JSON object on each line: line 1 has no metrics of",
    "": "metrics.jsonl has the epochs [] and should have [0]; repair it, or give another --exp",
    '{"epoch": 0}\n{"epoch": 0}\n': "metrics.jsonl has the epochs [0, 0] and should have [0]; rep",
    '{"epoch": -1}\n': "metrics.jsonl has the epochs [-1] and should have [0]; repair it, or give",
}


@pytest.mark.parametrize("content", DAMAGED_METRICS)
def test_damaged_metrics_are_not_continued(
    tree: Path, train: Train, error_line: ErrorLine, content: str
) -> None:
    folder = train(tree)
    (folder / "metrics.jsonl").write_text(content)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    error = error_line(main, tree, "--resume", folder / "checkpoint.pth.tar", "--epochs", "2")
    assert DAMAGED_METRICS[content] in error
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_resume_from_a_checkpoint_with_clusters_end(tree: Path, train: Train) -> None:
    """Older checkpoints say where `clusters` ended, which isn't needed."""
    whole = train(tree, "--epochs", "2", exp="whole")
    cut = train(tree, exp="cut")
    newest = cut / "checkpoint.pth.tar"
    checkpoint = torch.load(newest, weights_only=True)
    torch.save({**checkpoint, "clusters_end": 7, "clusters_digest": "of others"}, newest)
    train(tree, "--resume", str(newest), "--epochs", "2", exp="cut")
    assert_same_weights(whole / "checkpoint.pth.tar", newest)
    assert (whole / "clusters").read_bytes() == (cut / "clusters").read_bytes()


def test_a_disk_without_room_leaves_the_logs_as_they_were(
    tree: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(tree)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: it needs .*bytes") as error:
        train(tree, "--resume", str(folder / "checkpoint.pth.tar"), "--epochs", "2")
    assert error.value.filename == str(folder / "clusters")
    del before[folder / "log.txt"]
    for path, content in before.items():
        assert path.read_bytes() == content

"""The folder of a run that is resumed: what does not fit is refused, what came later set aside."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import load_metrics

import main
from system import cli

Train = Callable[..., Path]

DAMAGED_METRICS = {
    "[1]\n": "metrics.jsonl: not a JSON object on each line: line 1 is no epoch's",
    '{"a": 1}\n': "metrics.jsonl: not a JSON object on each line: line 1 is no epoch's",
    '{"epoch": "x"}\n': "metrics.jsonl: not a JSON object on each line: line 1 is no epoch's",
    '{"epoch": 0}\n{"epoch": 0}\n': "does not have a line for each epoch before 1, in order, but [",
    '{"epoch": -1}\n': "does not have a line for each epoch before 1, in order, but [-1]; mend it",
}


@pytest.mark.parametrize("content", DAMAGED_METRICS)
def test_damaged_metrics_are_not_continued(
    tree: Path, train: Train, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    folder = train(tree)
    (folder / "metrics.jsonl").write_text(content)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    flags = [str(tree), "--resume", str(folder / "checkpoint.pth.tar"), "--epochs", "2"]
    capsys.readouterr()
    assert cli.run(main.main, main.parse_args, flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert DAMAGED_METRICS[content] in error
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_lost_metrics_are_begun_anew_and_the_log_says_so(tree: Path, train: Train) -> None:
    folder = train(tree)
    (folder / "metrics.jsonl").unlink()
    train(tree, "--resume", str(folder / "checkpoint.pth.tar"), "--epochs", "2")
    assert [line["epoch"] for line in load_metrics(folder)] == [1]
    assert "metrics.jsonl was lost: it begins anew" in (folder / "log.txt").read_text()


def test_a_disk_without_room_for_what_is_set_aside_is_told_of_that(
    tree: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(tree, "--checkpoints", "3")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    early = folder / "checkpoints" / "checkpoint_1.pth.tar"
    with pytest.raises(OSError, match=r"No space left on device: it needs [\d,]+ bytes") as error:
        train(tree, "--resume", str(early))
    assert error.value.filename == str(folder / "set_aside" / "001" / "clusters")
    del before[folder / "log.txt"]
    for path, content in before.items():
        assert path.read_bytes() == content
    assert not (folder / "set_aside" / "001").exists()

"""The original's helpers in `util`: the list that grows on disk, means, decay."""

import itertools
import os
import pickle
from pathlib import Path

import pytest
import torch

from util import AverageMeter, Logger, learning_rate_decay

EPOCHS = [[[0, 2], [], [1]], [[1], [0, 2], []], [[70000, 2**31], [5], [5, 5]], "a", {"b": 1.5}]


def load(path: Path) -> object:
    with path.open("rb") as file:
        return pickle.load(file)


def test_one_pickle_load_gives_the_whole_list(tmp_path: Path) -> None:
    log = Logger(tmp_path / "clusters")
    for count, item in enumerate(EPOCHS, 1):
        log.log(item)
        assert load(log.path) == log.data == EPOCHS[:count]


def test_a_log_is_continued_by_the_next_process(tmp_path: Path) -> None:
    Logger(tmp_path / "clusters").log(EPOCHS[0])
    Logger(tmp_path / "clusters").log(EPOCHS[1])
    assert load(tmp_path / "clusters") == EPOCHS[:2]


def test_the_list_is_loadable_after_a_kill_at_any_byte(tmp_path: Path) -> None:
    """Cut what `log` writes after every byte: the file still holds a whole list, and the next item
    can be appended."""
    log = Logger(tmp_path / "clusters")
    log.log(EPOCHS[0])
    before, end = log.path.read_bytes(), log.end
    log.log(EPOCHS[2])
    after = log.path.read_bytes()
    tail = after[len(before) :]
    torn = [before + tail[:written] for written in range(len(tail) + 1)]
    assert after == before[:end] + after[end : end + 1] + before[end + 1 :] + tail
    for content in torn:
        log.path.write_bytes(content)
        assert load(log.path) == EPOCHS[:1]
        continued = Logger(log.path)
        continued.log(EPOCHS[1])
        assert load(log.path) == EPOCHS[:2]


def test_appending_does_not_read_or_rewrite_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Logger(tmp_path / "clusters")
    item = [list(range(100))] * 10
    sizes = []
    for _ in range(30):
        log.log(item)
        sizes.append(log.path.stat().st_size)
    growth = {b - a for a, b in itertools.pairwise(sizes)}
    assert len(growth) == 1

    def no_reading(*args: object) -> None:
        raise AssertionError("the list was read again")

    monkeypatch.setattr("cluster.pickles.load_plain", no_reading)
    log.log(item)


def test_a_rewritten_list_has_the_bytes_that_logging_gives(tmp_path: Path) -> None:
    log, other = Logger(tmp_path / "clusters"), Logger(tmp_path / "other")
    for item in EPOCHS:
        log.log(item)
    other.log("an item that goes")
    other.rewrite(iter(EPOCHS[:-1]))
    assert load(other.path) == EPOCHS[:-1]
    other.log(EPOCHS[-1])
    assert other.path.read_bytes() == log.path.read_bytes()


def test_a_rewrite_that_fails_leaves_the_list(tmp_path: Path) -> None:
    log = Logger(tmp_path / "clusters")
    log.log(EPOCHS[0])
    with pytest.raises(ZeroDivisionError):
        log.rewrite(1 / number for number in (1, 0))
    assert log.data == EPOCHS[:1]
    log.log(EPOCHS[1])
    assert load(log.path) == EPOCHS[:2]


def test_a_list_that_would_run_code_is_not_loaded(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'canary'}",)

    (tmp_path / "clusters").write_bytes(pickle.dumps([Hostile()]))
    with pytest.raises(pickle.UnpicklingError, match=r"it refers to \w+\.system"):
        _ = Logger(tmp_path / "clusters").data
    assert not (tmp_path / "canary").exists()


def test_average_meter() -> None:
    meter = AverageMeter()
    assert meter.avg == 0
    meter.update(2.0, 3)
    meter.update(6.0)
    assert (meter.val, meter.sum, meter.count, meter.avg) == (6.0, 12.0, 4, 3.0)
    meter.reset()
    assert (meter.val, meter.count) == (0.0, 0)


def test_learning_rate_decay_follows_its_formula() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=9.0, weight_decay=1e-2)
    learning_rate_decay(optimizer, t=300, lr_0=0.1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / (1 + 0.1 * 0.01 * 300) ** 0.5)

"""Work in pieces, with results that are kept."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.svm_jobs import Pieces
from system.errors import Fault

done: list[int] = []


def work(data: np.ndarray, number: int, factor: float) -> dict[str, Any]:
    done.append(number)
    if factor < 0:
        raise KeyboardInterrupt
    return {"value": float(data[number] * factor)}


def in_process(data: np.ndarray, number: int) -> dict[str, Any]:
    return {"shared": isinstance(data, np.memmap), "value": float(data[number])}


DATA = np.arange(10.0)
THREE: dict[str, dict[str, Any]] = {f"below/{n}": {"number": n} for n in (3, 1, 2)}


def killed(data: np.ndarray, number: int) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    done.clear()


def test_results_come_in_order_and_no_piece_is_done_twice(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path / "kept", {"seed": 1}, 1, False)
    expected = [{"value": 1.5}, {"value": 0.5}, {"value": 1.0}]
    assert pieces.results("", work, DATA, THREE, factor=0.5) == expected
    assert pieces.results("", work, DATA, THREE, factor=0.5) == expected
    assert done == [3, 1, 2]
    more = {"new": {"number": 9}, **THREE}
    assert pieces.results("", work, DATA, more, factor=0.5) == [{"value": 4.5}, *expected]
    assert done == [3, 1, 2, 9]


@pytest.mark.parametrize("change", ["about", "setting", "damaged", "not a table"])
def test_a_result_with_other_settings_is_computed_again(
    tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces = Pieces(tmp_path, {"seed": 1}, 1, False)
    pieces.results("", work, DATA, THREE, factor=0.5)
    factor, path = 0.5, tmp_path / "below" / "1.json"
    if change == "about":
        saved = json.loads(path.read_text())
        saved["about"]["seed"] = 2
        path.write_text(json.dumps(saved))
    elif change == "setting":
        factor = 0.25
    else:
        path.write_text('{"about": ' if change == "damaged" else "[1]")
    done.clear()
    found = pieces.results("", work, DATA, THREE, factor=factor)
    assert found[1] == {"value": factor}
    assert done == ([3, 1, 2] if change == "setting" else [1])
    said = {
        "about": "1 results are computed again; below/1.json: made with other settings (seed 2 →",
        "setting": "3 results are computed again; below/3.json: made with other settings (factor",
    }
    assert said.get(change, "below/1.json: damaged") in capsys.readouterr().err


def test_results_before_an_interruption_are_kept(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, {}, 1, False)
    settings = {f"{n}": {"number": n, "factor": 1.0 if n < 2 else -1.0} for n in range(4)}
    (tmp_path / ".2.json.abcd_123.tmp").touch()
    with pytest.raises(KeyboardInterrupt):
        pieces.results("", work, DATA, settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.json", "1.json"]
    done.clear()
    with pytest.raises(KeyboardInterrupt):
        pieces.results("", work, DATA, settings)
    assert done == [2]


def test_below_adds_settings_to_the_key(tmp_path: Path) -> None:
    below = Pieces(tmp_path, {"seed": 1}, 1, False).below("conv1", layer=1)
    below.keep("all", {"costs": (1, 2)}, {"x": 1})
    saved = json.loads((tmp_path / "conv1" / "all.json").read_text())
    assert saved["about"] == {"seed": 1, "layer": 1, "costs": [1, 2]}
    assert below.kept("all", {"costs": (1, 2)}) == ({"x": 1}, "")
    other = "made with other settings (costs [1, 2] → [1, 3])"
    assert below.kept("all", {"costs": (1, 3)}) == (None, other)


def test_nothing_is_kept_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pieces = Pieces(None, {}, 1, False).below("conv1")
    for _ in range(2):
        pieces.results("", work, DATA, THREE, factor=1.0)
    assert len(done) == 6
    assert list(tmp_path.iterdir()) == []


def test_processes_share_large_arrays() -> None:
    large = np.arange(200_000.0)  # 1.6 MB
    found = Pieces(None, {}, 2, False).results("", in_process, large, THREE)
    assert found == [{"shared": True, "value": float(n)} for n in (3, 1, 2)]


def test_a_killed_process_is_a_fault() -> None:
    with pytest.raises(Fault, match="one of --jobs 2 was killed, as the kernel does when memory"):
        Pieces(None, {}, 2, False).results("", killed, DATA, THREE)

"""Slices of a checkpoint in files of their own, also where a save fails half-way."""

from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.checkpoint import save_checkpoint
from checkpoints.folder import NEWEST, PREVIOUS
from system.errors import InputError
from training.slices import read_slices, slices_apart


def contents(epoch: int, step: int = 0) -> dict[str, Any]:
    rows = {"sub.weight": torch.full((2, 3), float(epoch))}
    return {"epoch": epoch, "step": step, "heads": {"super": 1}, "slices": {"heads": rows}}


def save(folder: Path, epoch: int) -> None:
    made = contents(epoch)
    with slices_apart(folder, made):
        save_checkpoint(folder / NEWEST, made, folder / PREVIOUS)


def read(path: Path) -> dict[str, Any]:
    checkpoint = torch.load(path, weights_only=True)
    read_slices(checkpoint, path)
    return checkpoint["heads"]


def files(folder: Path) -> list[str]:
    return sorted(path.name.split(".")[0] for path in folder.glob("heads/*"))


def test_both_checkpoints_have_their_slices(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        save(tmp_path, epoch)
    assert files(tmp_path) == ["epoch_0002_step_000000", "epoch_0003_step_000000"]
    for name, epoch in ((NEWEST, 3), (PREVIOUS, 2)):
        heads = read(tmp_path / name)
        assert heads["super"] == 1
        assert torch.equal(heads["sub.weight"], torch.full((2, 3), float(epoch)))
    assert (tmp_path / NEWEST).stat().st_size < 3000


def test_a_save_that_fails_leaves_the_old_slices(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with pytest.raises(RuntimeError, match="killed"), slices_apart(tmp_path, contents(2)):
        raise RuntimeError("killed")
    assert torch.equal(read(tmp_path / NEWEST)["sub.weight"], torch.ones(2, 3))
    save(tmp_path, 3)
    assert files(tmp_path) == ["epoch_0001_step_000000", "epoch_0003_step_000000"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "heads").write_text("a file")
    with pytest.raises(InputError, match="heads: File exists"), slices_apart(tmp_path, contents(1)):
        raise AssertionError("there is nothing to save beside")


def test_a_checkpoint_without_slices_is_left_alone(tmp_path: Path) -> None:
    made = {"epoch": 1, "heads": {}}
    with slices_apart(tmp_path, made):
        pass
    read_slices(made, tmp_path / NEWEST)
    assert made == {"epoch": 1, "heads": {}}
    assert files(tmp_path) == []


def test_malformed_digests_are_one_line(tmp_path: Path) -> None:
    malformed: list[Any] = ["abc", [], {}]
    for wrong in malformed:
        with pytest.raises(InputError, match="its 'slices' are malformed"):
            read_slices({"epoch": 1, "step": 0, "slices": wrong}, tmp_path / NEWEST)

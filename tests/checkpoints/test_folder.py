"""A run's checkpoints: damage anywhere is noticed, and the checkpoint before it takes over."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ErrorLine
from runs import assert_same_weights, load_clusters, without_times

import main
from checkpoints.checkpoint import load_model, read_checkpoint, save_checkpoint
from checkpoints.folder import (
    NEWEST,
    PREVIOUS,
    checkpoints_of,
    instead_of_damaged,
    is_sound,
    remove_old,
    sound_before,
    sound_checkpoints,
)
from checkpoints.torch_file import load_torch_file
from system.errors import InputError

Train = Callable[..., Path]


def flip(path: Path, place: float = 0.5, bit: int = 3) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def saved(folder: Path, places: dict[str, tuple[int, int]]) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    for name, (epoch, step) in places.items():
        state = {"epoch": epoch, "step": step, "state_dict": {"w": torch.arange(900.0)}}
        save_checkpoint(folder / name, state)
    return folder


PLACES = {
    NEWEST: (2, 0),
    PREVIOUS: (1, 0),
    "checkpoints/checkpoint_1.pth.tar": (0, 9),
    "checkpoints/checkpoint_2.pth.tar": (1, 5),
    "checkpoints/checkpoint_10.pth.tar": (2, 0),
}


def names(folder: Path, paths: Any) -> list[str]:
    return [str(path.relative_to(folder)) for path in paths]


def test_a_flipped_bit_anywhere_is_noticed_unless_it_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "c.pth.tar"
    state: dict[str, Any] = {
        "epoch": 3,
        "w": torch.arange(40.0),
        "settings": {"lr": 0.1, "arch": "tiny"},
    }
    save_checkpoint(path, state)
    content = path.read_bytes()
    rng = random.Random(0)
    noticed = harmless = 0
    for place in range(0, len(content), 4):
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        if not is_sound(path):
            noticed += 1
            continue
        loaded, *_ = load_torch_file(path)
        assert torch.equal(loaded.pop("w"), state["w"]), place
        assert loaded == {name: value for name, value in state.items() if name != "w"}, place
        harmless += 1
    assert noticed > 100, "data and its positions"
    assert harmless > 100, "padding and duplicated entries"


def test_a_flipped_weight_is_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "c.pth.tar"
    torch.save({"arch": "alexnet", "state_dict": {"w": torch.zeros(5000)}}, path)
    flip(path)
    assert torch.load(path)["state_dict"]["w"].count_nonzero() == 1, "torch doesn't notice"
    with pytest.raises(InputError, match=r"c.pth.tar: damaged: .*data/0' in it are not those"):
        read_checkpoint(path)


def test_files_without_checksums_load(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, tmp_path / "c.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_torch_file(tmp_path / "c.pt")[0]["w"].tolist() == [1, 1, 1]


def test_checkpoints_are_listed_from_the_latest_on(tmp_path: Path) -> None:
    folder = saved(tmp_path, PLACES)
    wanted = [NEWEST, *(f"checkpoints/checkpoint_{n}.pth.tar" for n in (10, 2))]
    wanted += [PREVIOUS, "checkpoints/checkpoint_1.pth.tar"]
    assert names(folder, checkpoints_of(folder)) == wanted
    flip(folder / NEWEST)
    cut_off(folder / wanted[2])
    assert names(folder, sound_checkpoints(folder)) == [wanted[1], *wanted[3:]]


@pytest.mark.parametrize("damage", [flip, cut_off])
def test_the_sound_checkpoint_before_a_damaged_one_is_found(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = saved(tmp_path, PLACES)
    numbered = [folder / "checkpoints" / f"checkpoint_{n}.pth.tar" for n in (1, 2, 10)]
    damage(numbered[2])
    damage(folder / NEWEST)
    damage(numbered[1])
    assert sound_before(folder / NEWEST) == folder / PREVIOUS
    if damage is flip:  # its place is still readable
        assert sound_before(numbered[1]) == folder / PREVIOUS
    else:
        assert sound_before(numbered[1]) == numbered[0]
    damage(numbered[0])
    assert sound_before(numbered[0]) is None
    elsewhere = shutil.copy(numbered[0], folder / "other.pth.tar")
    assert sound_before(Path(elsewhere)) is None, "not a checkpoint of this run"


def test_a_sound_checkpoint_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path, PLACES)
    assert instead_of_damaged(folder / NEWEST) == folder / NEWEST
    assert instead_of_damaged(folder / "gone") == folder / "gone"
    assert capsys.readouterr().err == ""


def test_the_last_numbered_checkpoints_are_kept(tmp_path: Path) -> None:
    folder = saved(tmp_path, PLACES)
    remove_old(folder, 2)
    left = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert left == ["checkpoint_10.pth.tar", "checkpoint_2.pth.tar"]
    assert (folder / NEWEST).exists()
    assert (folder / PREVIOUS).exists()


@pytest.mark.parametrize("damage", [flip, cut_off])
def test_damaged_checkpoints_do_not_count_as_kept(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = saved(tmp_path, PLACES)
    damage(folder / "checkpoints/checkpoint_10.pth.tar")
    remove_old(folder, 2)
    left = {path.name for path in (folder / "checkpoints").iterdir()}
    assert left >= {"checkpoint_1.pth.tar", "checkpoint_2.pth.tar"}
    remove_old(folder, 1)
    left = {path.name for path in (folder / "checkpoints").iterdir()}
    assert "checkpoint_2.pth.tar" in left
    assert "checkpoint_1.pth.tar" not in left


def test_the_previous_checkpoint_is_kept_without_hard_links_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError

    for links in (True, False):
        if not links:
            monkeypatch.setattr(Path, "hardlink_to", fail)
        for epoch in range(3):
            save_checkpoint(tmp_path / NEWEST, {"epoch": epoch}, tmp_path / PREVIOUS)
        assert torch.load(tmp_path / NEWEST)["epoch"] == 2
        assert torch.load(tmp_path / PREVIOUS)["epoch"] == 1


@pytest.mark.parametrize("damage", [flip, cut_off])
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(
    damage: Callable[[Path], None],
    tree: Path,
    train: Train,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--no-report", "--epochs"]
    whole = train(tree, *flags, "3", exp="whole")
    cut = train(tree, *flags, "2", exp="cut")
    newest = cut / NEWEST
    damage(newest)
    with pytest.raises(
        InputError, match=rf"{newest}: .*; the earlier checkpoint {cut / PREVIOUS} is "
    ):
        load_model(newest)
    capsys.readouterr()
    train(tree, *flags, "3", "--resume", str(newest), exp="cut")
    assert all(map(is_sound, (newest, cut / PREVIOUS))), "the damaged one is gone"
    assert capsys.readouterr().err == (
        f"warning: {newest} is damaged: resuming from {cut / PREVIOUS}, the last sound one before "
        "it\n"
    )
    assert f"resuming from {cut / PREVIOUS}" in (cut / "log.txt").read_text()
    assert_same_weights(whole / NEWEST, newest)
    assert load_clusters(whole) == load_clusters(cut)
    assert without_times(whole) == without_times(cut)


def test_a_file_of_old_torch_is_not_called_damaged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"epoch": 3}, tmp_path / NEWEST, _use_new_zipfile_serialization=False)
    (tmp_path / "checkpoints").mkdir()
    torch.save({"epoch": 1}, tmp_path / "checkpoints" / "checkpoint_1.pth.tar")
    assert instead_of_damaged(tmp_path / NEWEST) == tmp_path / NEWEST
    assert capsys.readouterr().err == ""


def test_a_damaged_checkpoint_without_another_is_one_line(
    tree: Path, train: Train, error_line: ErrorLine
) -> None:
    folder = train(tree, "--no-report")
    (folder / PREVIOUS).unlink()
    flip(folder / NEWEST)
    error = error_line(main, tree, "--resume", folder / NEWEST, "--epochs", "2")
    assert f"{folder / NEWEST}: damaged: " in error


def test_keep_limits_a_runs_numbered_checkpoints(tree: Path, train: Train) -> None:
    folder = train(tree, "--epochs", "2", "--checkpoints", "2", "--keep", "2", "--no-report")
    left = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert left == ["checkpoint_4.pth.tar", "checkpoint_5.pth.tar"]
    args = main.parse_args([str(tree), "--resume", str(folder / NEWEST)])
    assert args.keep == 2

"""The checkpoints of an experiment folder: when each was saved, and which are sound."""

import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkpoints.torch_file import is_intact, load_without_weights
from models.timm_names import timm_name
from system import cli
from system.errors import InputError

NEWEST, PREVIOUS = "checkpoint.pth.tar", "checkpoint.previous.pth.tar"
NUMBERED = re.compile(r"checkpoint_(\d+)\.pth\.tar")
NOWHERE = (-1, -1)


def folder_of(checkpoint: Path) -> Path:
    """The experiment folder that a checkpoint was saved in."""
    folder = checkpoint.parent
    return folder.parent if folder.name == "checkpoints" else folder


def place_of(path: str | Path) -> tuple[int, int] | None:
    """The epoch and step at which a checkpoint was saved; None if the file isn't a checkpoint.
    The weights are not read."""
    try:
        state = load_without_weights(path)
        return int(state["epoch"]), int(state.get("step", 0))
    except Exception:  # damaged bytes make an unpickler raise almost anything
        return None


def checkpoints_of(folder: Path) -> list[Path]:
    """All checkpoints of a run, sound or not, the latest first; those without a place come last."""
    names = (folder / NEWEST, folder / PREVIOUS)
    saved = [*filter(Path.exists, names), *sorted(folder.glob("checkpoints/*.pth.tar"))]
    # sorted() is stable: of equal places, NEWEST stays first
    return sorted(saved, key=lambda path: place_of(path) or NOWHERE, reverse=True)


def sound_checkpoints(folder: Path) -> Iterator[Path]:
    """The sound checkpoints of a run, the latest first. Each is read when the iterator reaches
    it, and not kept in memory."""
    return (path for path in checkpoints_of(folder) if is_sound(path))


def is_sound(path: Path) -> bool:
    """Whether a checkpoint can be loaded and has the bytes that were written."""
    return is_intact(path) and place_of(path) is not None


def sound_before(path: Path) -> Path | None:
    """The last sound checkpoint that a run saved before a damaged one; None if there is none, or if
    `path` is not in a run's folder."""
    saved = checkpoints_of(folder_of(path))
    if path not in saved:
        return None
    place, number = place_of(path), _number(path)

    def is_before(other: Path) -> bool:
        if path.name == NEWEST:
            return True
        if place is not None:
            return (place_of(other) or NOWHERE) <= place
        others = _number(other)  # without a place, the file's number is the only clue
        return number is not None and others is not None and others < number

    before = (other for other in saved if other != path and is_before(other))
    return next(filter(is_sound, before), None)


def instead_of_damaged(path: Path) -> Path:
    """The checkpoint itself or, if it is damaged, the last sound one before it in its run, with a
    warning. If there is none, it is the checkpoint itself, and loading it will fail."""
    if is_sound(path) or _is_of_old_torch(path):
        return path
    before = sound_before(path)
    if before is not None:
        cli.warn(f"{path} is damaged: resuming from {before}, the last sound one before it")
    return before or path


def last_sound(folder: Path) -> Path | None:
    """The last sound checkpoint of a run; None if the run has no checkpoints. Warns of damaged ones
    that were saved later, or at an unknown place.

    Raises:
        InputError: no checkpoint is sound.
    """
    saved = checkpoints_of(folder)
    found = next(sound_checkpoints(folder), None)
    if found is None:
        if saved:
            other = (
                "there is no other"
                if len(saved) == 1
                else "the other checkpoints there are damaged, too"
            )
            raise InputError(f"{saved[0]}: not a checkpoint, or a damaged one; {other}")
        return None
    later = saved[: saved.index(found)]
    for path in [*later, *(path for path in saved if place_of(path) is None)]:
        cli.warn(f"{path} is damaged: resuming from {found}, the last sound one")
    return found


def remove_old(folder: Path, keep: int) -> None:
    """Delete all but the last `keep` numbered checkpoints of a run. Damaged ones don't count."""
    numbered = [path for path in checkpoints_of(folder) if _number(path) is not None]
    sound = 0
    for path in numbered if len(numbered) > keep else []:  # checking reads the files
        if sound >= keep:
            path.unlink()
        elif is_sound(path):
            sound += 1


def _is_of_old_torch(path: Path) -> bool:
    """Whether a file begins as a pickle; these have no checksums."""
    try:
        with path.open("rb") as file:
            return file.read(1) == pickle.PROTO
    except OSError:
        return False


def _number(path: Path) -> int | None:
    match = NUMBERED.fullmatch(path.name)
    return int(match[1]) if match else None


def beside(model: Path) -> Path:
    """The folder for results if `--exp` isn't given: that of the checkpoint.

    Raises:
        InputError: the network is one of timm's, which is in no folder.
    """
    if timm_name(model):
        raise InputError(f"--model {model}: has no folder for the results; give one as --exp")
    return folder_of(model)


def results_folder(path: Path, checkpoint: dict[str, Any], kind: str) -> Path:
    """The folder for a checkpoint's evaluation results: beside it, one for each epoch.

    Raises:
        InputError: as `beside`.
    """
    name = path.name.split(".")[0]
    of = f"epoch_{checkpoint.get('epoch')}" if name == "checkpoint" else name
    return beside(path) / f"{kind}_{of}"


def kept_features(path: Path, exp: Path | None) -> Path:
    """The folder for features that evaluations keep: in `--exp` if it is given, else beside the
    checkpoint, where all evaluations find them."""
    return (exp or folder_of(path)) / "features"

"""Work saved under a key, so that the same command continues it.

A key is a dict of all settings and digests that the work depends on. If the key differs, continuing
a run is an error (`check_key`, `begin`), and a result is computed again (`load_result`,
`load_arrays`). In a `Store`, work with other keys lies side by side.
"""

import contextlib
import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from system import cli
from system.errors import InputError
from system.files import atomic_write, remove_leftovers_of, write_text

Key = dict[str, Any]
Arrays = dict[str, np.ndarray]
KEY = "settings"  # the key's name among the arrays of a file
COUNTED = re.compile(r"([\d,]+) \([0-9a-f]{12}\)")  # a number of files, and a digest of them
ABSENT, DAMAGED = "missing", "damaged"  # reasons why a file cannot be used


def differences(before: Key, key: Key) -> str:
    """The differences between two keys, `lr 0.1 → 0.2, size 32 → 64`; empty if there are none."""
    before, key = _plain(before), _plain(key)
    changed = (name for name in {**key, **before} if before.get(name) != key.get(name))
    return ", ".join(_change(name, str(before.get(name)), str(key.get(name))) for name in changed)


def _change(name: str, before: str, now: str) -> str:
    old, new = COUNTED.fullmatch(before), COUNTED.fullmatch(now)
    if old and new:
        same = "names, bytes or times of change" if old[1] == new[1] else ""
        return f"the {name} have changed: {same or f'{old[1]} → {new[1]}'}"
    return f"{name} {before} → {now}"


def check_key(path: Path, before: Key, key: Key, advice: str) -> None:
    """Raise InputError, with the differences, unless the work in a file has the same key.

    Args:
        advice: how to start over, `give another --exp` for example.
    """
    if changed := differences(before, key):
        raise InputError(f"{path}: was made with other settings ({changed}); {advice}")


@contextlib.contextmanager
def continuing(path: Path, advice: str) -> Iterator[None]:
    """Turn any error in this block, which reads a file, into an InputError: it is damaged."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: is damaged; {advice}") from error


def begin(path: Path, key: Key, advice: str) -> bool:
    """Continue work whose key is in a JSON file, or begin it by writing that file.

    Returns whether the work had begun.

    Raises:
        InputError: the file is damaged, or has another key.
        OSError: it cannot be written.
    """
    if not path.exists():
        write_text(path, json.dumps(key) + "\n")
        return False
    with continuing(path, advice):
        check_key(path, dict(json.loads(path.read_text(encoding="utf-8"))), key, advice)
    return True


def save_result(path: Path, key: Key, result: Any) -> None:
    """Write a result as JSON, whole or not at all. The folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"about": key, "result": result}) + "\n")


def load_result(path: Path, key: Key) -> tuple[Any, str]:
    """Load a file of `save_result`. Returns (result, "") or (None, the reason it can't be used),
    such as "missing"."""
    if not path.exists():
        return None, ABSENT
    try:
        content = json.loads(path.read_text())
        changed, result = differences(content["about"], key), content["result"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, DAMAGED
    return (None, f"made with other settings ({changed})") if changed else (result, "")


def save_arrays(path: Path, key: Key, arrays: Arrays) -> None:
    """Write arrays as `.npz`, whole or not at all."""
    remove_leftovers_of(path)
    content: dict[str, Any] = {**arrays, KEY: np.array(json.dumps(key))}
    with atomic_write(path) as file:
        np.savez(file, **content)


def load_arrays(path: Path, key: Key) -> tuple[Arrays, str]:
    """Load a file of `save_arrays`. Returns (arrays, "") or ({}, the reason it can't be used)."""
    if not path.exists():
        return {}, ABSENT
    try:
        with zipfile.ZipFile(path) as members:
            if any(each.compress_type != zipfile.ZIP_STORED for each in members.infolist()):
                return {}, "compressed"  # not by us, and might fill the memory
            if members.testzip() is not None:
                return {}, DAMAGED
        with np.load(path, allow_pickle=False) as stored:
            if changed := differences(dict(json.loads(str(stored[KEY]))), key):
                return {}, f"made with other settings ({changed})"
            return {name: stored[name] for name in stored.files if name != KEY}, ""
    except Exception:  # damaged bytes make np.load raise almost anything
        return {}, DAMAGED


@dataclass(frozen=True)
class Store:
    """A folder of arrays that can be computed again, a file for each key.

    Attributes:
        folder: made when the first file is written; None keeps nothing.
    """

    folder: Path | None

    def path(self, name: str, key: Key) -> Path | None:
        """The file of some arrays: its name has a digest of the key."""
        digest = hashlib.sha256(json.dumps(_plain(key), sort_keys=True).encode()).hexdigest()
        return self.folder and self.folder / f"{name}_{digest[:12]}.npz"

    def find(self, name: str, key: Key) -> Arrays:
        """The arrays that were kept under a key; empty if there are none. Warns of a file that
        can't be used."""
        path = self.path(name, key)
        found, why = load_arrays(path, key) if path else ({}, ABSENT)
        if why not in ("", ABSENT):
            cli.warn(f"{path}: {why}; it is computed again")
        return found

    def keep(self, name: str, key: Key, arrays: Arrays) -> None:
        """Write arrays. If there is no room, or no right to write there, it is only a warning."""
        if (path := self.path(name, key)) is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_arrays(path, key, arrays)
        except OSError as error:
            cli.warn(f"not kept for the next time: {cli.reason_of(error)}")


def _plain(key: Key) -> Key:
    """The key as JSON returns it: tuples become lists."""
    return dict(json.loads(json.dumps(key, default=repr)))

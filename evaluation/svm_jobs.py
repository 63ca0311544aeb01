"""Long work in pieces: several at a time, each result in a file, so that no piece is done twice."""

import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from system.errors import Fault
from system.files import remove_leftovers
from system.kept import ABSENT, Key, load_result, save_result
from system.progress import progress

Result = dict[str, Any]


@dataclass(frozen=True)
class Pieces:
    """Computes pieces in parallel and keeps their results.

    Attributes:
        folder: for the results; made when the first one is saved. None keeps nothing.
        key: settings of all results. A result with other settings is computed again.
        jobs: number of processes.
        verbose: show progress.
        name: of the pieces, in the progress bar.
    """

    folder: Path | None
    key: Key
    jobs: int
    verbose: bool
    name: str = ""

    def below(self, name: str, **settings: Any) -> "Pieces":
        """Pieces for a subfolder, with more settings."""
        folder = None if self.folder is None else self.folder / name
        return replace(self, folder=folder, key={**self.key, **settings}, name=name)

    def results(
        self,
        label: str,
        work: Callable[..., Result],
        data: Any,
        pieces: dict[str, Key],
        **common: Any,
    ) -> list[Result]:
        """The results of `work(data, **settings)` for each piece, in the pieces' order.

        Args:
            work: a top-level function whose result can be written as JSON.
            data: large arrays in it are shared between the processes.
            pieces: each piece's settings, by its name.
            common: settings of all pieces.

        Raises:
            Fault: a process was killed.
        """
        pieces = {name: {**settings, **common} for name, settings in pieces.items()}
        if self.folder is not None and self.folder.is_dir():
            remove_leftovers(self.folder)
        found: dict[str, Result] = {}
        why: dict[str, str] = {}
        for name, settings in pieces.items():
            found[name], why[name] = self.kept(name, settings)
        missing = [name for name in pieces if why[name]]
        if unusable := [name for name in missing if why[name] != ABSENT]:
            sys.stderr.write(
                f"{self.folder}: {len(unusable)} results are computed again; {unusable[0]}.json: "
                f"{why[unusable[0]]}\n"
            )
        parallel = Parallel(n_jobs=self.jobs, return_as="generator_unordered")
        tasks = (delayed(_named)(name, work, data, pieces[name]) for name in missing)
        with progress(f"{self.name} {label}", len(missing), "pieces", self.verbose) as advance:
            try:
                for name, result in parallel(tasks):
                    self.keep(name, pieces[name], result)
                    found[name] = result
                    advance(1)
            except BrokenExecutor as error:
                raise Fault(
                    f"one of --jobs {self.jobs} was killed, as the kernel does when memory runs "
                    "out; give fewer"
                ) from error
        return list(found.values())

    def kept(self, name: str, settings: Key) -> tuple[Result, str]:
        """Load a piece's result. Returns (result, "") or (nothing, the reason it can't be used)."""
        if self.folder is None:
            return {}, ABSENT
        return load_result(self.folder / f"{name}.json", {**self.key, **settings})

    def keep(self, name: str, settings: Key, result: Result) -> None:
        """Store the result of a piece."""
        if self.folder is not None:
            save_result(self.folder / f"{name}.json", {**self.key, **settings}, result)


def _named(name: str, work: Callable[..., Result], data: Any, settings: Key) -> tuple[str, Result]:
    return name, work(data, **settings)

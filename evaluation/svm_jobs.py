"""Long work in pieces: many at a time, and each result in a file, so that none is done twice."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from system.files import remove_leftovers, write_text
from system.progress import progress

Settings = dict[str, Any]
Result = dict[str, Any]


@dataclass(frozen=True)
class Pieces:
    """How pieces are worked through, and where their results are kept.

    Attributes:
        folder: made with the first result; None keeps nothing.
        about: what all the results rest on. A result that is about something else does not count.
        jobs: processes.
        verbose: show progress.
        name: what progress calls them.
    """

    folder: Path | None
    about: Settings
    jobs: int
    verbose: bool
    name: str = ""

    def below(self, name: str, **about: Any) -> "Pieces":
        """The same in a folder below this one, on what is said here too."""
        folder = None if self.folder is None else self.folder / name
        return replace(self, folder=folder, about={**self.about, **about}, name=name)

    def results(
        self,
        label: str,
        work: Callable[..., Result],
        data: Any,
        pieces: dict[str, Settings],
        **common: Any,
    ) -> list[Result]:
        """What `work(data, **settings)` returns for each piece, in their order.

        Args:
            work: a function of a module; what it returns fits into JSON.
            data: large arrays in it are shared between the processes.
            pieces: settings by name.
            common: settings of all of them.
        """
        pieces = {name: {**settings, **common} for name, settings in pieces.items()}
        if self.folder is not None and self.folder.is_dir():
            remove_leftovers(self.folder)
        found = {name: self.kept(name, settings) for name, settings in pieces.items()}
        missing = [name for name, result in found.items() if result is None]
        parallel = Parallel(n_jobs=self.jobs, return_as="generator_unordered")
        tasks = (delayed(_named)(name, work, data, pieces[name]) for name in missing)
        with progress(f"{self.name} {label}", len(missing), "pieces", self.verbose) as advance:
            for name, result in parallel(tasks):
                self.keep(name, pieces[name], result)
                found[name] = result
                advance(1)
        return [result for result in found.values() if result is not None]

    def kept(self, name: str, settings: Settings) -> Result | None:
        """The result of a piece, if it is there."""
        if self.folder is None:
            return None
        try:
            told = json.loads((self.folder / f"{name}.json").read_text())
            return told["result"] if told["about"] == self._about(settings) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def keep(self, name: str, settings: Settings, result: Result) -> None:
        """Write the result of a piece."""
        if self.folder is not None:
            path = self.folder / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            told = {"about": self._about(settings), "result": result}
            write_text(path, json.dumps(told) + "\n")

    def _about(self, settings: Settings) -> Settings:
        return json.loads(json.dumps({**self.about, **settings}))


def _named(
    name: str, work: Callable[..., Result], data: Any, settings: Settings
) -> tuple[str, Result]:
    return name, work(data, **settings)

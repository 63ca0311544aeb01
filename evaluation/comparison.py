"""Several networks side by side, each a row of a table; runs of several seeds are one row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.verdict import Measures, best_view, over_seeds, spread, to_plain, verdict

# Keys of `verdict.NAMES`, and their names
COLUMNS = {
    "linear": "linear probe",
    "20nn": "20 nearest neighbours",
    "nmi": "NMI",
    "ari": "ARI",
    "acc": "ACC",
}


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        runs: the measures of each run.
        sources: the checkpoint of each run; empty if there is none.
        seeds: of each run; None where it is not known.
        untrained: the measures of the untrained network of each run's seed; empty if there is none
            to compare with.
    """

    name: str
    runs: Sequence[Measures]
    sources: Sequence[str] = ()
    seeds: Sequence[int | None] = ()
    untrained: Sequence[Measures] = ()

    def figures(self, column: str) -> np.ndarray:
        """The figure of each run `(R,)`, in the view in which it is higher."""
        return _figures(self.runs, column)

    def change(self, column: str) -> str | None:
        """The verdict against the untrained networks: of a single run as in `verdict`, of several
        as in `over_seeds`."""
        if not self.untrained:
            return None
        if len(self.runs) == 1:
            (before,), (after,) = self.untrained, self.runs
            return verdict(best_view(before, column), best_view(after, column))
        return over_seeds(self.figures(column) - _figures(self.untrained, column))

    def to_plain(self) -> dict[str, Any]:
        """The row as JSON holds it, with all measures of each run."""
        return {
            "name": self.name,
            "checkpoints": list(self.sources),
            "seeds": list(self.seeds),
            "figures": {column: self.figures(column).tolist() for column in COLUMNS},
            "against untrained": {column: self.change(column) for column in COLUMNS},
            "measures": [to_plain(found) for found in self.runs],
        }


def table(rows: Sequence[Row]) -> list[list[str]]:
    """The table's cells; the first row has the heads."""
    cells = [["", "runs", *COLUMNS.values()]]
    for row in rows:
        cells.append([row.name, str(len(row.seeds)) if row.seeds else ""])
        for column in COLUMNS:
            change = row.change(column)
            figure = spread(row.figures(column))
            cells[-1].append(f"{figure}, {change}" if change else figure)
    return cells


def _figures(runs: Sequence[Measures], column: str) -> np.ndarray:
    return np.array([best_view(found, column).mean() for found in runs])

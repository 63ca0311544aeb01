"""The table behind `--dim_pca auto`, on features made here."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as benchmark
from benchmarks import whitening
from system.errors import InputError


def write_set(path: Path, rows: int = 200) -> Path:
    """Four well-separated Gaussians in 40 dimensions."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 4
    centres = 3 * rng.standard_normal((4, 40))
    np.savez(path, rows=centres[labels] + rng.standard_normal((rows, 40)), labels=labels)
    return path


def run(features: Path, out: Path) -> None:
    benchmark.main(benchmark.parse_args(["whitening", str(features), "--out", str(out)]))


def test_each_cell_is_measured_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, out = write_set(tmp_path / "blobs.npz"), tmp_path / "cells.jsonl"
    run(features, out)
    cells = [json.loads(line) for line in out.read_text().splitlines()]
    assert [cell[:3] for cell in cells] == [["blobs", 160, d] for d in (8, 13, 16, 32, 0)]
    assert all(cell[3]["20nn"] > 0.9 for cell in cells if cell[2] in (8, 13))
    printed = capsys.readouterr().out
    assert "| 160 | 13 (auto) |" in printed
    assert "| 160 | not whitened |" in printed
    monkeypatch.setattr(whitening, "measure", lambda *_: pytest.fail("measured again"))
    run(features, out)
    assert capsys.readouterr().out == printed


def test_val_rows_are_not_among_the_train_rows() -> None:
    rows = np.eye(150, 150) + 0.01
    x, _, queries, _ = whitening.draw(rows, np.arange(150), 120, 0, seed=3)
    assert (len(x), len(queries)) == (120, 30)
    assert (x @ queries.T).max() < 0.5


def test_a_file_without_features_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, x=np.zeros(3))
    with pytest.raises(InputError, match=r"other.npz: give an .npz of `rows`"):
        run(path, tmp_path / "cells.jsonl")

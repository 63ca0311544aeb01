"""The table behind `--dim_pca auto`, on features made here."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as benchmark
from benchmarks import whitening
from cluster.whitening import prepare
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
    assert "| NMI | 8 | 16 | 32 | 64 | 128 | 256 | not whitened | `auto` |" in printed
    lines = [line.split(" | ") for line in printed.splitlines() if line.startswith("| 160 |")]
    assert len(lines) == 4, "NMI, 20-NN, and two of PIC"
    for line in lines:
        assert line[4:7] == [""] * 3, "64 and more are more than the features have"
        assert line[8].endswith("(13) |")
    monkeypatch.setattr(whitening, "preparations", lambda *_: pytest.fail("measured again"))
    run(features, out)
    assert capsys.readouterr().out == printed


def test_val_rows_are_not_among_the_train_rows() -> None:
    train, val = whitening.draw(150, 120, seed=3)
    assert sorted([*train, *val]) == list(range(150))
    assert len(val) == 30


def test_one_pca_serves_all_dimensions() -> None:
    rows = np.random.default_rng(0).standard_normal((90, 20)).astype(np.float32) * np.arange(1, 21)
    found = whitening.preparations(rows, [4, 16, 0])
    for dim, preparation in found.items():
        x, expected = preparation.apply(rows), prepare(rows, dim).apply(rows)
        np.testing.assert_allclose(x @ x.T, expected @ expected.T, atol=1e-4)


def test_a_file_without_features_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, x=np.zeros(3))
    with pytest.raises(InputError, match=r"other.npz: give an .npz of `rows`"):
        run(path, tmp_path / "cells.jsonl")

"""The curves of runs side by side."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ErrorLine
from PIL import Image
from run_folder import epoch_line, make_run

from visu import curves

PATHS = ["a/0.png", "a/1.png", "b/2.png"]


def test_each_run_has_a_column_and_each_row_one_scale() -> None:
    long = [{**epoch_line(epoch), "knn_top1": None} for epoch in range(5)]
    for epoch in (0, 4):
        long[epoch]["knn_top1"] = {"10": 0.5 + 0.1 * epoch}
    figure = curves.draw_curves({"healthy": long, "cut": long[:1]})
    grid = np.array(figure.axes).reshape(3, 2)
    assert [ax.get_title() for ax in grid[0]] == ["healthy", "cut"]
    for left, right in grid:
        assert left.get_ylim() == right.get_ylim()
    drawn = {line.get_label(): line.get_xydata().tolist() for line in grid[2, 0].lines}
    assert drawn["10 neighbours are right"] == [[0, 0.5], [4, 0.9]]
    assert drawn["purity"] == [[e, pytest.approx(0.61 + 0.03 * e)] for e in range(5)]
    loss, guessing = grid[0, 0].lines
    assert loss.get_xydata().tolist() == [[e, line["convnet_loss"]] for e, line in enumerate(long)]
    assert set(guessing.get_ydata()) == {long[0]["ln_k"]}


def test_curves_without_values_are_left_out() -> None:
    figure = curves.draw_curves({"run": [epoch_line(epoch, labelled=False) for epoch in range(3)]})
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss", "NMI, ARI of the clusters"]
    assert [line.get_label() for line in figure.axes[1].lines] == ["NMI, before"]


def draw(*command: object) -> None:
    curves.main(curves.parse_args([str(word) for word in command]))


def test_the_picture_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(tmp_path / name, tmp_path, PATHS, epochs=3) for name in ("a", "b")]
    out = tmp_path / "curves.png"
    draw(*runs, "--out", out)
    assert capsys.readouterr().out == f"written to {out}\n"
    width, height = Image.open(out).size
    assert (width, height) == (round(2 * 3.4 * 110), round(3 * 2.2 * 110))
    draw(*runs, "--names", "healthy", "collapsed", "--out", tmp_path / "curves.svg")
    assert "<svg" in (tmp_path / "curves.svg").read_text()


def test_bad_input_is_one_line(tmp_path: Path, error_line: ErrorLine) -> None:
    run = make_run(tmp_path / "run", tmp_path, PATHS, epochs=2)
    begun = make_run(tmp_path / "begun", tmp_path, PATHS, epochs=0)
    other = make_run(tmp_path / "other", tmp_path, PATHS, epochs=1)
    (other / "metrics.jsonl").write_text(json.dumps({"epoch": 0}) + "\n")
    out = tmp_path / "curves.png"
    for command, named in (
        ((begun,), begun),
        ((tmp_path / "missing",), tmp_path / "missing"),
        ((other,), other / "metrics.jsonl"),
        ((run, run), "--names"),
        ((run, "--names", "a", "b"), "--names"),
        ((run, "--out", tmp_path / "curves.gif"), "--out"),
    ):
        error = error_line(curves, *command, *(() if "--out" in command else ("--out", out)))
        assert str(named) in error
        assert not out.exists()

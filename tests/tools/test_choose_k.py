"""The number of clusters of the features in a file."""

from pathlib import Path

import numpy as np
import pytest
from arrays import sphere
from conftest import ErrorLine
from PIL import Image

from cluster.choosing import choose_k
from tools import choose_k as tool
from visu.choice import draw_choice


def run(*command: object) -> None:
    tool.main(tool.parse_args([*map(str, command), "--device", "cpu"]))


def test_a_table_a_picture_and_a_suggestion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", 3 * sphere(90, 5))
    run(tmp_path / "x.npy", "--dim_pca", 0, "--out", tmp_path / "k.png")
    choice = choose_k(sphere(90, 5))
    head, *rows, said, written = capsys.readouterr().out.splitlines()
    assert head.split() == ["k", "loss", "silhouette", "stability"]
    assert [row.split()[0] for row in rows] == ["2", "3", "4"]
    tried = choice.table[1]
    assert rows[1].split()[2:] == [
        f"{tried.silhouette:.3f}", "±", f"{tried.deviation:.3f}", f"{tried.stability:.3f}",
    ]  # fmt: skip
    assert said == f"suggested: --k {choice.k}, {choice.reason}"
    assert written == f"written to {tmp_path / 'k.png'}"
    with Image.open(tmp_path / "k.png") as picture:
        assert picture.size == (990, 308)


def test_the_picture_shows_the_table() -> None:
    choice = choose_k(sphere(90, 5))
    loss, silhouette, stability = draw_choice(choice).axes
    for ax, name in ((loss, "loss"), (silhouette, "silhouette"), (stability, "stability")):
        expected = [[tried.k, getattr(tried, name)] for tried in choice.table]
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), expected)
        np.testing.assert_array_equal(ax.lines[-1].get_xdata(), [choice.k, choice.k])


def test_bad_input_is_one_line(tmp_path: Path, error_line: ErrorLine) -> None:
    np.save(tmp_path / "few.npy", sphere(39))
    few = error_line(tool, f"{tmp_path / 'few.npy'}")
    assert few.endswith("few.npy: too few rows to choose a number of clusters: 39, and 40 are "
                        "needed; give a number as --k")  # fmt: skip
    np.save(tmp_path / "x.npy", sphere(50))
    assert "--out k.txt" in error_line(tool, f"{tmp_path / 'x.npy'} --out k.txt")

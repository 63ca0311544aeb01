"""Rows of runs over seeds, against numbers counted by hand."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from evaluation.comparison import COLUMNS, Row, table
from evaluation.learned import Samples
from evaluation.verdict import BETTER, UNCLEAR, WORSE, spread, to_markdown
from visu.comparison import draw_comparison


def found(linear: float, plain: float = 0.5, whitened: float = 0.4) -> dict[str, Samples]:
    """Measures with these means; 1,000 val images, five seeds of k-means."""
    samples: dict[str, Samples] = {"linear": np.arange(1000) < 1000 * linear}
    for view, mean in {"plain": plain, "whitened": whitened}.items():
        samples[f"{view}_20nn"] = np.arange(1000) < 1000 * mean
        samples |= {f"{view}_{name}": np.full(5, mean) for name in ("nmi", "ari", "acc")}
    return samples


THREE = Row(
    "exp/a | b", [found(0.6), found(0.7), found(0.8, whitened=0.55)], ["1", "2", "3"], [1, 2, 3],
    [found(0.5), found(0.55), found(0.6)],
)  # fmt: skip
ONE = Row("one", [found(0.8, 0.3, 0.2)], ["4"], [4], [found(0.5)])
RELEASED = Row("released", [found(0.9)], ["5"], [None])
PIXELS = Row("raw pixels", [found(0.4)])


def test_a_row_has_the_mean_and_deviation_of_its_runs_in_the_better_view() -> None:
    assert THREE.figures("linear").tolist() == [0.6, 0.7, 0.8]
    assert THREE.figures("nmi") == pytest.approx([0.5, 0.5, 0.55])
    heads, three, *_ = table([THREE])
    assert heads == ["", "runs", *COLUMNS.values()]
    # differences 0.1, 0.15, 0.2; the deviation of 0.5, 0.5, 0.55 is 0.05 / √3
    assert three[:3] == ["exp/a | b", "3", f"0.700 ± 0.100, {BETTER}"]
    assert three[4] == f"0.517 ± 0.029, {UNCLEAR}"


def test_a_single_run_is_compared_over_its_images_and_has_no_deviation() -> None:
    (row,) = table([ONE])[1:]
    assert row == ["one", "1", f"0.800, {BETTER}", *[f"0.300, {WORSE}"] * 4]


def test_without_untrained_networks_there_is_no_verdict() -> None:
    assert table([RELEASED, PIXELS])[1:] == [
        ["released", "1", "0.900", *["0.500"] * 4],
        ["raw pixels", "", "0.400", *["0.500"] * 4],
    ]


def test_json_has_every_run() -> None:
    plain = THREE.to_plain()
    assert (plain["checkpoints"], plain["seeds"]) == (["1", "2", "3"], [1, 2, 3])
    assert plain["figures"]["linear"] == [0.6, 0.7, 0.8]
    assert plain["against untrained"]["linear"] == BETTER
    assert [run["whitened_nmi"]["mean"] for run in plain["measures"]] == pytest.approx(
        [0.4, 0.4, 0.55]
    )
    assert RELEASED.to_plain()["against untrained"] == dict.fromkeys(COLUMNS)


def test_markdown_is_a_table_whatever_the_names() -> None:
    lines = to_markdown(table([PIXELS, THREE])).splitlines()
    assert lines[0] == "| | runs | linear probe | 20 nearest neighbours | NMI | ARI | ACC |"
    assert lines[1] == "|---|---|---|---|---|---|---|"
    assert lines[2] == "| raw pixels | | 0.400 | 0.500 | 0.500 | 0.500 | 0.500 |"
    assert lines[3].startswith(r"| exp/a \| b | 3 | 0.700 ± 0.100, better |")


def test_a_deviation_needs_several_figures() -> None:
    assert spread(np.array([0.25])) == "0.250"
    assert spread(np.array([0.2, 0.4])) == "0.300 ± 0.141"


def test_the_picture_has_a_bar_for_each_row_and_a_dot_for_each_run() -> None:
    figure = draw_comparison([PIXELS, ONE, THREE])
    assert [ax.get_title() for ax in figure.axes] == [*COLUMNS.values()]
    linear = figure.axes[0]
    assert [text.get_text() for text in linear.get_yticklabels()] == [
        "raw pixels", "one", "exp/a | b",
    ]  # fmt: skip
    bars = [bar for bar in linear.patches if isinstance(bar, Rectangle)]
    assert [bar.get_width() for bar in bars] == pytest.approx([0.4, 0.8, 0.7])
    dots = [np.asarray(line.get_xdata()).tolist() for line in linear.lines]
    assert dots == [[0.4], [0.8], [0.6, 0.7, 0.8]]
    grey, *colours = (bar.get_facecolor() for bar in bars)
    assert grey not in colours

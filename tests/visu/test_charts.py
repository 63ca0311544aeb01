"""The curves of a run as SVG: their points, and several charts in one page."""

import math
import re
from xml.etree import ElementTree

import pytest
from run_folder import epoch_line

from visu.charts import DETAILS, LEARNING, chart_svg, histogram_svgs, keep_known, number

SVG = "{http://www.w3.org/2000/svg}"
METRICS = [epoch_line(epoch) for epoch in range(3)]
LOSS = LEARNING[0]


def points(path: str) -> list[tuple[float, float]]:
    """The corners of a path of straight lines."""
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path)]


def curves(svg: str, colour: str) -> list[list[tuple[float, float]]]:
    """The lines of a colour inside the axes."""
    paths = ElementTree.fromstring(svg).iter(f"{SVG}path")
    inside = [path for path in paths if path.get("clip-path") is not None]
    return [points(path.get("d", "")) for path in inside if colour in path.get("style", "")]


def ticks(svg: str, axis: str) -> list[tuple[float, float]]:
    """The places of an axis's ticks, and the numbers beside them."""
    found = []
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        if re.search(f"-{axis}tick_", group.get("id", "")):
            mark, text = group.find(f".//{SVG}use"), group.find(f".//{SVG}text")
            assert mark is not None
            assert text is not None
            found.append((float(mark.get(axis, "nan")), float((text.text or "").replace(",", ""))))
    return found


def read_off(places: list[float], axis: list[tuple[float, float]]) -> list[float]:
    """The values at places, by the ticks of a linear axis."""
    (p0, v0), (p1, v1) = axis[0], axis[-1]
    return [v0 + (place - p0) * (v1 - v0) / (p1 - p0) for place in places]


def test_curves_show_their_values() -> None:
    svg = chart_svg(LOSS, METRICS, "loss")
    (curve,) = curves(svg, "var(--blue)")
    epochs, losses = zip(*curve, strict=True)
    assert read_off(list(epochs), ticks(svg, "x")) == pytest.approx([0, 1, 2], abs=1e-3)
    assert read_off(list(losses), ticks(svg, "y")) == pytest.approx([1.3, 1.2, 1.1], abs=1e-3)


def test_bars_of_a_histogram_are_as_high_as_their_counts() -> None:
    counts = [[4, 0, 1], [2, 3, 0]]
    for svg, row in zip(histogram_svgs([1, 2, 4, 8], counts, "sizes"), counts, strict=True):
        (outline,) = curves(svg, "var(--blue)")
        heights = read_off([y for _, y in outline], ticks(svg, "y"))
        assert {round(height, 2) for height in heights} == {0, *row}
        assert ticks(svg, "y")[-1][1] == 4, "one scale for all"


def test_a_probe_of_every_few_epochs_is_one_line() -> None:
    lines = [epoch_line(epoch) for epoch in range(7)]
    for line in lines:
        line["knn_top1"] = {"10": 0.5} if line["epoch"] % 3 == 0 else None
    (curve,) = curves(chart_svg(LEARNING[2], lines, "share"), "var(--red)")
    assert len(curve) == 3, "0, 3 and 6"


def test_only_curves_with_a_value_are_kept() -> None:
    unlabelled = [epoch_line(epoch, labelled=False) for epoch in range(2)]
    kept = {
        c.title: [s[0] for s in c.series] for c in keep_known([*LEARNING, *DETAILS], unlabelled)
    }
    assert kept["NMI, ARI of the clusters"] == ["NMI, before"]
    assert "share of the images" not in kept
    assert kept["sizes of the clusters"] == ["largest", "median", "smallest"]


@pytest.mark.parametrize("value", [None, "1", [1], math.nan, math.inf, 10**400, 1e308])
def test_only_numbers_that_can_be_drawn_are_drawn(value: object) -> None:
    assert number({"convnet_loss": value}, "convnet_loss") is None
    assert number({"convnet_loss": 1.5}, "convnet_loss.mean") is None
    lines = [METRICS[0], {**METRICS[1], "convnet_loss": value}, METRICS[2]]
    (curve,) = curves(chart_svg(LOSS, lines, "loss"), "var(--blue)")
    assert len(curve) == 2


def test_charts_of_one_page_have_different_ids() -> None:
    drawn = [chart_svg(chart, METRICS, f"chart{n}") for n, chart in enumerate([LOSS, LOSS])]
    drawn += histogram_svgs([1, 2, 4], [[1, 2], [1, 2]], "sizes")
    ids = [re.findall(r'\bid="([^"]*)"', svg) for svg in drawn]
    for svg, own in zip(drawn, ids, strict=True):
        assert set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', svg)) <= {
            *((name, "") for name in own), *(("", name) for name in own)
        }  # fmt: skip
    flat = [name for own in ids for name in own]
    assert len(flat) == len(set(flat))


@pytest.mark.parametrize("chart", [*LEARNING, *DETAILS], ids=lambda chart: chart.title)
def test_charts_have_the_colours_and_font_of_the_page(chart: object) -> None:
    svg = chart_svg(chart, METRICS, "chart")  # type: ignore[arg-type]
    assert set(re.findall("#[0-9a-f]{6}", svg)) == {"#b0b0b0"}, "the grid, for light and dark"
    assert "font-family" not in svg
    assert chart.series[0][0] in ElementTree.fromstring(svg).itertext()  # type: ignore[attr-defined]

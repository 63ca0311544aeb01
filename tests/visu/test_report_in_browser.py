"""A run's page in a real browser: it fits, its curves can be read, its search finds, and no name of
a file or a folder becomes HTML."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from browser import open_page
from conftest import tiny, write_images
from PIL import Image
from run_folder import make_run

from visu.report_page import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page


def chart(page: "Page", title: str) -> "Locator":
    """The card of a chart."""
    return page.locator("#charts .card").filter(has=page.get_by_role("heading", name=title))


def point_at(page: "Page", card: "Locator", along: float, touch: bool = False) -> None:
    """Move the mouse, or a finger, to a place in a chart: 0 is its left end, 1 its right one."""
    card.scroll_into_view_if_needed()
    box = card.locator("svg").bounding_box()
    assert box
    x = box["x"] + 54 + along * (box["width"] - 54 - 12)
    go = page.touchscreen.tap if touch else page.mouse.move
    go(x, box["y"] + box["height"] / 2)


def shown_clusters(page: "Page") -> list[str]:
    """The headings of the clusters that are shown."""
    titles = page.locator("#gallery h3").all()
    return [(title.evaluate("title => title.firstChild.data")) for title in titles]


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_a_desk_in_light_and_dark(
    finished: Path, browser: "Browser", width: int, dark: bool
) -> None:
    weights = tiny(sobel=True).state_dict()
    torch.save({"arch": "alexnet", "state_dict": weights}, finished / "checkpoint.pth.tar")
    with open_page(browser, write_report(finished), width, dark) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#charts svg").count() == 8
        assert page.locator(".filters img").count() == 8
        assert page.locator(".pictures img").count() > 20
        assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
        for text in page.locator("svg text").all():
            box = text.bounding_box()
            assert box
            assert box["height"] >= 11, "readable"
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        page.screenshot(path=finished / "shot.png")
    brightness = np.asarray(Image.open(finished / "shot.png").convert("L")).mean()
    assert brightness < 80 if dark else brightness > 200


@pytest.mark.parametrize("touch", [False, True])
def test_a_curve_tells_its_values(finished: Path, browser: "Browser", touch: bool) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    with open_page(browser, write_report(finished), 400, touch=touch) as page:
        loss = chart(page, "Loss of the convnet")
        legend = loss.locator(".legend")
        assert " ".join(legend.inner_text().split()) == "epoch 2 convnet loss 1.100 ln k 1.386"
        for along, line in ((0.02, lines[0]), (0.45, lines[1]), (0.98, lines[2])):
            point_at(page, loss, along, touch)
            assert f"epoch {line['epoch']}" in legend.inner_text()
            assert f"convnet loss {line['convnet_loss']:.3f}" in legend.inner_text()
            seconds = chart(page, "Seconds per stage").locator(".legend").inner_text()
            assert f"training {line['seconds']['training']:.1f}" in seconds, "all show the same"
        point_at(page, chart(page, "Normalised mutual"), 0.0, touch)
        assert "epoch before –" in chart(page, "Normalised mutual").locator(".legend").inner_text()


def test_curves_lie_where_their_values_are(finished: Path, browser: "Browser") -> None:
    """By the grid lines, whose values are written beside them."""
    with open_page(browser, write_report(finished)) as page:
        svg = chart(page, "Loss of the convnet").locator("svg")
        ticks = svg.evaluate(
            "svg => [...svg.querySelectorAll('.grid')].map((line, i) => "
            "[+line.getAttribute('y1'), +svg.querySelectorAll('text')[i].textContent])"
        )
        path = svg.locator("path").first.get_attribute("d") or ""
        heights = [float(point.split()[1]) for point in path[1:].split("L")]
        (y0, v0), (y1, v1) = ticks[0], ticks[-1]
        values = [v0 + (y - y0) * (v1 - v0) / (y1 - y0) for y in heights]
        assert values == pytest.approx([1.3, 1.2, 1.1], abs=0.003)


def test_curves_are_drawn_when_there_is_room(finished: Path, browser: "Browser") -> None:
    with open_page(browser, write_report(finished), width=1) as page:
        assert page.locator("svg path").count() == 0
        page.set_viewport_size({"width": 400, "height": 900})
        page.locator("svg path").first.wait_for()
        narrow = page.locator("svg path").first.bounding_box()
        page.set_viewport_size({"width": 600, "height": 900})
        page.wait_for_timeout(100)
        wide = page.locator("svg path").first.bounding_box()
        assert narrow
        assert wide
        assert wide["width"] == pytest.approx(narrow["width"] + 200, abs=2)


def test_the_histogram_shows_another_epoch(finished: Path, browser: "Browser") -> None:
    with open_page(browser, write_report(finished)) as page:
        card = page.locator("#histogram")
        assert "the finished network" in card.inner_text()
        assert "1 cluster empty" in card.inner_text()
        card.locator("input").fill("0")
        assert "epoch 0" in card.locator(".legend").inner_text()
        point_at(page, card, 0.01)
        assert "1 image:" in card.locator(".legend").inner_text()


def test_a_cluster_is_found_by_its_number_and_an_image_by_its_name(
    finished: Path, browser: "Browser"
) -> None:
    last = np.load(finished / "assignments" / "epoch_0003.npy")
    last[7] = -1
    np.save(finished / "assignments" / "epoch_0003.npy", last)
    names = (finished / "images.txt").read_text().splitlines()
    with open_page(browser, write_report(finished, images=2), 400) as page:
        assert sorted(shown_clusters(page)) == ["Cluster 0", "Cluster 1", "Cluster 3"]
        page.get_by_label("Order").select_option("number")
        assert shown_clusters(page) == ["Cluster 0", "Cluster 1", "Cluster 3"]
        page.get_by_label("Find").fill("3")
        assert shown_clusters(page)[0] == "Cluster 3"
        for image in (5, 25, 39):
            page.get_by_label("Find").fill(names[image].upper())
            assert shown_clusters(page) == [f"Cluster {last[image]}"]
            assert page.locator(".names").inner_text() == names[image]
        page.get_by_label("Find").fill(names[7])
        assert f"left out, unreadable: {names[7]}" in page.locator("#found").inner_text()
        page.get_by_label("Find").fill("nowhere")
        assert shown_clusters(page) == []
        assert "0 images with “nowhere” in the name" in page.locator("#found").inner_text()
        page.get_by_label("Find").fill("")
        assert len(shown_clusters(page)) == 3


def test_the_names_in_a_cluster_can_be_read(finished: Path, browser: "Browser") -> None:
    last = np.load(finished / "assignments" / "epoch_0003.npy")
    names = np.array((finished / "images.txt").read_text().splitlines())
    with open_page(browser, write_report(finished)) as page:
        page.get_by_label("Find").fill("1")
        page.get_by_label("Find").fill("")
        page.get_by_label("Order").select_option("number")
        page.get_by_text("Names of its images").nth(1).click()
        assert page.locator(".names").inner_text().split("\n") == names[last == 1].tolist()


def test_hundreds_of_clusters_come_a_few_at_a_time(tmp_path: Path, browser: "Browser") -> None:
    paths = [f"{number}.png" for number in range(120)]
    exp = make_run(tmp_path / "exp", tmp_path, paths, epochs=1, planned=1)
    np.save(exp / "assignments" / "epoch_0001.npy", np.arange(120) // 2)
    with open_page(browser, write_report(exp)) as page:
        assert len(shown_clusters(page)) == 24
        page.get_by_text("Show more of the 36 clusters left").click()
        page.get_by_text("Show more of the 12 clusters left").click()
        assert len(set(shown_clusters(page))) == 60
        assert page.locator("#more").is_hidden()


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_run_that_has_just_begun_is_shown(
    tmp_path: Path, browser: "Browser", epochs: int
) -> None:
    """Without labels, without images, without a checkpoint."""
    paths = [f"{number}.png" for number in range(10)]
    exp = make_run(tmp_path / "exp", tmp_path, paths, epochs=epochs, labelled=False)
    with open_page(browser, write_report(exp), 400) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        assert "There is no checkpoint" in page.locator("#filters").inner_text()
        if epochs == 0:
            assert "No epoch is done yet" in page.locator("#curves").inner_text()
            assert "There are no clusters yet" in page.locator("#clusters").inner_text()
            return
        titles = page.locator("#charts h3").all_inner_texts()
        assert "Purity" not in titles
        assert "Loss of the convnet" in titles
        assert page.locator("select option").all_inner_texts() == ["largest first", "by number"]
        assert sorted(page.locator(".missing").all_inner_texts()) == paths


def test_a_probe_of_every_few_epochs_is_one_line(tmp_path: Path, browser: "Browser") -> None:
    exp = make_run(tmp_path / "exp", tmp_path, [f"{i}.png" for i in range(4)], epochs=7)
    lines = [json.loads(line) for line in (exp / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        probed = line["epoch"] % 3 == 0
        line["knn_top1"] = {"10": 0.5 + 0.01 * line["epoch"]} if probed else None
    (exp / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with open_page(browser, write_report(exp)) as page:
        chart = page.locator(".chart", has=page.get_by_role("heading", name="Nearest neighbours"))
        assert (chart.locator("path").get_attribute("d") or "").count("L") == 2, "0, 3 and 6"
        assert "epoch 6" in chart.inner_text()
        assert "0.56" in chart.inner_text()


def test_names_are_never_html(tmp_path: Path, browser: "Browser") -> None:
    folder = tmp_path / '"><img src=x onerror=document.title=1>'
    hostile = [
        "<script>document.title=1</script>.png",
        "</script><!--<script>document.title=2.png",
        "&lt;b.png",
    ]
    (folder / "<script>document.title=1<").mkdir(parents=True)
    (folder / "<").mkdir()
    for path, source in zip(hostile, write_images(tmp_path / "made", 3), strict=True):
        source.rename(folder / path)
    paths = [f"{folder.name}/{path}" for path in hostile] + ["b/missing<b>.png"]
    exp = make_run(tmp_path / "<i>exp", tmp_path, paths, epochs=1, planned=1)
    with open_page(browser, write_report(exp)) as page:
        assert "<i>exp" in page.locator("h1").inner_text()
        for path in paths:
            page.get_by_label("Find").fill(path)
            assert page.locator(".names").inner_text() == path
            assert page.locator(".hit").get_attribute("title") == path
        assert f"% in folder {folder.name}" in page.locator("#gallery").inner_text()
        page.get_by_label("Find").fill("<img src=x onerror=document.title=3>")
        page.wait_for_timeout(100)
        assert page.title() == f"{tmp_path.name}/<i>exp: DeepCluster"
        assert page.locator("script").count() == 2
        assert page.locator("h1 *").count() == 0

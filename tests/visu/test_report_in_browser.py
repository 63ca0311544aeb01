"""A run's page in a real browser: its layout, its search and its slider."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from browser import open_page
from conftest import tiny
from PIL import Image
from run_folder import make_run

from visu.report_page import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def shown_clusters(page: "Page") -> list[str]:
    """The headings of the cards that are shown, in the order on the page."""
    cards = [card for card in page.locator("#gallery article").all() if card.is_visible()]
    boxes = [card.bounding_box() or {"x": 0, "y": 0} for card in cards]
    order = sorted(range(len(cards)), key=lambda i: (boxes[i]["y"], boxes[i]["x"]))
    return [cards[i].locator("h3").evaluate("h3 => h3.firstChild.data.trim()") for i in order]


def shown_names(page: "Page") -> list[str]:
    """The names of images that are shown."""
    return [n.inner_text() for n in page.locator(".names li").all() if n.is_visible()]


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_a_desk_in_light_and_dark(
    finished: Path, browser: "Browser", width: int, dark: bool
) -> None:
    weights = tiny(sobel=True).state_dict()
    torch.save({"arch": "alexnet", "state_dict": weights}, finished / "checkpoint.pth.tar")
    with open_page(browser, write_report(finished), width, dark) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#charts svg:visible").count() == 8
        assert page.locator(".filters img:visible").count() == 8
        assert page.locator(".pictures img").count() > 20
        assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth > 0)")
        for text in page.locator("svg text:visible").all():
            box = text.bounding_box()
            assert box
            assert box["height"] >= 11, "readable"
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        page.screenshot(path=finished / "shot.png")
    brightness = np.asarray(Image.open(finished / "shot.png").convert("L")).mean()
    assert brightness < 80 if dark else brightness > 200


def test_the_slider_shows_the_histogram_of_another_epoch(
    finished: Path, browser: "Browser"
) -> None:
    with open_page(browser, write_report(finished)) as page:
        card = page.locator("#histogram")
        assert card.locator("svg:visible").count() == 1
        assert "the finished network: 1 cluster empty" in card.inner_text()
        card.locator("input").fill("0")
        assert card.locator("svg:visible").count() == 1
        assert "epoch 0: 1 cluster empty" in card.inner_text()


def test_the_page_can_be_read_without_its_script(finished: Path, browser: "Browser") -> None:
    page = browser.new_page(java_script_enabled=False)
    page.goto(write_report(finished).as_uri())
    assert page.locator("#charts svg:visible").count() == 8
    assert page.locator("article:visible").count() == 3
    assert page.get_by_text("nmb_cluster").is_visible()
    assert page.locator("input:visible").count() == 0, "nothing that would do nothing"
    page.close()


def test_a_cluster_is_found_by_its_number_and_an_image_by_its_name(
    finished: Path, browser: "Browser"
) -> None:
    last = np.load(finished / "assignments" / "epoch_0003.npy")
    last[7] = -1
    np.save(finished / "assignments" / "epoch_0003.npy", last)
    names = (finished / "images.txt").read_text().splitlines()
    with open_page(browser, write_report(finished, images=2), 400) as page:
        first = shown_clusters(page)
        assert sorted(first) == ["Cluster 0", "Cluster 1", "Cluster 3", "Left out, unreadable"]
        page.get_by_label("Find").fill("3")
        assert shown_clusters(page)[0] == "Cluster 3"
        for image in (5, 25, 39):
            page.get_by_label("Find").fill(names[image].upper())
            assert shown_clusters(page) == [f"Cluster {last[image]}"]
            assert shown_names(page) == [names[image]]
        page.get_by_label("Find").fill(names[7])
        assert shown_clusters(page) == ["Left out, unreadable"]
        assert shown_names(page) == [names[7]]
        page.get_by_label("Find").fill("nowhere")
        assert shown_clusters(page) == []
        found = "0 images with “nowhere” in the name; 0 clusters in all"
        assert page.locator("#found").inner_text() == found
        page.get_by_label("Find").fill("")
        assert shown_clusters(page) == first
        assert shown_names(page) == []


def test_a_search_shows_up_to_a_hundred_clusters_also_those_without_pictures(
    tmp_path: Path, browser: "Browser"
) -> None:
    paths = [f"{number}.png" for number in range(240)]
    exp = make_run(tmp_path / "exp", tmp_path, paths, epochs=1, planned=1)
    np.save(exp / "assignments" / "epoch_0001.npy", np.arange(240) // 2)
    with open_page(browser, write_report(exp, clusters=1, images=1)) as page:
        assert len(shown_clusters(page)) == 1
        page.get_by_label("Find").fill("7")
        assert shown_clusters(page)[0] == "Cluster 7"
        page.get_by_label("Find").fill("png")
        assert page.locator("article:visible").count() == 100
        said = "240 images with “png” in the name; 120 clusters in all; the first 100 are shown"
        assert page.locator("#found").inner_text() == said


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_run_that_has_just_begun_is_shown(
    tmp_path: Path, browser: "Browser", epochs: int
) -> None:
    """The run has no labels, no images and no checkpoint."""
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
        assert "share of the images" not in [title.lower() for title in titles]
        assert "loss" in [title.lower() for title in titles]
        assert sorted(page.locator(".missing").all_inner_texts()) == paths
        page.get_by_label("Find").fill(paths[3])
        assert page.locator(".hit:visible").get_attribute("title") == paths[3]

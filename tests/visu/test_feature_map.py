"""visu/feature_map.py: the content of the map, and its page in a browser."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from browser import open_page
from conftest import ErrorLine, write_images
from PIL import Image

from cluster.clusters import Clusters
from cluster.components import Components
from clustering import Kmeans
from system import cli
from system.files import write_text
from training.finished_run import read_run
from visu import feature_map
from visu.contact_sheet import thumbnail
from visu.page import fill_template, to_webp

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CPU = ["--device", "cpu", "--precision", "fp32", "--workers", "0"]
EVIL = "a/<script>alert(1)</script>.png"


def draw(*words: str | Path) -> int:
    return cli.run(feature_map.main, feature_map.parse_args, [*map(str, words), *CPU])


def content_of(page: Path) -> dict[str, Any]:
    text = page.read_text()
    start = text.index('id="content">') + len('id="content">')
    return dict(json.loads(text[start : text.index("</script>", start)]))


def opened(encoded: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")


def test_the_map_of_a_run(
    train: Callable[..., Path], tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exp = train(tree)
    assert draw(exp) == 0
    assert "feature_map.html: 40 images, 0." in capsys.readouterr().out
    run, found = read_run(exp), content_of(exp / "feature_map.html")
    assert found["name"] == run.images.names
    assert found["cluster"] == run.assignment(1).tolist()
    assert [found["labels"][label] for label in found["label"]] == run.images.folders
    assert found["about"] == "40 images; t-SNE, clusters of epoch 1"
    for i in (0, 39):
        drawn = np.asarray(opened(found["picture"][i]), float)
        original = np.asarray(thumbnail(run.images, i, 64), float)
        assert np.abs(drawn - original).mean() < 12  # but for the compression


CROPS = "--nmb_crops 2 --size_crops 32 --min_scale_crops 0.4 --max_scale_crops 1"


@pytest.mark.parametrize("method", ["swav", "deepclusterv2"])
def test_the_map_of_other_methods_has_the_finished_networks_clusters(
    method: str, train: Callable[..., Path], tree: Path
) -> None:
    exp = train(tree, "--method", method, *CROPS.split(), "--hidden_mlp", "8", "--feat_dim", "4")
    assert draw(exp) == 0
    found = content_of(exp / "feature_map.html")
    assert found["cluster"] == read_run(exp).assignment(1).tolist()
    assert found["about"] == "40 images; t-SNE, clusters of epoch 1"


def test_the_same_seed_gives_the_same_bytes(train: Callable[..., Path], tree: Path) -> None:
    exp = train(tree)
    pages = []
    for seed in ("3", "3", "4"):
        draw(exp, "--points", "20", "--seed", seed, "--out", exp / "map.html")
        pages.append((exp / "map.html").read_bytes())
    assert pages[0] == pages[1] != pages[2]
    names = content_of(exp / "map.html")["name"]
    assert len(set(names)) == 20
    assert names == [name for name in read_run(exp).images.names if name in names]  # in their order


def test_other_images_get_the_cluster_of_the_nearest_centroid(
    train: Callable[..., Path], tree: Path
) -> None:
    exp = train(tree)
    out = tree.parent / "map.html"
    assert draw(exp / "checkpoint.pth.tar", tree, "--out", out) == 0
    found = content_of(out)  # the run's own images have the clusters of k-means
    assert found["cluster"] == read_run(exp).assignment(1).tolist()
    assert found["labels"] == ["a", "b", "c"]
    assert draw(exp, tree / "b", "--out", out) == 0
    found = content_of(out)
    assert found["cluster"] == read_run(exp).assignment(1)[10:30].tolist()
    assert found["label"] is None


def test_a_network_without_clusters_has_a_map(train: Callable[..., Path], tree: Path) -> None:
    exp = train(tree)
    released = torch.load(exp / "checkpoint.pth.tar", weights_only=True)
    released = {name: released[name] for name in ("epoch", "arch", "state_dict", "optimizer")}
    torch.save(released, tree.parent / "released.pth.tar")
    out = tree.parent / "map.html"
    assert draw(tree.parent / "released.pth.tar", tree, "--out", out) == 0
    found = content_of(out)
    assert found["cluster"] is None
    assert len(set(found["x"])) > 30


def test_a_run_under_way_has_a_map(train: Callable[..., Path], tree: Path) -> None:
    exp = train(tree, "--epochs", "2")
    checkpoint = torch.load(exp / "checkpoint.pth.tar", weights_only=True)
    checkpoint["clusters"]["epoch"] = 1  # as after an epoch: of the network before it
    torch.save(checkpoint, exp / "checkpoint.pth.tar")
    (exp / "assignments" / "epoch_0002.npy").unlink()
    assert draw(exp) == 0
    found = content_of(exp / "feature_map.html")
    assert found["about"] == "40 images; t-SNE, clusters of epoch 1"
    assert found["cluster"] == read_run(exp).assignment(1).tolist()


def test_an_unreadable_image_is_not_on_the_map(train: Callable[..., Path], tree: Path) -> None:
    exp = train(tree)
    (tree / "b" / "003.png").write_bytes(b"no picture")
    assert draw(exp) == 0
    found = content_of(exp / "feature_map.html")
    assert len(found["x"]) == len(found["picture"]) == 39
    assert "b/003.png" not in found["name"]
    assert found["cluster"] == np.delete(read_run(exp).assignment(1), 13).tolist()


def test_pca_matches_the_svd_of_the_centred_features() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(50, 12)) * np.linspace(9, 1, 12)).astype(np.float16)
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * values[:2]
    xy = feature_map.place(rows, "pca", seed=0)
    assert (xy.min(), xy.max()) == (0, 1)
    for axis in (0, 1):  # except for the sign, the origin and the common scale
        assert abs(np.corrcoef(xy[:, axis], expected[:, axis])[0, 1]) > 0.9999
    assert np.ptp(xy[:, 1]) / np.ptp(xy[:, 0]) == pytest.approx(
        np.ptp(expected[:, 1]) / np.ptp(expected[:, 0]), rel=1e-3
    )


def test_tsne_keeps_groups_apart() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(160) // 20
    rows = (10 * rng.normal(size=(8, 20))[group] + rng.normal(size=(160, 20))).astype(np.float16)
    xy = feature_map.place(feature_map.whiten(rows, None, None)[0], "tsne", seed=0)
    apart = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (group[apart.argmin(axis=1)] == group).mean() > 0.95


def test_the_map_shows_the_space_that_was_clustered_or_another_one() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 30)).astype(np.float16)
    kmeans = Kmeans(3, pca=5)
    kmeans.cluster(rows)
    clusters = Clusters.of(kmeans, 0)
    cases: list[tuple[Clusters | None, Components | None, int]] = [
        (clusters, None, 5), (clusters, 7, 7), (clusters, "auto", 8),
        (None, None, 8), (None, 0, 30),
    ]  # fmt: skip
    for found, pca, dimensions in cases:
        assert feature_map.whiten(rows, found, pca)[0].shape == (100, dimensions)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{exp}/checkpoint.pth.tar"], "give DIR as well"),
        (["{exp}", "--out", "{exp}"], "is a folder"),
        (["{exp}", "nowhere"], "nowhere: no such folder"),
        (["{exp}", "{few}"], "3 images with features: a map needs 10 or more"),
        (["{tree}"], "no images.txt"),
        (["{exp}", "--dim_pca", "9", "--method", "pca"], "--dim_pca 9: whitens only for --method"),
        (["{exp}", "--dim_pca", "33"], "--dim_pca 33: more than the features' 32 dimensions"),
    ],
)
def test_bad_input_is_reported_in_one_line(
    train: Callable[..., Path],
    tree: Path,
    words: list[str],
    message: str,
    error_line: ErrorLine,
) -> None:
    exp = train(tree)
    write_images(tree.parent / "few", 3)
    places = {"exp": exp, "tree": tree, "few": tree.parent / "few"}
    assert message in error_line(feature_map, *(word.format(**places) for word in words), *CPU)
    assert not (exp / "feature_map.html").exists()


def test_missing_images_are_an_error_that_asks_for_dir(
    train: Callable[..., Path], tree: Path, error_line: ErrorLine
) -> None:
    exp = train(tree)
    moved = tree.rename(tree.parent / "elsewhere")
    assert "give the folder or list as DIR" in error_line(feature_map, exp, *CPU)
    assert draw(exp, moved) == 0


# The page.

CORNERS = {"x": [0.0, 1.0, 0.0, 1.0, 0.5], "y": [0.0, 0.0, 1.0, 1.0, 0.5]}
COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Five images: one in each corner, and one in the middle whose name is a script."""
    content = {
        **CORNERS,
        "title": "Features of <b>exp</b>",
        "about": "5 images",
        "name": ["a/cat.png", "a/Dog.png", "b/cat & dog.png", "b/\udcff.png", EVIL],
        "picture": [to_webp(Image.new("RGB", (64, 64), colour)) for colour in COLOURS],
        "cluster": [1, 12, 12, 2, -1],
        "label": [0, 0, 1, 1, 0],
        "labels": ["<i>a</i>", "b"],
    }
    write_text(tmp_path / "map.html", fill_template("feature_map.html", {"map": content}))
    return tmp_path / "map.html"


def on_screen(page: "Page", image: int) -> tuple[float, float]:
    box = page.locator("canvas").bounding_box()
    assert box is not None
    x, y = page.evaluate(f"place({image})")
    return box["x"] + x, box["y"] + y


def pixel(picture: "Locator") -> tuple[int, ...]:
    """The colour in the middle of an element."""
    image = Image.open(io.BytesIO(picture.screenshot())).convert("RGB")
    found = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_shows_the_image_under_the_pointer(
    browser: "Browser", page: Path, width: int, dark: bool
) -> None:
    with open_page(browser, page, width, dark) as shown:
        assert not shown.locator("#card").is_visible()
        for image, colour in enumerate(COLOURS):
            shown.mouse.move(*on_screen(shown, image))
            assert shown.locator("#card").is_visible()
            assert np.abs(np.subtract(pixel(shown.locator("#picture")), colour)).max() < 12
            box, frame = (shown.locator(name).bounding_box() for name in ("#card", "canvas"))
            assert box is not None
            assert frame is not None
            assert frame["x"] <= box["x"]
            assert box["x"] + box["width"] <= frame["x"] + frame["width"] + 1
        shown.mouse.move(5, 5)
        assert not shown.locator("#card").is_visible()
        assert shown.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
        ground = pixel(shown.locator("#about"))
        assert (max(ground) < 120) == dark


def test_names_are_shown_as_text(browser: "Browser", page: Path) -> None:
    assert page.read_text().count("<script") == 2  # its own
    with open_page(browser, page) as shown:
        shown.on("dialog", lambda dialog: pytest.fail("the name has run"))
        assert shown.locator("h1").inner_text() == "Features of <b>exp</b>"
        shown.mouse.move(*on_screen(shown, 4))
        assert shown.locator("#name").inner_text() == EVIL
        assert shown.locator("#of").inner_text() == "label <i>a</i>"  # it has no cluster
        shown.fill("#search", "<script>")
        assert shown.locator("#found img").get_attribute("alt") == EVIL
        shown.select_option("#colour", "label")
        assert shown.locator("#legend").inner_text().split() == ["<i>a</i>", "b"]


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("dog", [1, 2]),
        (" CLUSTER 12 ", [1, 2]),
        ("cluster 1", [0]),
        ("B", [2, 3]),  # the label
        ("nothing like it", []),
    ],
)
def test_the_search_finds_names_labels_and_clusters(
    browser: "Browser", page: Path, text: str, images: list[int]
) -> None:
    with open_page(browser, page) as shown:
        shown.fill("#search", text)
        assert shown.locator("#status").inner_text() == f"{len(images)} of 5 images"
        listed = shown.locator("#found img")
        assert listed.count() == len(images)
        for place, image in enumerate(images):
            assert np.abs(np.subtract(pixel(listed.nth(place)), COLOURS[image])).max() < 12
        shown.fill("#search", "")
        assert listed.count() == 0
        assert shown.locator("#status").inner_text() == ""


def test_dots_that_the_search_does_not_find_are_dim_and_have_no_card(
    browser: "Browser", page: Path
) -> None:
    def strength(shown: "Page", image: int) -> int:
        """The difference of a dot's colour to the background."""
        pixels = np.asarray(Image.open(io.BytesIO(shown.screenshot())).convert("RGB"), int)
        column, row = map(int, on_screen(shown, image))
        return int(np.abs(pixels[row, column] - pixels[row + 12, column]).max())

    with open_page(browser, page) as shown:
        before = strength(shown, 0)
        shown.fill("#search", "cluster 12")
        assert strength(shown, 0) < before / 3
        assert strength(shown, 1) > 0.9 * before
        shown.mouse.move(*on_screen(shown, 0))
        assert not shown.locator("#card").is_visible()
        shown.mouse.move(*on_screen(shown, 1))
        assert shown.locator("#name").inner_text() == "a/Dog.png"


def test_a_tap_keeps_the_card_and_offers_the_cluster(browser: "Browser", page: Path) -> None:
    with open_page(browser, page, 400, touch=True) as shown:
        shown.touchscreen.tap(*on_screen(shown, 2))
        assert shown.locator("#name").inner_text() == "b/cat & dog.png"
        shown.locator("#mates").click()
        assert shown.locator("#status").inner_text() == "2 of 5 images"
        shown.locator("#found button").first.click()
        assert shown.locator("#name").inner_text() == "a/Dog.png"


def test_the_map_moves_and_zooms_around_the_pointer(browser: "Browser", page: Path) -> None:
    with open_page(browser, page) as shown:
        corner, middle = on_screen(shown, 2), on_screen(shown, 4)
        shown.mouse.move(*corner)
        shown.mouse.wheel(0, -400)
        shown.wait_for_function("view.zoom > 2")
        assert on_screen(shown, 2) == pytest.approx(corner, abs=0.5)
        assert on_screen(shown, 4)[0] > middle[0] + 100
        shown.mouse.down()
        shown.mouse.move(corner[0] + 60, corner[1] + 40, steps=3)
        shown.mouse.up()
        moved = on_screen(shown, 2)
        assert moved == pytest.approx((corner[0] + 60, corner[1] + 40), abs=0.5)
        shown.click("#whole")
        assert on_screen(shown, 4) == pytest.approx(middle, abs=0.5)
        shown.click("#closer")
        assert shown.evaluate("view.zoom") == pytest.approx(1.6)

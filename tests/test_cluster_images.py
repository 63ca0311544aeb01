"""cluster_images.py: the folder that it writes, how it goes on, and its pages in a browser."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from browser import open_page
from conftest import ErrorLine, read_file, tiny, write_images
from PIL import Image
from torch import Tensor

import assign
import cluster_images
from checkpoints.checkpoint import save_checkpoint
from checkpoints.networks import open_network
from data.decode import read_pixels
from data.transforms import central_crop, to_input
from features import extraction
from features.duplicates import NEAR, Duplicate
from models import MODELS
from models.timm_names import DEFAULT
from system import cli
from tools import move_back

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CPU = ["--workers", "0", "--device", "cpu", "--precision", "fp32"]
SMALL = ["--model", "timm:test_efficientnet@none", "--size", "64", "--batch", "8"]
Run = Callable[..., Path]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """44 pictures in three folders, with an exact copy, a larger and a JPEG version of one, and a
    file that is no picture."""
    monkeypatch.chdir(tmp_path)
    root = Path("photos")
    for label, count in (("a", 10), ("b", 20), ("c", 10)):
        write_images(root / label, count, seed=ord(label))
    shutil.copy(root / "a/003.png", root / "c/copy.png")
    picture = Image.open(root / "b/005.png")
    picture.resize((picture.width * 2, picture.height * 2)).save(root / "a/larger.png")
    Image.open(root / "c/001.png").save(root / "a/other.jpg", quality=95)
    (root / "b/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    return root


@pytest.fixture
def run(photos: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def cluster(*words: object, out: str = "out") -> Path:
        command = [str(photos), "--out", out, *SMALL, *map(str, words), *CPU]
        assert cli.run(cluster_images.main, cluster_images.parse_args, command) == 0
        return Path(out)

    return cluster


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def rows_of(paths: list[str]) -> np.ndarray:
    """Embeddings of unit length, by the network alone, in float64."""
    model = open_network(Path(SMALL[1]), None, 64).model.eval()
    crops = [central_crop(64, model.crop)(read_file(read_pixels, path)) for path in paths]
    with torch.inference_mode():
        rows = model.embedding(to_input(torch.stack(crops), torch.device("cpu"), model.std))
    return (rows / rows.norm(dim=1, keepdim=True)).double().numpy()


def test_clusters_are_those_of_the_nearest_centroids(run: Run) -> None:
    out = run("--k", 4)
    found = table(out / "clusters.csv")
    paths = [row["path"] for row in found]
    assert paths == sorted(paths)
    assert len(paths) == 43
    centroids = torch.load(out / "clusters.pth", weights_only=True)["clusters"]["centroids"]
    gaps = rows_of(paths)[:, None] - centroids.double().numpy()
    distances = np.linalg.norm(gaps, axis=2)
    assert [int(row["cluster"]) for row in found] == distances.argmin(axis=1).tolist()
    told = [float(row["distance"]) for row in found]
    np.testing.assert_allclose(told, distances.min(axis=1), atol=2e-3)
    assert [row["label"] for row in found] == [Path(path).parent.name for path in paths]


def test_the_parquet_file_has_places_and_thumbnails(run: Run) -> None:
    out = run("--k", 3)
    found = pyarrow.parquet.read_table(out / "clusters.parquet").to_pydict()
    lines = table(out / "clusters.csv")
    for name in ("path", "label"):
        assert found[name] == [line[name] for line in lines]
    assert list(map(str, found["cluster"])) == [line["cluster"] for line in lines]
    xy = np.array([found["x"], found["y"]])
    assert (xy.min(axis=1) == 0).all()
    assert xy.max() == 1
    for path, thumbnail in zip(found["path"], found["thumbnail"], strict=True):
        small = np.asarray(Image.open(thumbnail).convert("RGB"), float)
        assert small.shape == (80, 80, 3)
        model = open_network(Path(SMALL[1]), None, 64).model
        seen: Tensor = central_crop(64, model.crop)(read_file(read_pixels, path))
        assert np.abs(small.mean((0, 1)) - seen.double().mean((1, 2)).numpy()).max() < 8


def test_duplicates_are_found_and_outliers_ranked(run: Run, photos: Path) -> None:
    out = run("--k", 3, "--near", 0.001)
    groups: dict[str, list[tuple[str, str]]] = {}
    for line in table(out / "duplicates.csv"):
        groups.setdefault(line["group"], []).append((line["kind"], Path(line["path"]).name))
    assert [("best", "003.png"), ("exact copy", "copy.png")] in groups.values()
    assert [("best", "larger.png"), ("near duplicate", "005.png")] in groups.values()
    outliers = table(out / "outliers.csv")
    for name in ("rank_to_centroid", "rank_to_neighbours"):
        assert sorted(int(line[name]) for line in outliers) == list(range(1, 44))
    sums = [int(line["rank_to_centroid"]) + int(line["rank_to_neighbours"]) for line in outliers]
    assert sums == sorted(sums)


def test_new_images_are_assigned_to_these_clusters(run: Run, photos: Path) -> None:
    out = run("--k", 4)
    words = [SMALL[1], str(photos), "--size", "64", "--clusters", str(out / "clusters.pth")]
    words += ["--out", "again.csv", *CPU]
    assert cli.run(assign.main, assign.parse_args, words) == 0
    again = {line["path"]: line["cluster"] for line in table(Path("again.csv"))}
    assert again == {line["path"]: line["cluster"] for line in table(out / "clusters.csv")}


def test_joined_clusters(run: Run, photos: Path) -> None:
    """The same super-clusters in the table, in the links, and for new images."""
    out = run("--k", 6, "--merge", 2, "--folders", "--pickle")
    found = table(out / "clusters.csv")
    assert {line["super_cluster"] for line in found} == {"0", "1"}
    clusters = torch.load(out / "clusters.pth", weights_only=True)["clusters"]
    each = len(clusters["centroids"]) // 2
    rows = rows_of([line["path"] for line in found])
    gaps = rows[:, None] - clusters["super_centroids"].double().numpy()
    supers = np.linalg.norm(gaps, axis=2).argmin(axis=1)
    assert [int(line["super_cluster"]) for line in found] == supers.tolist()
    for line in found:
        assert int(line["cluster"]) == each * int(line["super_cluster"]) + int(line["sub_cluster"])
    links = [path for path in (out / "folders").rglob("*") if path.is_symlink()]
    assert len(links) == 43
    assert {link.parent.parent.name for link in links} == {"super_0000", "super_0001"}
    assert (out / "clusters.pickle").exists()
    assert "Super-cluster 1" in (out / "report.html").read_text()
    assert run("--k", 6, "--merge", 2, "--folders", "--pickle") == out, "again"


def test_the_number_of_clusters_is_chosen(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    out = run()
    results = json.loads((out / "clusters.json").read_text())["results"]
    assert results["choice"]["k"] == results["clusters"] == 2, "43 images: 2 is the only one"
    said = capsys.readouterr().out
    assert "2 clusters: the best silhouette, by more than its deviation" in said
    assert "give a number as --k, and another --out; with --features out/features" in said
    page = (out / "report.html").read_text()
    assert "No measure knows which groups you look for: for more or fewer, give a number" in page


def test_the_results_name_the_network_and_the_seconds(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads((run("--k", 3) / "clusters.json").read_text())
    settings, results = told["settings"], told["results"]
    assert settings["arch"] == "timm:test_efficientnet"
    assert (settings["weights"], settings["size"]) == ("random", 64)
    assert (results["images"], results["unreadable"]) == (44, 1)
    assert 0 <= results["nmi_labels"] <= 1
    assert results["seconds"].keys() >= {"features", "clusters", "map", "tables and pages"}
    said = capsys.readouterr().out
    assert "43 images, 1 left out as unreadable; timm:test_efficientnet, weights random" in said
    assert "3 of 3 clusters not empty" in said


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The shards that the network computes; one has 1,024 images, here 16."""
    monkeypatch.setattr("features.rows.LENGTH", 16)
    numbers: list[int] = []
    extract = extraction.extract

    def watched(shards: Any, missing: list[int], *rest: Any) -> dict[int, str]:
        numbers.extend(missing)
        return extract(shards, missing, *rest)

    monkeypatch.setattr("features.continued.extract", watched)
    return numbers


def test_an_interrupted_call_goes_on(
    run: Run, computed: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run("--k", 3, out="whole")
    out = run("--k", 3)
    shutil.copytree(out / "features", "before")
    for name in ("features_00001.npy", "bad_00001.json"):
        (out / "features" / name).unlink()
    (out / "clusters.csv").unlink()
    computed.clear()
    capsys.readouterr()
    run("--k", 3)
    assert computed == [1]
    assert "note: out/features: has the features of 28 of 44 images" in capsys.readouterr().err
    for name in ("clusters.csv", "duplicates.csv", "outliers.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    for number in range(3):
        name = f"features_{number:05d}.npy"
        assert (out / "features" / name).read_bytes() == Path("before", name).read_bytes()


def test_other_clusters_of_the_same_features(run: Run, computed: list[int]) -> None:
    first = run("--k", 3)
    computed.clear()
    other = run("--k", 5, "--features", first / "features", out="other")
    assert computed == []
    assert len({line["cluster"] for line in table(other / "clusters.csv")}) == 5
    assert not (other / "features").exists()
    assert "data:image/webp;base64,UklGR" in (other / "report.html").read_text()


def test_a_network_that_finds_all_images_alike_is_named(
    run: Run, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(photos), "--out", "out", *SMALL, "--k", "3", "--near", "0.9", *CPU]
    move = ["--move-duplicates", "moved"]
    assert cli.run(cluster_images.main, cluster_images.parse_args, [*words, *move]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "error: --near 0.9: one group has 43 of 43 images; " in error
    assert error.endswith("nothing was moved")
    assert len([path for path in photos.rglob("*") if path.is_file()]) == 44
    out = run("--k", 3, "--near", 0.9)
    assert "note: --near 0.9: one group has 43 of 43 images; " in capsys.readouterr().err
    assert "<span>43 images, the first 20</span>" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("largest", "images", "noted"),
    [(19, 3000, False), (20, 3000, True), (4, 40, False), (4, 12, False), (5, 40, True)],
)
def test_a_large_group_is_noted_in_a_large_folder_too(
    largest: int, images: int, noted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """20 images or a tenth of all, but not fewer than 5."""
    group = [Duplicate(index, 0, NEAR, 1, 1) for index in range(largest)]
    args = cluster_images.parse_args(["photos", "--out", "out", "--move-duplicates", "moved"])
    cluster_images.check_groups(args, group, images)
    assert (f"one group has {largest} of" in capsys.readouterr().err) == noted


def test_our_own_checkpoints_are_whitened(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    torch.manual_seed(0)
    state = {"arch": "tiny", "state_dict": tiny(out=3).state_dict(), "settings": {"size": 32}}
    save_checkpoint(Path("c.pth.tar"), state)
    words = [str(photos), "--out", "own", "--model", "c.pth.tar", "--k", "3", *CPU]
    assert cli.run(cluster_images.main, cluster_images.parse_args, words) == 0
    clusters = torch.load("own/clusters.pth", weights_only=True)["clusters"]
    assert clusters["pca_matrix"].shape == (32, 3), "43 // 12 components"
    assert json.loads(Path("own/clusters.json").read_text())["settings"]["size"] == 32


def test_pic(run: Run, photos: Path, error_line: ErrorLine) -> None:
    pic = ["--clustering", "PIC", "--k", "3"]
    line = error_line(cluster_images, photos, "--out", "none", *SMALL, *pic, *CPU)
    assert "--k 3: PIC finds the number of clusters itself; leave --k out" in line
    assert not Path("none").exists()
    out = run("--clustering", "PIC")
    assert json.loads((out / "clusters.json").read_text())["results"]["loss"] is None


def test_the_pages_in_a_browser(run: Run, browser: "Browser") -> None:
    out = run("--k", 4, "--near", 0.001)
    with open_page(browser, out / "report.html") as page:
        assert page.locator("#gallery article:visible").count() == 5, "4, and the unreadable one"
        page.get_by_label("Find").fill("copy.png")
        assert page.locator("#gallery li:visible").all_inner_texts() == ["photos/c/copy.png"]
        said = page.locator("#duplicates").inner_text()
        assert "exact copy: photos/c/copy.png" in said
        assert "near duplicate: photos/b/005.png" in said
        for image in page.locator("#duplicates img, #outliers img").all():
            assert image.evaluate("i => i.naturalWidth") == 80
        assert "licence" not in page.locator("header").inner_text(), "random weights have none"
        page.get_by_role("link", name="Map").click()
        page.fill("#search", "larger.png")
        assert page.locator("#found img").count() == 1


def test_without_a_model_dinov2_is_fetched_at_224_pixels(
    photos: Path, monkeypatch: pytest.MonkeyPatch, error_line: ErrorLine
) -> None:
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    line = error_line(cluster_images, photos, "--out", "out")
    assert f"{DEFAULT}: cannot fetch its weights" in line
    assert f"{DEFAULT}@FILE" in line
    assert "or a checkpoint" in line
    assert not Path("out").exists()
    sizes = []

    def opened(name: Path, key: str | None, size: int | None) -> Any:
        sizes.append((name, size))
        return open_network(Path(SMALL[1]), key, 64)

    monkeypatch.setattr("features.network.open_network", opened)
    words = [str(photos), "--out", "out", "--k", "3", *CPU]
    assert cli.run(cluster_images.main, cluster_images.parse_args, words) == 0
    assert sizes == [(Path(DEFAULT), 224)]


def test_a_missing_folder_is_named_before_a_network_is_fetched(
    monkeypatch: pytest.MonkeyPatch, error_line: ErrorLine
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr("features.network.open_network", opened)
    line = error_line(cluster_images, "nofolder", "--out", "out")
    assert line.endswith("nofolder: no such folder or file")


def test_bad_input(photos: Path, run: Run, error_line: ErrorLine, tmp_path: Path) -> None:
    def error(*words: object, data: object = photos, out: str = "bad") -> str:
        line = error_line(cluster_images, data, "--out", out, *SMALL, *words, *CPU)
        assert not Path("bad").exists()
        return line

    assert "--k 45: more clusters than the 44 images" in error("--k", 45)
    assert "--k: '1' is not a whole number of 2 or more, or auto" in error("--k", 1)
    assert error("--k", 4, "--merge", 4).endswith("--merge 4: give fewer than the 4 of --k")
    assert "--dim_pca 999: more than the features' " in error("--k", 3, "--dim_pca", 999)
    assert "photos/clusters: is inside photos" in error("--k", 3, out="photos/clusters")
    (tmp_path / "empty").mkdir()
    assert "empty: " in error(data="empty")
    few = tmp_path / "few"
    write_images(few, 9)
    assert "few" in error(data=few)
    assert error(data=few).endswith(": 9, and 40 are needed; give a number as --k")
    assert error("--merge", 2).endswith(
        "--merge 2: give fewer than 2, the most that --k auto tries for 44 images"
    )
    broken = tmp_path / "broken"
    broken.mkdir()
    for number in range(3):
        shutil.copy(photos / "b/broken.png", broken / f"{number}.png")
    assert "none of the 3 images can be read; the first is ./broken/0.png: " in error(
        "--k", 2, data="broken"
    )
    (tmp_path / "bands").mkdir()
    for number in range(2):
        np.save(tmp_path / f"bands/{number}.npy", np.zeros((20, 20, 5), np.uint8))
    line = error("--k", 2, "--channels", 0, 3, 5, data="bands")
    assert line.endswith("has 5 bands, too few for --channels 0 3 5: 0 to 4")
    Path("file").touch()
    assert "--features file: cannot write there" in error("--k", 3, "--features", "file")
    out = run("--k", 3)
    line = error_line(cluster_images, photos, "--out", out, *SMALL, "--k", 5, *CPU)
    assert "out/settings.json: was made with other settings (k 3 → 5); give an" in line
    write_images(photos / "d", 1)
    line = error_line(cluster_images, photos, "--out", out, *SMALL, "--k", 3, *CPU)
    assert "was made with other settings (the images have changed: 44 → 45); give another" in line
    line = error("--k", 3, "--features", out)
    assert line.endswith("--features out: is an --out; give out/features")
    twice = ["photos/a", "photos", "--out", "bad", *SMALL, "--k", 3, *CPU]
    line = error_line(cluster_images, *twice)
    assert line.endswith("photos/a: its images are in photos, too; give one of both")


def test_what_cannot_be_clustered_may_be_with_other_settings(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 44 images 43 can be read."""
    words = ["photos", "--out", "out", *SMALL, "--k", "44", *CPU]
    assert cli.run(cluster_images.main, cluster_images.parse_args, words) == 2
    said = capsys.readouterr().err
    assert "--k 44: more clusters than the 43 images that can be read; give 43 at most" in said
    assert len(table(run("--k", 43) / "clusters.csv")) == 43


def test_duplicates_are_moved_and_moved_back(
    run: Run, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    out = run("--k", 3, "--near", 0.001, "--move-duplicates", "moved")
    lines = [line for line in table(out / "duplicates.csv") if line["kind"] != "best"]
    assert f"moved {len(lines)} duplicates to moved; " in capsys.readouterr().out
    for line in lines:
        assert not Path(line["path"]).exists()
    kept = {path for path in before if path.exists()}
    assert len(kept) == len(before) - len(lines)
    assert Path("photos/c/copy.png") not in kept
    assert Path("photos/a/003.png") in kept
    assert cli.run(move_back.main, move_back.parse_args, ["moved"]) == 0
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before


def test_that_there_are_no_duplicates_is_said(
    run: Run, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "c/copy.png").unlink()
    run("--k", 3, "--near", 0, "--move-duplicates", "moved")
    said = capsys.readouterr().out.splitlines()
    assert said[said.index("duplicates: none") + 1] == "no duplicates to move"


def test_a_link_and_the_picture_that_it_leads_to_both_stay(run: Run, photos: Path) -> None:
    (photos / "a/link.png").symlink_to("003.png")
    (photos / "d").symlink_to("c")
    run("--k", 3, "--near", 0.001, "--move-duplicates", "moved")
    assert (photos / "a/link.png").read_bytes() == (photos / "a/003.png").read_bytes()
    assert not (photos / "c/copy.png").exists()


def test_labels_from_a_table(run: Run, photos: Path) -> None:
    paths = sorted(path for path in photos.rglob("*") if path.is_file())
    lines = [f"{path},{'even' if i % 2 == 0 else 'odd'}" for i, path in enumerate(paths)]
    Path("labels.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    found = table(run("--k", 3, "--labels", "labels.csv") / "clusters.csv")
    told = {line["path"]: line["label"] for line in found}
    assert {f"{path},{label}" for path, label in told.items()} < set(lines)

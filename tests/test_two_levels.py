"""Clusters on two levels, and runs that learn rotations, as people see them: tables, links, sheets,
the map, the report."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from browser import open_page
from conftest import ErrorLine, image_list, tiny, train_tiny, write_images, write_tree
from sklearn.metrics import normalized_mutual_info_score

import assign
from cluster.quality import super_metrics
from cluster.tables import Assignment, write_folders, write_table
from models import MODELS
from system import cli
from tools import export_clusters
from training.finished_run import Levels, read_run
from training.logs import read_metrics
from visu import clusters, curves, feature_map, report
from visu.report_page import CLUSTERS, IMAGES, describe_run, write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CPU = ["--device", "cpu", "--precision", "fp32", "--workers", "0"]
SHARED = "--method deepercluster --reassignment 2 --niter 3 --lr 0.02"
RUNS = {"deeper": f"{SHARED} --epochs 3 --super_classes 8 --k 6",
        "rotnet": f"{SHARED} --epochs 2 --k 1"}  # fmt: skip
EACH = 3


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "tiny", tiny)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of each of `RUNS`, and their images: 40 in three folders."""
    folder = tmp_path_factory.mktemp("runs")
    write_tree(folder / "images")
    for name, flags in RUNS.items():
        train_tiny(folder / "images", folder / name, *flags.split())
    return folder


@pytest.fixture
def deeper(runs: Path) -> Path:
    return runs / "deeper"


def last_assignment(exp: Path) -> np.ndarray:
    return np.asarray(np.load(sorted((exp / "assignments").iterdir())[-1]))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def levels_in(path: Path) -> list[tuple[int, int, int]]:
    names = ("cluster", "super_cluster", "sub_cluster")
    return [(int(row[names[0]]), int(row[names[1]]), int(row[names[2]])) for row in read_csv(path)]


def expected_levels(assignment: np.ndarray) -> list[tuple[int, int, int]]:
    return [(cluster, *divmod(cluster, EACH)) for cluster in assignment.tolist()]


def test_a_table_has_both_levels_and_links_are_in_the_super_clusters_folder(
    tmp_path: Path,
) -> None:
    paths = list(map(str, write_images(tmp_path / "images", 4)))
    rows = Assignment(paths, np.array([0, 5, 3, 5]), each=EACH)
    write_table(tmp_path / "two.csv", rows)
    assert list(read_csv(tmp_path / "two.csv")[0]) == [
        "path", "cluster", "super_cluster", "sub_cluster",
    ]  # fmt: skip
    assert levels_in(tmp_path / "two.csv") == [(0, 0, 0), (5, 1, 2), (3, 1, 0), (5, 1, 2)]
    write_folders(tmp_path / "links", rows)
    links = sorted(path for path in (tmp_path / "links").rglob("*") if path.is_symlink())
    assert [str(link.parent.relative_to(tmp_path / "links")) for link in links] == [
        "super_0000/cluster_0000", "super_0001/cluster_0003",
        "super_0001/cluster_0005", "super_0001/cluster_0005",
    ]  # fmt: skip
    assert [str(link.resolve()) for link in links] == [paths[i] for i in (0, 2, 1, 3)]
    write_table(tmp_path / "one.csv", Assignment(paths, rows.clusters))
    assert list(read_csv(tmp_path / "one.csv")[0]) == ["path", "cluster"]


def test_numbers_of_super_clusters_are_those_of_their_images_together() -> None:
    assignment, labels = np.array([0, 1, 2, 3, 3, -1, 5]), np.array([0, 0, 1, 1, 1, 1, -1])
    found = super_metrics(assignment, EACH, 3, labels)
    reference = normalized_mutual_info_score(
        [0, 0, 1, 1, 1], [0, 0, 0, 1, 1], average_method="geometric"
    )
    assert found["nmi_labels"] == pytest.approx(reference)
    assert (found["purity"], found["acc"]) == (0.8, 0.8)
    assert (found["clusters"], found["nonempty_clusters"]) == (3, 2)
    assert found["cluster_size"] == {"smallest": 3, "median": 3.0, "largest": 3}


def test_assign_and_export_write_both_levels(
    runs: Path, deeper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = runs / "images", tmp_path / "out.csv"
    model = str(deeper / "checkpoint.pth.tar")
    sheet = ["--contact-sheet", str(tmp_path / "sheet.png")]
    assign.main(assign.parse_args([model, str(images), "--out", str(out), *sheet, *CPU]))
    expected = expected_levels(last_assignment(deeper))
    assert levels_in(out) == expected
    assert list(read_csv(out)[0])[-1] == "distance"
    said = capsys.readouterr().err
    assert " of 2 super-clusters not empty, sizes " in said
    for epoch in ([], ["--epoch", "2"]):
        export_clusters.main(export_clusters.parse_args([str(deeper), "--out", str(out), *epoch]))
        number = epoch[1] if epoch else "3"
        of_epoch = np.load(deeper / "assignments" / f"epoch_{int(number):04d}.npy")
        assert levels_in(out) == expected_levels(of_epoch)
        assert " of 2 super-clusters not empty, sizes " in capsys.readouterr().err


def test_saved_clusters_keep_both_levels(runs: Path, deeper: Path, tmp_path: Path) -> None:
    command = [str(deeper / "checkpoint.pth.tar"), str(runs / "images"), *CPU]
    for number, more in enumerate(("--save-clusters", "--clusters")):
        flags = [more, str(tmp_path / "saved.pth"), "--out", str(tmp_path / f"{number}.csv")]
        assign.main(assign.parse_args([*command, *flags]))
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()
    assert "super_cluster" in read_csv(tmp_path / "1.csv")[0]


def test_strips_of_a_contact_sheet_are_by_super_cluster(tmp_path: Path) -> None:
    images = image_list(*write_images(tmp_path, 6))
    distances = np.linspace(0, 1, 6).astype(np.float32)
    rows = Assignment(images.names, np.array([4, 4, 4, 1, 5, 5]), distances, EACH)
    assert [strip.title.split(":")[0] for strip in assign.strips_of(rows, images)] == [
        "super-cluster 0, cluster 1", "super-cluster 1, cluster 4", "super-cluster 1, cluster 5",
    ]  # fmt: skip


def test_the_clusters_pickle_has_a_list_for_each_sub_cluster(deeper: Path) -> None:
    epochs = export_clusters.read_clusters(deeper / "clusters")
    assert [len(lists) for lists in epochs] == [2 * EACH] * 3
    first = np.load(deeper / "assignments" / "epoch_0000.npy")
    for cluster, members in enumerate(epochs[0]):
        assert members == np.flatnonzero(first == cluster).tolist()


def test_the_report_groups_clusters_and_has_the_numbers_of_both_levels(deeper: Path) -> None:
    run = read_run(deeper)
    assert run.levels == Levels(EACH, 2)
    content = describe_run(run, CLUSTERS, IMAGES, ())
    groups, assignment = content["gallery"].groups, last_assignment(deeper)
    assert [above for above, _ in groups] == sorted(set((assignment // EACH).tolist()))
    for above, cards in groups:
        assert {card.number // EACH for card in cards} == {above}
        assert sum(card.size for card in cards) == (assignment // EACH == above).sum()
        assert [card.size for card in cards] == sorted((c.size for c in cards), reverse=True)
    assert "by super-cluster and in each the largest first" in content["chosen"]
    shown = {meaning: value for value, meaning in content["overview"]}
    together = super_metrics(assignment, EACH, 2, run.images.labels)
    nmi = "NMI of the super-clusters to the labels"
    assert shown[nmi] == f"{together['nmi_labels']:.3f}"
    assert shown["of 2 super-clusters not empty"] == str(together["nonempty_clusters"])
    share = run.metrics[-1]["rotation_accuracy"]
    assert shown["of the rotations recognised; guessing gives 0.25"] == f"{share:.3f}"
    assert {chart.title for chart, _ in content["charts"]} >= {
        "super-clusters",
        "rotations recognised",
    }
    assert "deepercluster: finished" in content["status"]
    page = write_report(deeper).read_text()
    assert page.count('<h3 class="super"') == len(groups)
    assert "super-cluster 1, " in page


def test_a_search_hides_the_headings_of_super_clusters(deeper: Path, browser: "Browser") -> None:
    with open_page(browser, write_report(deeper), 400) as page:
        headings = page.locator("h3.super:visible")
        said = headings.all_inner_texts()
        members = np.bincount(last_assignment(deeper) // EACH)
        assert [f"{words} "[:16] for words in said] == ["Super-cluster 0 ", "Super-cluster 1 "]
        assert all(f"{n} images in" in words for n, words in zip(members, said, strict=True))
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        page.get_by_label("Find").fill("a/000")
        assert headings.count() == 0
        page.get_by_label("Find").fill("")
        assert headings.all_inner_texts() == said


def test_the_map_finds_a_super_cluster(deeper: Path, tmp_path: Path, browser: "Browser") -> None:
    words = [str(deeper), "--method", "pca", "--out", str(tmp_path / "map.html"), *CPU]
    assert cli.run(feature_map.main, feature_map.parse_args, words) == 0
    members = np.bincount(last_assignment(deeper) // EACH)
    with open_page(browser, tmp_path / "map.html") as page:
        assert "colour: super-cluster" in page.locator("#colour option").all_inner_texts()
        page.select_option("#colour", "super")
        assert page.evaluate("new Set(map.x.map((_, i) => colourOf(i))).size") == len(members)
        page.fill("#search", "super-cluster 1")
        assert page.locator("#status").inner_text().startswith(f"{members[1]} of 40 images")
        page.locator("#found button").first.click()
        assert "super-cluster 1" in page.locator("#of").inner_text()


def test_sheets_are_by_super_cluster(
    deeper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(deeper), "--out", str(tmp_path / "sheets"), *CPU]
    assert cli.run(clusters.main, clusters.parse_args, command) == 0
    assert " of 2 super-clusters not empty" in capsys.readouterr().out
    rows = json.loads((tmp_path / "sheets" / "clusters.json").read_text())
    assert all(row["super_cluster"] == row["cluster"] // EACH for row in rows)
    run = read_run(deeper)
    views = clusters.clusters_at(run, 3)
    largest = clusters.by_super_cluster(clusters.largest(views, 9))
    assert [view.super for view in largest] == sorted(view.number // EACH for view in views)
    said = clusters.caption(run, 3, largest[-1], {})
    assert said.startswith(f"super-cluster {largest[-1].super}, cluster {largest[-1].number}: ")


def test_the_map_has_super_clusters(runs: Path, deeper: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.html"
    for source in ([deeper], [deeper / "checkpoint.pth.tar", runs / "images"]):
        words = [*map(str, source), "--method", "pca", "--out", str(out), *CPU]
        assert cli.run(feature_map.main, feature_map.parse_args, words) == 0
        text = out.read_text()
        start = text.index('id="content">') + len('id="content">')
        found = json.loads(text[start : text.index("</script>", start)])
        assert found["cluster"] == last_assignment(deeper).tolist()
        assert found["super"] == (last_assignment(deeper) // EACH).tolist()
    words = [str(runs / "rotnet"), "--method", "pca", "--out", str(out), *CPU]
    assert cli.run(feature_map.main, feature_map.parse_args, words) == 0
    assert '"super":null' in out.read_text()


def test_the_log_has_super_clusters_and_rotations(runs: Path) -> None:
    for name in RUNS:
        log = (runs / name / "log.txt").read_text()
        for line in read_metrics(runs / name):
            assert f"{line['rotation_accuracy']:.3f} of the rotations recognised" in log
        assert (" of 2 super-clusters not empty" in log) == (name == "deeper")


def test_a_run_of_rotations_shows_only_the_finished_networks_clusters(
    runs: Path, tmp_path: Path, error_line: ErrorLine
) -> None:
    exp = runs / "rotnet"
    run = read_run(exp)
    assert (run.epochs, run.levels) == ([2], None)
    for line in run.metrics:
        assert [line[name] for name in ("nmi_previous", "nmi_labels", "purity")] == [None] * 3
    content = describe_run(run, CLUSTERS, IMAGES, ())
    assert [epoch["name"] for epoch in content["histograms"]] == ["the finished network"]
    shown = [meaning for _, meaning in content["overview"]]
    assert "of the rotations recognised; guessing gives 0.25" in shown
    assert "NMI to the labels" in shown
    assert "NMI to the epoch before" not in shown
    assert not any("super-cluster" in meaning for meaning in shown)
    assert all(card.before is card.super is None for card in content["gallery"].cards)
    titles = {chart.title for chart, _ in content["charts"]}
    assert "rotations recognised" in titles
    assert not titles & {"super-clusters", "NMI, ARI of the clusters"}
    assert "NMI to the last epoch's" not in (exp / "log.txt").read_text()
    out = tmp_path / "curves.svg"
    curves.main(curves.parse_args([*(str(runs / name) for name in RUNS), "--out", str(out)]))
    assert "rotations recognised" in out.read_text()

    cut = tmp_path / "cut"
    shutil.copytree(exp, cut)
    (cut / "assignments" / "epoch_0002.npy").unlink()
    content = describe_run(read_run(cut), CLUSTERS, IMAGES, ())
    assert (content["gallery"], content["histograms"]) == (None, [])
    why = (
        ": its epochs learn only rotations (--k 1); the finished network gets clusters, and "
        "assign.py --recluster K finds some with any checkpoint"
    )
    assert content["chosen"] == f"There are no clusters yet{why}."
    for script, *rest in ((export_clusters, "--out", tmp_path / "a.csv"), (clusters, *CPU)):
        assert error_line(script, cut, *rest).endswith(f"{cut}: no clusters yet{why}")
        said = error_line(script, exp, *rest, "--epoch", 1)
        assert said.endswith(f"--epoch 1: {exp} has clusters of 2{why}")
    assert error_line(report, cut, "--also", 0).endswith(f"the run has no clusters yet{why}")


@pytest.mark.parametrize("supers", [5, {}, {"clusters": 0}, {"clusters": 4}, {"clusters": "2"}])
def test_damaged_levels_are_bad_input(
    deeper: Path, tmp_path: Path, supers: object, error_line: ErrorLine
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(deeper, cut)
    line = {**read_metrics(deeper)[0], "super_clusters": supers}
    (cut / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    error = error_line(export_clusters, cut, "--out", tmp_path / "a.csv")
    assert "metrics.jsonl: not a JSON object on each line: line 1 has no metrics" in error


def test_a_page_of_one_level_has_no_super_clusters(finished: Path) -> None:
    page = write_report(finished).read_text()
    assert "uper-cluster" not in page[page.index("<body>") : page.index("<script>")]

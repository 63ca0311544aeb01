"""The content of a run's page. `test_report_in_browser.py` tests the page in a browser."""

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import tiny
from run_folder import epoch_line, make_run

from cluster.quality import accuracy, ami, ari, nmi, purity
from data.images import find_images
from system.errors import InputError
from training.finished_run import ClusterView, read_run
from training.logs import read_metrics
from training.summary import summarise
from visu import gallery
from visu.first_filters import through_sobel, view_filters
from visu.gallery import choose_clusters
from visu.report import main, parse_args
from visu.report_page import CLUSTERS, IMAGES, count_sizes, describe_run, write_report


def content_of(exp: Path, data: Path | None = None, **flags: Any) -> dict[str, Any]:
    """The content of a run's page."""
    flags = {"clusters": CLUSTERS, "images": IMAGES, "also": (), **flags}
    return describe_run(read_run(exp, data), **flags)


def test_the_page_has_the_numbers_of_the_run(finished: Path) -> None:
    content = content_of(finished)
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    names, *rows = content["numbers"]
    for row, line in zip(rows, lines, strict=True):
        shown = dict(zip(names, row, strict=True))
        for name, exact in (
            ("convnet loss", line["convnet_loss"]),
            ("seconds training", line["seconds"]["training"]),
            ("nmi labels", line["nmi_labels"]),
        ):
            assert len(shown[name].lstrip("0.")) <= 4
            assert float(shown[name]) == pytest.approx(exact, rel=5e-4)
        assert shown["cluster size largest"] == "30"
    assert rows[0][names.index("nmi previous")] == "–"
    run = read_run(finished)
    assert run.images.labels is not None
    before, result = run.assignment(2), run.assignment(3)
    assert content["overview"] == [
        ("1.100", "convnet loss; guessing gives 1.386"),
        (f"{nmi(result, before):.3f}", "NMI to the epoch before"),
        (f"{nmi(result, run.images.labels):.3f}", "NMI to the labels"),
        (
            f"{accuracy(result, run.images.labels):.3f}",
            "ACC: right in the best matching of clusters with labels",
        ),
        (f"{ari(result, run.images.labels):.3f}", "ARI to the labels"),
        (f"{ami(result, run.images.labels):.3f}", "AMI to the labels"),
        (f"{purity(result, run.images.labels):.3f}", "purity"),
        ("3", "of 4 clusters not empty"),
        ("40", "images"),
    ], "of the finished network's clusters"
    assert "finished, 3 of 3 epochs" in content["status"]
    assert ("nmb_cluster", "4") in content["settings"]
    assert ("resume", "–") in content["settings"]


def test_an_unfinished_runs_page_has_the_numbers_of_its_last_epoch(finished: Path) -> None:
    (finished / "assignments" / "epoch_0003.npy").unlink()
    assert ("0.440", "NMI to the labels") in content_of(finished)["overview"]


def test_an_older_runs_page_lacks_what_its_metrics_lack(finished: Path) -> None:
    (finished / "assignments" / "epoch_0003.npy").unlink()
    lines = map(json.loads, (finished / "metrics.jsonl").read_text().splitlines())
    older = [{n: v for n, v in line.items() if n not in ("acc", "ari")} for line in lines]
    (finished / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in older))
    content = content_of(finished)
    shown = [meaning for _, meaning in content["overview"]]
    assert "purity" in shown
    assert not any(meaning.startswith(("ACC", "ARI")) for meaning in shown)
    curves = [name for chart, _ in content["charts"] for name, *_ in chart.series]
    assert "purity" in curves
    assert not {"ACC", "ARI, labels"} & set(curves)
    assert summarise(read_metrics(finished), "", 3, finished).startswith("Done.")


QUICK = {
    "protocol": {"epoch": 3},
    "table": [["", "pixels", "trained", ""], ["linear probe", "0.500", "0.600", "better <b>"]],
    "summary": ["This is one run."],
}


def test_the_page_has_the_table_of_eval_quick(finished: Path) -> None:
    (finished / "quick.json").write_text(json.dumps(QUICK))
    page = write_report(finished).read_text()
    assert "of the network after 3 epochs" in page
    assert "<td>linear probe</td><td>0.500</td><td>0.600</td><td>better &lt;b&gt;</td>" in page
    assert "<p>This is one run.</p>" in page


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"protocol": {"epoch": 3}, "table": 5}'])
def test_a_table_of_an_earlier_version_is_left_out(finished: Path, content: str) -> None:
    (finished / "quick.json").write_text(content)
    assert content_of(finished)["learned"] is None


def test_the_page_has_the_signs_of_an_unhealthy_run(finished: Path) -> None:
    assert "Signs that the run goes wrong" not in write_report(finished).read_text()
    log = "2026-01-02 03:04:05,678 INFO epoch 1: loss 1\n" + "".join(
        f"2026-01-02 03:04:{second},678 WARNING unhealthy: a < b, {second}\n"
        for second in range(10, 31)
    )
    (finished / "log.txt").write_text(log)
    page = write_report(finished).read_text()
    assert "<li>2026-01-02 03:04:30: a &lt; b, 30</li>" in page
    assert page.count("<li>2026-01-02") == 20
    assert "The last 20 of 21 in log.txt" in page


def test_the_page_has_the_clusters_of_the_run(finished: Path) -> None:
    cards = content_of(finished)["gallery"].cards
    names = (finished / "images.txt").read_text().splitlines()
    last = np.load(finished / "assignments" / "epoch_0003.npy").tolist()
    assert sorted(card.number for card in cards) == [0, 1, 3]
    assert [card.size for card in cards] == sorted((card.size for card in cards), reverse=True)
    for card in cards:
        assert card.names == [n for n, c in zip(names, last, strict=True) if c == card.number]
        folders = Counter(name[0] for name in card.names)
        assert card.size == folders.total()
        assert folders[card.label] == max(folders.values())
        assert card.purity == folders[card.label] / card.size


def test_the_histograms_count_every_cluster_once(finished: Path) -> None:
    histogram = count_sizes(read_run(finished))
    assert [e["name"] for e in histogram["epochs"]] == [
        "epoch 0", "epoch 1", "epoch 2", "the finished network",
    ]  # fmt: skip
    edges = histogram["edges"]
    for number, epoch in enumerate(histogram["epochs"]):
        assignment = np.load(finished / "assignments" / f"epoch_{number:04d}.npy").tolist()
        sizes = Counter(assignment).values()
        for low, high, count in zip(edges, edges[1:], epoch["counts"], strict=False):
            assert count == sum(low <= size < high for size in sizes)
        assert sum(epoch["counts"]) == 3
        assert epoch["empty"] == 1


def test_pictures_are_members_of_their_cluster(finished: Path, tree: Path) -> None:
    images = find_images(tree)
    for card in content_of(finished, images=4)["gallery"].cards:
        assert len({picture.name for picture in card.pictures}) == min(4, card.size)
        for picture in card.pictures:
            assert picture.name in card.names
            assert picture.webp == gallery.encode(images, images.names.index(picture.name))


def test_clusters_and_images_of_also_have_pictures(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = (finished / "images.txt").read_text().splitlines()[1]  # in cluster 1
    few = ["--clusters", "1", "--images", "2"]
    main(parse_args([str(finished), *few, "--also", "3", image]))
    assert f"written to {finished / 'report.html'}" in capsys.readouterr().out
    page = (finished / "report.html").read_text()
    assert page.count('<div class="pictures">') == 3, "the largest, and those asked for"
    assert page.count("data:image/webp") == 6
    shown = content_of(finished, clusters=1, images=2, also=["3", image])["gallery"].cards
    assert {card.number for card in shown if card.pictures} == {0, 1, 3}
    assert [card.pictures[0].name for card in shown if card.number == 1] == [image]

    with pytest.raises(InputError, match=r"--also nothing\.png: neither"):
        write_report(finished, also=["nothing.png"])
    with pytest.raises(InputError, match="--also 2: neither"):  # it is empty
        write_report(finished, also=["2"])


def test_a_large_run_names_only_the_images_that_are_pictured(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "MOST_IMAGES", 39)
    content = content_of(finished, clusters=2, images=3)
    shown = content["gallery"].cards
    assert [len(card.names) for card in shown] == [3, 3, 0]
    assert {card.number for card in shown} == {0, 1, 3}, "every cluster is found by its number"
    assert "by name only the 6 images that are pictured, of 40" in content["chosen"]


def test_the_largest_the_purest_and_random_clusters_are_chosen() -> None:
    rng = np.random.default_rng(0)
    views = [
        ClusterView(number, np.arange(rng.integers(1, 50)), rng.random(), "a", None, None)
        for number in range(200)
    ]
    chosen, how = choose_clusters(views, 30)
    numbers = [view.number for view in chosen]
    assert len(set(numbers)) == 30
    assert how == "30 of 200 clusters (10 of the largest, 10 of the purest, 10 drawn at random)"
    by_size = sorted(views, key=lambda view: view.size, reverse=True)
    assert [view.size for view in chosen[:10]] == [view.size for view in by_size[:10]]
    others = [v for v in views if v not in chosen[:20] and v.size >= by_size[100].size]
    assert min(v.purity or 0 for v in chosen[10:20]) > max(v.purity or 0 for v in others)


def test_sobel_and_the_first_layer_are_one_filter_of_the_grey_image() -> None:
    model = tiny(sobel=True)
    weights = model.state_dict()
    image = torch.rand(1, 3, 24, 24)
    first = weights["features.0.weight"]
    assert model.sobel is not None
    expected = F.conv2d(model.sobel(image)[:, :, 1:-1, 1:-1], first)  # but for the padding
    found = F.conv2d(image.mean(dim=1, keepdim=True), through_sobel(weights, first))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_filters_are_shown_around_middle_grey() -> None:
    weights = torch.zeros(2, 2, 3, 3)
    weights[0, 0, 0, 0], weights[0, 1, 2, 2] = 0.5, -0.25
    with_sobel = {"sobel.1.weight": tiny(sobel=True).state_dict()["sobel.1.weight"]}
    on_image, on_channels = view_filters({**with_sobel, "features.0.weight": weights})
    assert [picture.size for picture in on_image.pictures] == [(5, 5)] * 2
    first, silent = (np.asarray(picture) for picture in on_channels.pictures)
    assert first.shape == (3, 3 + 1 + 3, 2)
    assert first[0, 0].tolist() == [255, 255]
    assert first[2, 6].tolist() == [round(128 - 127 / 2 - 0.1), 255]
    assert first[:, 3, 1].tolist() == [0, 0, 0], "a gap between the channels"
    assert set(silent[:, [0, 1, 2, 4, 5, 6], 0].flatten().tolist()) == {128}

    (colours,) = view_filters({"features.0.weight": torch.randn(4, 3, 11, 11)})
    assert [(p.mode, p.size) for p in colours.pictures] == [("RGB", (11, 11))] * 4


def test_an_unfinished_run_has_a_page(finished: Path) -> None:
    lines = (finished / "metrics.jsonl").read_text()
    cut = lines[: lines.rindex('{"epoch": 2') + 40]
    (finished / "metrics.jsonl").write_text(cut)
    (finished / "assignments" / "epoch_0003.npy").unlink()
    (finished / "assignments" / "epoch_0002.npy").unlink()
    (finished / "checkpoint.pth.tar").write_bytes(b"half of it")
    content = content_of(finished)
    assert "not finished, 2 of 3 epochs in 0.3 min, the last on " in content["status"]
    assert [row[0] for row in content["numbers"]] == ["epoch", "0", "1"]
    assert content["chosen"].startswith("The clusters of epoch 1.")
    assert content["histograms"][-1]["name"] == "epoch 1"
    assert "not a checkpoint, or a damaged one" in content["no_filters"]


def test_clusters_of_an_interrupted_epoch_are_shown(finished: Path) -> None:
    """An epoch saves its clusters before its line of metrics.jsonl."""
    lines = (finished / "metrics.jsonl").read_text()
    (finished / "metrics.jsonl").write_text(lines[: lines.rindex('{"epoch": 2')])
    (finished / "assignments" / "epoch_0003.npy").unlink()
    content = content_of(finished)
    assert content["chosen"].startswith("The clusters of epoch 2.")


def test_a_run_in_its_first_epoch_has_a_page(tmp_path: Path, tree: Path) -> None:
    exp = make_run(tmp_path / "exp", tree, ["a/000.png"], epochs=0)
    (exp / "metrics.jsonl").unlink()
    content = content_of(exp)
    assert "no epoch is done yet" in content["status"]
    assert content["gallery"] is None
    with pytest.raises(InputError, match="--also 1: the run has no clusters yet"):
        write_report(exp, also=["1"])


def test_missing_images_are_shown_by_their_names(finished: Path, tree: Path) -> None:
    moved = tree.with_name("moved")
    tree.rename(moved)
    content = content_of(finished)
    assert {picture.webp for picture in content["gallery"].pictures} == {None}
    assert f"No image was found (looked for {tree}/a/000.png" in content["chosen"]
    found = content_of(finished, moved)
    assert all(picture.webp for picture in found["gallery"].pictures)


def test_nan_is_shown_as_a_dash(finished: Path) -> None:
    with (finished / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({**epoch_line(3), "kmeans_loss": math.nan}) + "\n")
    names, *rows = content_of(finished)["numbers"]
    assert rows[3][names.index("kmeans loss")] == "–"


def test_tables_have_few_digits(finished: Path) -> None:
    line = {**epoch_line(3), "kmeans_loss": 1263.8837566375732, "ln_k": 3.912023005428146}
    (finished / "metrics.jsonl").write_text(json.dumps({**line, "purity": 1.2e-7}) + "\n")
    config = json.loads((finished / "config.json").read_text())
    rates = {"lr": 0.1 + 0.2, "wd": -5.0, "min_scale_crops": [0.14, 0.1 + 0.2], "sobel": True}
    config["settings"] |= {**rates, "batch": 123456}
    (finished / "config.json").write_text(json.dumps(config))
    content = content_of(finished)
    shown = dict(zip(*content["numbers"], strict=True))
    assert [shown[name] for name in ("kmeans loss", "ln k", "purity")] == [
        "1264",
        "3.912",
        "1.2e-07",
    ]
    settings = dict(content["settings"])
    found = [settings[name] for name in (*rates, "batch")]
    assert found == ["0.3", "-5", "0.14 0.3", "yes", "123456"]


def test_a_name_that_is_not_utf_8_has_a_replacement_character(finished: Path) -> None:
    text = (finished / "images.txt").read_bytes()
    (finished / "images.txt").write_bytes(text.replace(b"a/000.png", b"a/\xff.png"))
    assert "<li>a/\ufffd.png</li>" in write_report(finished).read_text()


def test_main_writes_the_page_and_prints_its_path(
    tree: Path, train: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    exp = train(tree, report=True)
    assert re.search(rf"^  report +{exp}/report.html", capsys.readouterr().out, re.MULTILINE)
    content = content_of(exp)
    assert len(content["numbers"]) == 1 + 1
    assert [len(view.pictures) for view in content["filters"]] == [8, 8]
    assert all(picture.webp for picture in content["gallery"].pictures)
    page = (exp / "report.html").read_text()
    assert page.count("data:image/png") == 16
    assert page.count("data:image/webp") == len(content["gallery"].pictures)

    assert not (train(tree, exp="without") / "report.html").exists()
    assert "report" not in capsys.readouterr().out


def test_a_page_that_cannot_be_written_does_not_end_the_run(
    tree: Path,
    train: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    exp = tree.parent / "exp"
    (exp / "report.html").mkdir(parents=True)  # in the way
    with caplog.at_level(logging.WARNING):
        train(tree, report=True)
    (warning,) = caplog.messages
    assert warning == f"no report: {exp}/report.html: cannot write it: Is a directory"
    assert capsys.readouterr().out.splitlines()[-1].startswith("  to continue")

"""Settings that fit the data: the published ones at ImageNet's size, sensible ones below."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import main
from checkpoints.checkpoint import read_checkpoint

Train = Callable[..., Path]

IMAGENET = 1_281_167


def fitted(method: str, images: int, *flags: object) -> tuple[argparse.Namespace, list[str]]:
    args = main.parse_args(["images", "--method", method, *map(str, flags)])
    return args, main.METHODS[method].fit_settings(args, images)


@pytest.mark.parametrize("epochs", [100, 200, 400, 800])
def test_at_imagenets_size_and_batch_4096(epochs: int) -> None:
    args, _ = fitted("swav", IMAGENET, "--batch", 4096, "--epochs", epochs)
    assert (args.nmb_prototypes, args.nmb_cluster) == (3000, 3000)
    assert args.lr == pytest.approx(4.8)
    assert args.final_lr == pytest.approx(0.0048)
    assert args.warmup_epochs == 10
    assert args.start_warmup == pytest.approx(0.3)
    assert args.freeze_prototypes_niters == 313
    assert args.queue_length == 0
    assert args.size_crops == [224, 96]


@pytest.mark.parametrize("epochs", [200, 400])
def test_at_imagenets_size_and_batch_256(epochs: int) -> None:
    args, _ = fitted("swav", IMAGENET, "--batch", 256, "--epochs", epochs)
    assert args.lr == pytest.approx(0.6)
    assert args.final_lr == pytest.approx(0.0006)
    assert args.warmup_epochs == 0
    assert args.freeze_prototypes_niters == 5005
    assert (args.queue_length, args.epoch_queue_starts) == (3840, 15)


def test_deepclusterv2_at_imagenets_size() -> None:
    args, _ = fitted("deepclusterv2", IMAGENET, "--batch", 4096, "--epochs", 400)
    assert args.nmb_prototypes == [3000, 3000, 3000]
    assert args.lr == pytest.approx(4.8)
    assert (args.final_lr, args.start_warmup) == pytest.approx((0.0048, 0.3))
    assert args.warmup_epochs == 10


@pytest.mark.parametrize("images", [40, 300, 1500, 5000, 30_000])
@pytest.mark.parametrize("batch", [16, 40, 256, 512])
def test_fewer_images(images: int, batch: int) -> None:
    args, _ = fitted("swav", images, "--batch", min(batch, images), "--epochs", 50)
    assert 2 <= args.nmb_prototypes <= images / 20
    assert args.lr == pytest.approx(0.6 * max(args.batch / 256, 1) ** 0.75)
    assert args.warmup_epochs == (5 if args.batch > 256 else 0)
    assert args.freeze_prototypes_niters == images // args.batch + 1
    assert args.epoch_queue_starts == (5 if args.queue_length else 0)
    assert args.queue_length % args.batch == 0
    assert args.queue_length <= images / 4, "it holds less than a few epochs"
    assert args.queue_length + args.batch >= args.nmb_prototypes
    assert fitted("deepclusterv2", images)[0].nmb_prototypes == [args.nmb_prototypes] * 3


def test_sgd_has_rates_of_its_own() -> None:
    args, _ = fitted("swav", 5000, "--batch", 512, "--optimizer", "sgd")
    assert args.lr == pytest.approx(0.1)
    assert args.final_lr == pytest.approx(0.0001)


def test_small_crops_keep_their_share_of_the_large_ones() -> None:
    assert fitted("swav", 5000, "--size", 64)[0].size_crops == [64, 27]


CHOSEN = {
    "deepclusterv2": ["nmb_cluster", "size_crops", "lr", "final_lr", "warmup_epochs"],
    "swav": ["nmb_cluster", "size_crops", "lr", "final_lr", "warmup_epochs"],
}
CHOSEN["swav"] += ["freeze_prototypes_niters", "queue_length", "epoch_queue_starts"]


@pytest.mark.parametrize("method", list(CHOSEN))
def test_each_choice_has_a_line_with_its_reason(method: str) -> None:
    args, lines = fitted(method, 5000, "--batch", 32)
    assert [line[2:].split()[0] for line in lines] == CHOSEN[method]
    for line in lines:
        found = re.fullmatch(r"--(\w+) ([\d. ]+): (\S.*\w)", line)
        assert found, line
        value = vars(args)[found[1]]
        values = value if isinstance(value, list) else [value]
        assert [float(word) for word in found[2].split()] == pytest.approx(values, rel=1e-4)


def test_the_number_of_prototypes_comes_with_the_authors_advice() -> None:
    line = fitted("swav", 5000)[1][0]
    assert line.startswith(
        "--nmb_cluster 250: one for 20 images, 3000 at most; if you know roughly"
    )
    assert line.endswith("give ten times as many")


@pytest.mark.parametrize("method", list(main.METHODS))
def test_the_help_says_which_settings_are_chosen(method: str) -> None:
    chosen = {*CHOSEN.get(method, ()), *(("start_warmup", "nmb_prototypes") * (method in CHOSEN))}
    helps = {
        action.option_strings[0].removeprefix("--"): action.help or ""
        for action in main.make_parser(method)._actions
        if action.option_strings
    }
    assert [name for name in chosen if "left out: " not in helps[name]] == []
    assert ("small data" in helps["lr"]) == (method == "deepcluster")


def test_flags_that_are_given_are_kept() -> None:
    given = {
        "nmb_prototypes": 77, "size_crops": [50, 20], "lr": 0.3, "final_lr": 0.2,
        "warmup_epochs": 3, "start_warmup": 0.1, "freeze_prototypes_niters": 5,
        "queue_length": 640, "epoch_queue_starts": 2,
    }  # fmt: skip
    words = [
        word
        for name, value in given.items()
        for word in (f"--{name}", *(value if isinstance(value, list) else [value]))
    ]
    args, lines = fitted("swav", 5000, *words)
    assert lines == []
    assert {name: vars(args)[name] for name in given} == given
    assert args.nmb_cluster == 77, "k-means of the finished network"


def test_zeros_are_kept() -> None:
    flags = "--queue_length 0 --freeze_prototypes_niters 0 --warmup_epochs 0 --final_lr 0"
    args, lines = fitted("swav", 5000, "--batch", 32, *flags.split())
    assert args.queue_length == args.freeze_prototypes_niters == args.final_lr == 0
    assert not [line for line in lines if line.split()[0] in flags.split()]


def test_a_resumed_run_keeps_the_numbers_in_the_log(
    tree: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "--method swav --nmb_crops 2 --size_crops 32 --min_scale_crops 0.4 --max_scale_crops 1"
    exp = train(tree, *small.split(), "--hidden_mlp", "8", "--feat_dim", "4")
    logged = (exp / "log.txt").read_text()
    assert " NOTE note: --queue_length 0: " in logged
    assert "note: --queue_length 0: " in capsys.readouterr().out, "without --verbose, too"
    path = exp / "checkpoint.pth.tar"
    before = read_checkpoint(path)["settings"]
    # with these flags the rules would give other numbers
    train(tree, "--resume", str(path), "--epochs", "2", "--batch", "4")
    assert (exp / "log.txt").read_text().count("note: --queue_length") == 1
    after = read_checkpoint(path)["settings"]
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"epochs", "batch", "resume"}

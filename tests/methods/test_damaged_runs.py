"""Checkpoints of all methods but DeepCluster that are damaged, or don't fit: one line each."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ErrorLine, tiny, train_tiny, write_tree

import main
from checkpoints.checkpoint import read_checkpoint
from models import MODELS

Spoil = Callable[[dict[str, Any]], object]

CROPS = "--nmb_crops 2 --size_crops 32 --min_scale_crops 0.4 --max_scale_crops 1"
SMALL = f"{CROPS} --hidden_mlp 8 --feat_dim 4 --epochs 2 --checkpoints 3"
RUNS = {
    "swav": f"--method swav {SMALL} --queue_length 8 --epoch_queue_starts 0",
    "deepclusterv2": f"--method deepclusterv2 {SMALL} --nmb_prototypes 4 3 3",
    "deepercluster": "--method deepercluster --super_classes 8 --k 4 --epochs 2 --checkpoints 3",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images, and a run of each method; checkpoint_1 is from within the first epoch."""
    folder = tmp_path_factory.mktemp("made")
    tree = write_tree(folder / "images")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "tiny", tiny)
        for name, flags in RUNS.items():
            train_tiny(tree, folder / name, *flags.split())
    return folder


@pytest.fixture
def resume(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_line: ErrorLine
) -> Callable[..., str]:
    """Spoil a run's checkpoint and resume from it, with more flags. Returns the error. Nothing in
    the folder may change."""
    monkeypatch.setitem(MODELS, "tiny", tiny)

    def run(method: str, spoil: Spoil, *flags: str, name: str = "checkpoint_1") -> str:
        exp = shutil.copytree(made / method, tmp_path / method)
        path = next(exp.rglob(f"{name}.pth.tar"))
        checkpoint = read_checkpoint(path)
        spoil(checkpoint)
        torch.save(checkpoint, path)
        before = {file: file.stat().st_mtime_ns for file in exp.rglob("*")}
        line = error_line(main, made / "images", "--resume", path, "--workers", "0", *flags)
        assert {file: file.stat().st_mtime_ns for file in exp.rglob("*")} == before
        return line

    return run


def without(*names: str) -> Spoil:
    def spoil(checkpoint: dict[str, Any]) -> None:
        for name in names[:-1]:
            checkpoint = checkpoint[name]
        del checkpoint[names[-1]]

    return spoil


def change(*names: str, to: Any) -> Spoil:
    """Change an entry. `to` is the value, or a function of the entry."""

    def spoil(checkpoint: dict[str, Any]) -> None:
        for name in names[:-1]:
            checkpoint = checkpoint[name]
        checkpoint[names[-1]] = to(checkpoint[names[-1]]) if callable(to) else to

    return spoil


PLACE = "its place in the run is malformed"
MISFIT = "its heads do not fit --super_classes 8, --k 4 and --rotnet true"
ALL = {
    "no heads": (without("heads"), "its 'heads' is missing or malformed"),
    "heads in a list": (change("heads", to=[1]), "its 'heads' is missing or malformed"),
    "labels of floats": (change("assignment", to=torch.zeros(40)), PLACE),
    "labels below -1": (change("assignment", to=torch.full((40,), -2)), PLACE),
    "labels in a table": (change("previous", to=torch.zeros(4, 10).long()), PLACE),
    "clusters without centroids": (change("clusters", to={"epoch": 0}), PLACE),
}
BOTH = {
    **ALL,
    "a head without its last layer": (
        without("heads", "projection_head.3.weight"),
        "its heads do not fit",
    ),
    "a head of another width": (
        change("heads", "projection_head.0.weight", to=torch.zeros(8, 31)),
        "its heads do not fit",
    ),
    "a head in words": (
        change("heads", "projection_head.0.weight", to="weight"),
        "its heads do not fit",
    ),
    "no window": (without("window"), "its 'window' is missing or malformed"),
    "a window with NaN": (change("window", to=lambda w: [[np.nan] * len(w[0])]), PLACE),
    "a window of other signs": (change("window", to=[[1.0]]), PLACE),
    "a window in words": (change("window", to=[["good"] * 3]), PLACE),
    "a probe of NaN": (change("best_probe", to=np.nan), PLACE),
}
OF = {
    "swav": {
        "no queue": (without("queue"), PLACE),
        "a flat queue": (change("queue", to=torch.zeros(8, 4)), PLACE),
        "a queue of NaN": (change("queue", to=torch.full((8, 2, 4), np.nan)), PLACE),
        "a queue of whole numbers": (change("queue", to=torch.zeros(8, 2, 4).long()), PLACE),
        "a narrow queue": (change("queue", to=torch.zeros(8, 2, 3)), "its queue does not fit"),
        "steps below 0": (change("steps", to=-1), PLACE),
        "steps that are true": (change("steps", to=True), "its 'steps' is missing or malformed"),
    },
    "deepclusterv2": {
        "no memory": (without("memory"), "its 'memory' is missing or malformed"),
        "no rows": (without("memory", "rows"), PLACE),
        "rows of fewer images": (change("memory", "rows", to=lambda rows: rows[:39]), PLACE),
        "a memory of fewer images": (
            change("memory", to=lambda memory: {name: each[:39] for name, each in memory.items()}),
            PLACE,
        ),
        "rows of NaN": (change("memory", "rows", to=lambda rows: rows * np.nan), PLACE),
        "rows of whole numbers": (change("memory", "rows", to=lambda rows: rows.long()), PLACE),
        "images known by number": (change("memory", "known", to=lambda known: known.long()), PLACE),
        "narrow rows": (
            change("memory", "rows", to=lambda rows: rows[:, :, :3]),
            "its memory does not fit",
        ),
        "rows of one crop": (
            change("memory", "rows", to=lambda rows: rows[:, :1]),
            "its memory does not fit",
        ),
        "targets of two heads": (
            change("targets", to=lambda targets: targets[:2]),
            "its targets do not fit",
        ),
        "targets too high": (
            change("targets", to=lambda targets: targets + 3),
            "its targets do not fit",
        ),
        "targets below -1": (change("targets", to=lambda targets: targets - 9), PLACE),
        "targets of floats": (change("targets", to=lambda targets: targets.float()), PLACE),
    },
}
DEEPER = {
    "no tally": (without("tally"), "its 'tally' is missing or malformed"),
    "a tally of three": (change("tally", to=[1.0, 2.0, 3.0]), PLACE),
    "a tally of NaN": (change("tally", to=[np.nan] * 4), PLACE),
    "a tally in words": (change("tally", to=["many"] * 4), PLACE),
    "a head of another width": (change("heads", "super.weight", to=torch.zeros(8, 31)), MISFIT),
    "no sub-heads": (without("heads", "sub.weight"), MISFIT),
    "a head in words": (change("heads", "sub.bias", to="bias"), PLACE),
    "a head of NaN": (change("heads", "sub.bias", to=torch.full((8, 2), np.nan)), PLACE),
    "labels too high": (change("assignment", to=lambda labels: labels + 4), MISFIT),
    "no setting of its levels": (without("settings", "rotnet"), PLACE),
    "levels without numbers": (without("clusters", "counts"), PLACE),
    "no momentum of the heads": (
        change("optimizer", "state", to=lambda s: {n: v for n, v in s.items() if n != max(s)}),
        "its optimizer is missing or does not fit",
    ),
}
CASES = [
    (method, fault, *case)
    for method, cases in {
        **{name: BOTH | of for name, of in OF.items()},
        "deepercluster": ALL | DEEPER,
    }.items()
    for fault, case in cases.items()
]


@pytest.mark.parametrize(
    ("method", "fault", "spoil", "message"), CASES, ids=[f"{m}, {f}" for m, f, *_ in CASES]
)
def test_a_damaged_checkpoint_is_one_line(
    method: str, fault: str, spoil: Spoil, message: str, resume: Callable[..., str]
) -> None:
    assert message in resume(method, spoil)


def leave(checkpoint: dict[str, Any]) -> None: ...


@pytest.mark.parametrize(
    ("method", "flags", "message"),
    [
        ("swav", "--crops_for_assign 0", "its queue does not fit --crops_for_assign 0 and"),
        ("swav", "--feat_dim 5", "its heads do not fit"),
        ("swav", "--nmb_prototypes 5", "its heads do not fit"),
        ("swav", "--batch 4", "was saved mid-epoch with --batch 8 and can't resume with 4"),
        ("deepclusterv2", "--crops_for_assign 0", "its memory does not fit --crops_for_assign 0"),
        ("deepclusterv2", "--nmb_prototypes 4 3", "its heads do not fit"),
        ("deepclusterv2", "--hidden_mlp 9", "its heads do not fit"),
        ("deepercluster", "--batch 16", "was saved mid-epoch with --batch 8 and can't resume with"),
        (
            "deepercluster",
            "--k 8",
            "was saved mid-epoch with --nmb_cluster 4 and can't resume with",
        ),
        ("deepercluster", "--rotnet false", "was saved mid-epoch with --rotnet True and can't"),
    ],
)
def test_settings_that_cannot_change(
    method: str, flags: str, message: str, resume: Callable[..., str]
) -> None:
    assert message in resume(method, leave, *flags.split())


@pytest.mark.parametrize(
    ("method", "other"),
    [
        ("swav", "deepclusterv2"),
        ("deepclusterv2", "deepcluster"),
        ("deepercluster", "deepcluster"),
    ],
)
def test_another_methods_checkpoint_is_named(
    method: str, other: str, resume: Callable[..., str]
) -> None:
    line = resume(method, leave, "--method", other)
    assert f"holds a run of --method {method}, not of {other}" in line


def test_flags_of_another_method_are_named(tmp_path: Path, error_line: ErrorLine) -> None:
    line = error_line(main, tmp_path, "--epsilon", "0.1")
    assert "--epsilon: belongs to --method swav" in line
    line = error_line(main, tmp_path, "--method", "swav", "--empty", "split")
    assert "--empty: belongs to --method deepclusterv2" in line
    line = error_line(main, tmp_path, "--temperature", "0.1")
    assert "--temperature: belongs to --method deepclusterv2 or swav" in line


def test_a_memory_of_other_images_is_filled_anew(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two epochs a run may go on with other images."""
    monkeypatch.setitem(MODELS, "tiny", tiny)
    more = shutil.copytree(made / "images", tmp_path / "more")
    shutil.copytree(more / "a", more / "d")
    for method in RUNS:
        flags = ["--resume", str(made / method / "checkpoint.pth.tar"), "--epochs", "3"]
        exp = train_tiny(more, tmp_path / method, *flags)
        assert len(read_checkpoint(exp / "checkpoint.pth.tar")["assignment"]) == 50


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--super_classes 4", "--super_classes 4, --k 4 and --rotnet true"),
        ("--rotnet false --k 16", "--super_classes 8, --k 16 and --rotnet false"),  # as large heads
    ],
)
def test_other_levels_between_two_epochs_do_not_fit_the_heads(
    flags: str, words: str, resume: Callable[..., str]
) -> None:
    line = resume("deepercluster", leave, "--epochs", "3", *flags.split(), name="checkpoint")
    assert f"its heads do not fit {words}" in line

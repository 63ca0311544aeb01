"""Training on several processes, started with torchrun (gloo, CPU)."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import adjusted_rand_score

from system.locks import sole_user

ROOT = Path(__file__).parents[1]
GROUNDS = [(20, 20, 20), (235, 235, 235), (220, 30, 30), (30, 220, 30), (30, 30, 220)]
PLAIN = "--arch plain --k 5 --lr 0.02 --size 32 --epochs 2 --workers 0"


def start(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run main.py on so many processes of one thread each."""
    launcher = ["-m", "parallel.launch", "--standalone", "--nproc_per_node", str(processes)]
    settings = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    script = str(ROOT / "tests" / "sharded_training.py")
    return subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), script, *arguments],
        env={**os.environ, **settings},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def train(processes: int, data: Path, exp: Path, flags: str) -> dict[str, Any]:
    """Returns the checkpoint that the run ends with."""
    fixed = ["--device", "cpu", "--precision", "fp32", "--exp", str(exp)]
    done = start(processes, str(data), *flags.split(), *fixed)
    assert done.returncode == 0, done.stderr
    buffers = [line for line in done.stdout.splitlines() if line.startswith("buffers: ")]
    epochs = len(buffers) // processes
    assert epochs > 0
    assert len(set(buffers)) <= epochs, "all processes have the same batch norm"
    return torch.load(exp / "checkpoint.pth.tar", weights_only=True)


def metrics_of(exp: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (exp / "metrics.jsonl").read_text().splitlines()]


def write_kinds(folder: Path) -> np.ndarray:
    """Write 120 noisy images on five grounds. Returns the ground of each, `(120,) int64`."""
    rng, kinds = np.random.default_rng(0), np.arange(120) % 5
    folder.mkdir()
    for number, kind in enumerate(kinds):
        pixels = np.array(GROUNDS[kind]) + rng.integers(-20, 21, size=(40, 40, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03d}.png")
    return kinds


def test_three_processes_train_as_one(tmp_path: Path) -> None:
    """On the same batches, of which the last has a single image: two processes have none of it.
    One image, in the last process's share, cannot be read. The others are in five clear clusters,
    so that rounding, which differs, decides about none."""
    kinds = write_kinds(tmp_path / "images")
    (tmp_path / "images" / "119.png").write_bytes(b"no image")
    flags = f"{PLAIN} --batch 59 --kmeans_init kmeans++ --seed 32"  # 119 = 59 + 59 + 1
    one = train(1, tmp_path / "images", tmp_path / "one", flags)
    many = train(3, tmp_path / "images", tmp_path / "many", flags)

    for name, weight in one["state_dict"].items():
        torch.testing.assert_close(many["state_dict"][name], weight, rtol=1e-4, atol=1e-7)
    assert (tmp_path / "many" / "report.html").exists()
    for file in ("epoch_0000.npy", "epoch_0001.npy", "epoch_0002.npy"):
        first, second = (np.load(tmp_path / n / "assignments" / file) for n in ("one", "many"))
        assert first[119] == second[119] == -1
        assert adjusted_rand_score(first[:119], kinds[:119]) == 1
        np.testing.assert_array_equal(second, first)
    for first, second in zip(
        metrics_of(tmp_path / "one"), metrics_of(tmp_path / "many"), strict=True
    ):
        assert second["convnet_loss"] == pytest.approx(first["convnet_loss"], rel=1e-4)
        assert second["iterations"] == first["iterations"]
    for name in ("bad_images.txt", "images.txt"):
        assert (tmp_path / "many" / name).read_text() == (tmp_path / "one" / name).read_text()


def test_a_cut_run_of_two_processes_goes_on_within_an_epoch(tree: Path, tmp_path: Path) -> None:
    """With batch norm and dropout, which each process has of its own."""
    flags = "--arch tiny --sobel --k 4 --batch 8 --lr 0.01 --size 32 --epochs 2 --checkpoints 7"
    whole = train(2, tree, tmp_path / "whole", flags)
    cut = tmp_path / "whole" / "checkpoints" / "checkpoint_1.pth.tar"
    assert torch.load(cut, weights_only=True)["step"] == 2
    resumed = train(2, tree, tmp_path / "resumed", f"--resume {cut} --workers 2")
    for name, weight in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], weight), name
    assert len(metrics_of(tmp_path / "whole")) == 2


@pytest.mark.parametrize("damaged", [range(2), range(38, 40)])
def test_too_many_unreadable_images_stop_all_processes(
    tree: Path, tmp_path: Path, damaged: range
) -> None:
    """Whichever process has them."""
    for path in np.array(sorted(tree.rglob("*.png")))[damaged]:
        path.write_bytes(b"no image")
    flags = f"{PLAIN} --exp {tmp_path / 'exp'} --device cpu"
    done = start(2, str(tree), *flags.split())
    assert done.returncode == 2
    *_, last = done.stderr.splitlines()
    assert "error" in last
    assert "2 of 40 images are unreadable, more than 1%" in last
    assert "Traceback" not in done.stderr
    assert len((tmp_path / "exp" / "bad_images.txt").read_text().splitlines()) == 2


def test_a_loss_that_is_no_number_stops_all_processes(tree: Path, tmp_path: Path) -> None:
    flags = f"{PLAIN} --lr 1e30 --batch 7 --exp {tmp_path / 'exp'} --device cpu --precision fp32"
    done = start(2, str(tree), *flags.split())
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    *_, last = done.stderr.splitlines()
    said = r"became (nan|inf|NaN or infinite) in step \d of epoch 0 .*; nothing was saved yet; try"
    assert re.search(said, last)
    assert not (tmp_path / "exp" / "checkpoint.pth.tar").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--k 41", "--nmb_cluster 41: more clusters than the 40 images of"),
        ("--k 4 --batch 3", "--batch 3: is the total of 2 processes; give 4 or more"),
        ("--k 1", "argument --nmb_cluster/--k: '1' is not a whole number of 2 or more"),
    ],
)
def test_what_all_processes_refuse_is_said_once(tree: Path, flags: str, message: str) -> None:
    done = start(2, str(tree), "--arch", "tiny", *flags.split())
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_all_processes_leave_a_folder_that_is_in_use(tree: Path, tmp_path: Path) -> None:
    """The others do not go on to the features, which they would compute alone."""
    exp = tmp_path / "exp"
    exp.mkdir()
    with sole_user(exp / ".lock", "busy"):
        done = start(2, str(tree), "--arch", "tiny", "--k", "4", "--batch", "8", "--exp", str(exp))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "another run of main.py is working there" in line

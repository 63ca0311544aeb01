"""Training with several processes (gloo, CPU)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import ROOT, Server, load_metrics, output_of
from sklearn.metrics import adjusted_rand_score

from system.locks import sole_user

GROUNDS = [(20, 20, 20), (235, 235, 235), (220, 30, 30), (30, 220, 30), (30, 30, 220)]
PLAIN = "--arch plain --k 5 --lr 0.02 --size 32 --epochs 2 --device cpu --precision fp32"


def write_kinds(folder: Path) -> np.ndarray:
    """Write 120 noisy images on five grounds. Returns the ground of each, `(120,) int64`."""
    rng, kinds = np.random.default_rng(0), np.arange(120) % 5
    folder.mkdir()
    for number, kind in enumerate(kinds):
        pixels = np.array(GROUNDS[kind]) + rng.integers(-20, 21, size=(40, 40, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03d}.png")
    return kinds


def test_three_processes_train_as_one(server: Server, tmp_path: Path) -> None:
    """The last batch has a single image, so two processes have none of it; one image, in the last
    process's share, is unreadable. The images form five clear clusters, so that rounding, which
    differs between the runs, moves no image to another cluster."""
    kinds = write_kinds(tmp_path / "images")
    (tmp_path / "images" / "119.png").write_bytes(b"no image")
    flags = f"{PLAIN} --batch 59 --kmeans_init kmeans++ --seed 32"  # 119 = 59 + 59 + 1
    for name, ranks in (("one", 1), ("many", 3)):
        run = server.start(tmp_path / "images", tmp_path / name, ranks, flags=flags)
        assert server.wait(run) == [0] * ranks, output_of(tmp_path / name)

    one, many = (tmp_path / name / "exp" for name in ("one", "many"))
    weights, others = (
        torch.load(exp / "checkpoint.pth.tar", weights_only=True)["state_dict"]
        for exp in (one, many)
    )
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=1e-4, atol=1e-7)
    assert (many / "report.html").exists()
    for file in ("epoch_0000.npy", "epoch_0001.npy", "epoch_0002.npy"):
        first, second = (np.load(exp / "assignments" / file) for exp in (one, many))
        assert first[119] == second[119] == -1
        assert adjusted_rand_score(first[:119], kinds[:119]) == 1
        np.testing.assert_array_equal(second, first)
    for expected, found in zip(load_metrics(one), load_metrics(many), strict=True):
        assert found["convnet_loss"] == pytest.approx(expected["convnet_loss"], rel=1e-4)
        assert found["iterations"] == expected["iterations"]
    for name in ("bad_images.txt", "images.txt"):
        assert (many / name).read_text() == (one / name).read_text()


def test_all_processes_have_the_same_batch_norm(server: Server, tree: Path, tmp_path: Path) -> None:
    run = server.start(tree, tmp_path / "run", ranks=2, print_buffers=True)
    assert server.wait(run) == [0, 0], output_of(tmp_path / "run")
    first, second = (
        [line for line in (tmp_path / "run" / f"output_{rank}").open() if line.startswith("[")]
        for rank in range(2)
    )
    assert len(first) == 3, "epochs"
    assert first == second


def error_of_both(server: Server, tree: Path, folder: Path, flags: str) -> str:
    """Run two processes, which both end with status 2. Returns the last line that each prints."""
    processes = server.start(tree, folder, ranks=2, flags=flags, silence=0)
    assert server.wait(processes) == [2, 2], output_of(folder)
    assert "Traceback" not in output_of(folder)
    first, second = ((folder / f"output_{rank}").read_text().splitlines() for rank in range(2))
    assert first[-1] == second[-1]
    return first[-1]


@pytest.mark.parametrize("damaged", [range(2), range(38, 40)])
def test_too_many_unreadable_images_stop_all_processes(
    server: Server, tree: Path, tmp_path: Path, damaged: range
) -> None:
    """It doesn't matter in which process's share they are."""
    for path in np.array(sorted(tree.rglob("*.png")))[damaged]:
        path.write_bytes(b"no image")
    error = error_of_both(server, tree, tmp_path / "run", PLAIN)
    assert "2 of 40 images are unreadable, more than 1%" in error
    bad = tmp_path / "run" / "exp" / "bad_images.txt"
    assert len(bad.read_text().splitlines()) == 2


def test_a_nan_loss_stops_all_processes(server: Server, tree: Path, tmp_path: Path) -> None:
    error = error_of_both(server, tree, tmp_path / "run", f"{PLAIN} --lr 1e30 --batch 7")
    said = r"became (nan|inf|NaN or infinite) in step \d of epoch 0 .*; nothing was saved yet; try"
    assert re.search(said, error)
    assert not (tmp_path / "run" / "exp" / "checkpoint.pth.tar").exists()


def test_bad_input_stops_all_processes(server: Server, tree: Path, tmp_path: Path) -> None:
    error = error_of_both(server, tree, tmp_path / "run", "--arch tiny --k 4 --batch 3")
    assert "--batch 3: too small for 2 processes; give 4 or more (2 each)" in error


def test_bad_input_under_the_launcher_is_one_line(tree: Path) -> None:
    launcher = ["-m", "parallel.launch", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [sys.executable, *launcher, "main.py", str(tree), "--k", "41"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "--k 41: more clusters than the 40 images of" in line


def test_all_processes_stop_if_another_run_uses_the_folder(
    server: Server, tree: Path, tmp_path: Path
) -> None:
    exp = tmp_path / "run" / "exp"
    exp.mkdir(parents=True)
    with sole_user(exp / ".lock", "busy"):
        error = error_of_both(server, tree, tmp_path / "run", "--arch tiny --k 4 --batch 8")
    assert "another run of main.py is working there" in error

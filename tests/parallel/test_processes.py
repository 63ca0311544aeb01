"""1, 2 and 4 processes over gloo: every collective, and every method, with shares of different
lengths; also if one process is slow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runs import Server, load_metrics, output_of

SCRIPT = Path(__file__).parents[1] / "sharded_collectives.py"
SHARED = "--arch plain --size 32 --epochs 2 --device cpu --precision fp32 --no-report"
CROPS = "--nmb_crops 2 1 --size_crops 32 16 --hidden_mlp 0 --feat_dim 8 --lr 0.1"
METHODS = {
    "deepcluster": "--k 4 --batch 11 --lr 0.02 --kmeans_init kmeans++ --sampler released",
    "deepclusterv2": f"--method deepclusterv2 {CROPS} --k 4 --batch 11",
    "swav": f"--method swav {CROPS} --k 4 --batch 11 --queue_length 11",
    "deepercluster": "--method deepercluster --super_classes 4 --k 4 --batch 12 --lr 0.02",
    "rotnet": "--method deepercluster --super_classes 4 --k 1 --batch 12 --lr 0.02",
}


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_collective(server: Server, tmp_path: Path, ranks: int) -> None:
    said = server.run_script(SCRIPT, ["cpu"], tmp_path, ranks=ranks)
    assert said == f"{ranks} processes, cpu, nccl: False\n"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """27 noisy images of four colours: 4 processes have 6 or 7 of them, 2 have 13 and 14."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    grounds = np.array([(20, 20, 20), (235, 235, 235), (220, 30, 30), (30, 30, 220)])
    for number in range(27):
        pixels = grounds[number % 4] + rng.integers(-20, 21, size=(40, 40, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02d}.png")
    return folder


def run(
    server: Server, images: Path, folder: Path, method: str, ranks: int, **options: Any
) -> dict[str, Any]:
    """Train. Returns the newest checkpoint."""
    flags = f"{SHARED} {METHODS[method]}"
    processes = server.start(images, folder, ranks, flags=flags, **options)
    assert server.wait(processes) == [0] * ranks, output_of(folder)
    checkpoint = torch.load(folder / "exp" / "checkpoint.pth.tar", weights_only=True)
    return {**checkpoint, "losses": [line["convnet_loss"] for line in load_metrics(folder / "exp")]}


@pytest.mark.parametrize("method", list(METHODS))
def test_each_method_trains_as_one_process(
    server: Server, images: Path, tmp_path: Path, method: str
) -> None:
    """Its network has no batch norm. A batch of 11 gives 4 processes 3 or 2 images."""
    one, *others = (run(server, images, tmp_path / f"{n}", method, n) for n in (1, 2, 4))
    for other in others:
        np.testing.assert_allclose(other["losses"], one["losses"], rtol=1e-3)
        for name, weight in one["state_dict"].items():
            torch.testing.assert_close(other["state_dict"][name], weight, rtol=1e-3, atol=1e-5)


def test_a_slow_process_changes_nothing(server: Server, images: Path, tmp_path: Path) -> None:
    """It takes longer for each image than a whole run of the others, and is not taken for dead."""
    quick = run(server, images, tmp_path / "quick", "swav", 2)
    slow = run(server, images, tmp_path / "slow", "swav", 2, slow=[1, 0.03], beat=0.1)
    assert slow["losses"] == quick["losses"]
    for name, weight in quick["state_dict"].items():
        assert torch.equal(slow["state_dict"][name], weight), name

"""Started by test_assign.py under torchrun: two processes assign images and cluster features.

Usage: sharded_assigning.py FOLDER, with the files of the test.
"""

import sys
from pathlib import Path

from conftest import tiny

import assign
from models import MODELS
from parallel.collectives import process_group, rank
from system.errors import InputError
from tools import cluster_features


def main(folder: Path) -> None:
    device = ["--device", "cpu"]
    images = [str(folder / "released.pth.tar"), str(folder / "images"), "--workers", "0", *device]
    files = ["--clusters", str(folder / "clusters.pth"), "--out", str(folder / "two.csv")]
    assign.main(assign.parse_args([*images, "--precision", "fp32", *files]))

    flags = ["--k", "8", "--kmeans_init", "kmeans++", *device, "--out", str(folder)]
    flags[-1] += "/assignment.npy"
    for name in ("features.npy", "broken.npy"):
        try:
            cluster_features.main(cluster_features.parse_args([str(folder / name), *flags]))
        except InputError as error:
            (folder / f"error_{rank()}.txt").write_text(str(error))


if __name__ == "__main__":
    MODELS["tiny"] = tiny
    with process_group("cpu"):
        main(Path(sys.argv[1]))

"""The losses of SwAV and DeepCluster-v2 on two processes are those of one process."""

from pathlib import Path

import numpy as np
from runs import Server

SCRIPT = Path(__file__).parents[1] / "sharded_losses.py"


def test_images_without_a_cluster_and_queues_of_different_lengths(
    server: Server, tmp_path: Path
) -> None:
    """In DeepCluster-v2, 2 of 5 images of one process and 1 of 3 of the other have no cluster. In
    SwAV, only one process has a full queue."""
    found = []
    for shares in ("8", "5,3"):
        out = tmp_path / f"{shares}.npz"
        server.run_script(SCRIPT, [shares, out], tmp_path / shares, ranks=len(shares.split(",")))
        with np.load(out) as results:
            found.append(dict(results))
    one, two = found
    for name, expected in one.items():
        assert np.abs(expected).max() > 0.01, name
        np.testing.assert_allclose(two[name], expected, rtol=1e-4, atol=1e-6, err_msg=name)

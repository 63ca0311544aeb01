"""R-MAC (Tolias, Sicre and Jégou 2016): an image's vector for retrieval, from the regions of a conv
map. Works on tensors only.

Each region's maxima over the channels are L2-normalised, PCA-whitened (by `cluster/whitening.py`)
and normalised again. The sum over the regions, normalised, is the image's vector. The whitening is
fitted on the regions of another data set, so it does not depend on the ranked images.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.whitening import Whitening

OVERLAP = 0.4  # target for neighbours along the longer side at the first scale
MOST_EXTRA = 6  # places along the longer side


def get_rmac_region_coordinates(H: int, W: int, L: int) -> np.ndarray:  # noqa: N803
    """The regions of an `H × W` map at scales 1..L, as `(R, 4) int64` rows x, y, width, height.

    With w = min(H, W): scale l has squares of side ⌊2w / (l + 1)⌋ in l places along the map's
    shorter side and l + e places along the longer one, evenly from border to border. e is 0 for a
    square map; else it is the number from 1 to 6 for which neighbours at scale 1 overlap most
    nearly by 0.4 of their area. Rows are ordered by scale, then line by line from the top left. On
    tiny maps, scales whose squares would have side 0 are left out.

    Raises:
        ValueError: the map is empty.
    """
    if min(H, W) < 1:
        raise ValueError(f"a map of {H} × {W} has no regions")
    extra = _extra_places(min(H, W), max(H, W))
    regions: list[tuple[int, int, int, int]] = []
    for scale in range(1, L + 1):
        side = 2 * min(H, W) // (scale + 1)
        if side > 0:
            tops = _starts(H, side, scale + (extra if H > W else 0))
            lefts = _starts(W, side, scale + (extra if W > H else 0))
            regions += [(left, top, side, side) for top in tops for left in lefts]
    return np.array(regions, np.int64).reshape(-1, 4)


def regional_vectors(features: Tensor, L: int) -> Tensor:  # noqa: N803
    """Conv maps `(N, C, H, W)` → the regions' maxima `(N, R, C) float32`, rows of unit length (zero
    if the region has no activation)."""
    features = features.contiguous()  # channels-last would take ten times as long
    bands: dict[tuple[int, int], Tensor] = {}  # shared maxima over rows, `(N, C, W)`
    maxima = []
    rows, columns = features.shape[2:]
    for x, y, width, height in get_rmac_region_coordinates(rows, columns, L).tolist():
        if (y, height) not in bands:
            bands[y, height] = features[:, :, y : y + height].amax(dim=2)
        maxima.append(bands[y, height][:, :, x : x + width].amax(dim=2))
    return F.normalize(torch.stack(maxima, dim=1).float(), dim=2)


def aggregate(regions: Tensor, pca: Whitening | None = None) -> Tensor:
    """Regional vectors `(N, R, C)` → images' vectors `(N, D)` of unit length: whitened and
    normalised (D components; without `pca` as they are, D = C), summed, normalised."""
    if pca is not None:
        white = pca.apply(regions.flatten(0, 1).cpu().numpy())
        regions = torch.from_numpy(white).unflatten(0, regions.shape[:2]).to(regions.device)
    return F.normalize(regions.float().sum(dim=1), dim=1)


def rmac(features: Tensor, L: int, pca: Whitening | None = None) -> Tensor:  # noqa: N803
    """Conv maps `(N, C, H, W)`, after the ReLU → images' vectors `(N, D) float32` of unit length.

    Args:
        L: number of scales.
        pca: the whitening of the regions, of D components; None: no whitening, D = C.
    """
    return aggregate(regional_vectors(features, L), pca)


def _extra_places(shorter: int, longer: int) -> int:
    """How many more places squares have along the longer side than along the shorter one."""
    if shorter == longer:
        return 0

    def distance(extra: int) -> float:
        step = (longer - shorter) / extra
        return abs((shorter**2 - shorter * step) / shorter**2 - OVERLAP)

    return min(range(1, MOST_EXTRA + 1), key=distance)


def _starts(length: int, side: int, places: int) -> list[int]:
    """The first cells of squares that are spaced evenly along a length."""
    if places == 1:
        return [0]
    return [i * (length - side) // (places - 1) for i in range(places)]

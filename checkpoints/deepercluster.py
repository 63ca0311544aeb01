"""Files of DeeperCluster's release: VGG-16 by DeeperCluster, DeepCluster or RotNet.

Their networks add a pixel of zeros around the image, so that maps begin with 226 × 226. The files
name no architecture, have no top layer, and the names of weights tell them from DeepCluster's own
VGG-16: `module.body.features.0.weight`, or `module.features.0.weight`, or a `pred_layer` beside the
network. (DeepCluster's has `arch`, and `features.module.0.weight`.)
"""

import re
from typing import Any

from checkpoints.search import Contents, Network
from checkpoints.weights import has_sobel

ARCH = "vgg16"
MARGIN = 1  # pixels of zeros around the normalised image
HEAD = "pred_layer_state_dict"  # in checkpoints of a training
WRAPPED = re.compile(r"(^|\.)(module|body)\.classifier\.0\.weight$")
WITH_SOBEL = "DeeperCluster's release: DeeperCluster, or DeepCluster on Flickr images"
WITHOUT_SOBEL = "DeeperCluster's release: RotNet"


def release_of(network: Network, contents: Contents, named: Any) -> str | None:
    """The kind of a file of DeeperCluster's release, in words; None for other files.

    Args:
        named: the architecture that the file names, or None.
    """
    if network.arch != ARCH or named is not None or "top_layer.weight" in network.weights:
        return None
    wrapped = any(map(WRAPPED.search, network.used))
    if not wrapped and not any(re.search(r"(^|\.)pred_layer\.", full) for full in contents.values):
        return None
    return WITH_SOBEL if has_sobel(network.weights) else WITHOUT_SOBEL

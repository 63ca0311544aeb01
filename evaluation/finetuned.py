"""A network with a new classifier: what of it trains, and what it gives."""

import torch
from torch import Tensor, nn

from models.convnet import ConvNet
from system.errors import InputError
from system.seeding import derive_seed


def renew_classifier(network: ConvNet, out: int, seed: int) -> None:
    """Give the linear layers new weights, N(0, 0.01), and biases, 0.1, and put a top layer of
    `out` on them."""
    layers = [m for m in network.classifier.modules() if isinstance(m, nn.Linear)]
    with torch.random.fork_rng(devices=[]):
        network.top_layer = nn.Linear(network.embedding_dim, out)
        torch.manual_seed(derive_seed(seed, "new classifier"))
        for layer in [*layers, network.top_layer]:
            nn.init.normal_(layer.weight, 0.0, 0.01)
            nn.init.constant_(layer.bias, 0.1)


def trained_parameters(network: ConvNet, convolutions: bool, norms: bool) -> list[str]:
    """Names of the parameters that train: the classifier's and the top layer's, and of the features
    those that are asked for. The Sobel filters' are never among them.

    Args:
        convolutions: whether they train.
        norms: whether batch norm's scales and shifts do.

    Raises:
        InputError: the network has no classifier.
    """
    classifier = [f"classifier.{name}" for name, _ in network.classifier.named_parameters()]
    if not classifier:
        raise InputError(f"{network.arch}: has no classifier, whose layers would be trained")
    trained = []
    for place, module in network.features.named_modules(prefix="features"):
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if norms if is_norm else convolutions:
            own = module.named_parameters(recurse=False)
            trained += [f"{place}.{name}" for name, _ in own]
    return [*trained, *classifier, "top_layer.weight", "top_layer.bias"]


def class_scores(network: ConvNet, x: Tensor) -> Tensor:
    """`(N, 3, H, W)` images → `(N, K)` logits, which are float32 in every precision: rounded to
    fewer digits many would be equal, and equal scores count against the network."""
    hidden = network.classifier[-1](network.embedding(x))
    assert network.top_layer is not None
    with torch.autocast(x.device.type, enabled=False):
        return network.top_layer(hidden.float())

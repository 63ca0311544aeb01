"""Freeze a network while it is evaluated, and check that it did not change."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from models.network import Network


@contextlib.contextmanager
def frozen(model: Network) -> Iterator[Network]:
    """Within the block, the network is in eval mode and needs no gradients; afterwards, modes and
    gradients are as before.

    Raises:
        RuntimeError: its weights or batch norm's statistics changed in the block.
    """
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = {module: module.training for module in model.modules()}
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval().requires_grad_(False)
    yield model
    for module, training in modes.items():
        module.training = training
    for parameter in wanted:
        parameter.requires_grad_(True)
    check_unchanged(model, before)


def check_unchanged(model: nn.Module, before: dict[str, Tensor]) -> None:
    """Check that entries of the network's state are unchanged, bit for bit.

    Raises:
        RuntimeError: naming those that changed.
    """
    now = model.state_dict()
    changed = [name for name, t in before.items() if not torch.equal(now[name].to(t.device), t)]
    if changed:
        raise RuntimeError(f"the frozen network has changed: {', '.join(changed)}")

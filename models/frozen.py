"""A network that is judged and not trained, or not all of it."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from models.convnet import ConvNet


@contextlib.contextmanager
def frozen(model: ConvNet) -> Iterator[ConvNet]:
    """Within the block the network is in eval mode and wants no gradients; afterwards it is as it
    was before, which is checked to the last bit, batch norm's statistics included.

    Raises:
        RuntimeError: something in the block has changed it.
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
    """Check that these entries of the network's state are what they were, to the last bit.

    Raises:
        RuntimeError: some are not, by name.
    """
    now = model.state_dict()
    changed = [name for name, t in before.items() if not torch.equal(now[name].to(t.device), t)]
    if changed:
        raise RuntimeError(f"the frozen network has changed: {', '.join(changed)}")

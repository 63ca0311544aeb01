"""A network that is judged and not trained."""

import contextlib
from collections.abc import Iterator

import torch

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
    changed = [n for n, t in model.state_dict().items() if not torch.equal(t, before[n])]
    if changed:
        raise RuntimeError(f"the frozen network has changed: {', '.join(changed)}")

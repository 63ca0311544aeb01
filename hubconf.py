"""Entry points for `torch.hub.load`: the networks, untrained or from a checkpoint.

The modules of this folder have plain names, `models`, `data`, `files`, that a user's own program
may well have, too. While one of the functions here runs, the names are this folder's; before and
after they are the user's.
"""

# Modules only: every function and class without an underscore would be listed as an entry point.
import collections.abc
import contextlib
import pathlib
import sys
import types

import torch

dependencies = ["torch", "numpy", "safetensors"]

_FOLDER = pathlib.Path(__file__).resolve().parent

_Path = str | pathlib.Path


def alexnet(
    checkpoint: _Path | None = None,
    *,
    sobel: bool | None = None,
    out: int | None = None,
) -> torch.nn.Module:
    """AlexNet with batch norm.

    Args:
        checkpoint: file of a trained network; architecture, Sobel and outputs are what it says.
        sobel: put the Sobel filters in front (default: no); with a checkpoint, what it has to have.
        out: outputs of the top layer (default: 1000); with a checkpoint, what it has to have.

    Returns:
        A network from `(N, 3, H, W)` images, normalised with ImageNet's mean and deviation, to
        `(N, out)`, with the methods `embedding(x)`, `conv_features(x, layer)` and
        `each_conv_features(x, layers)`. Call `eval()` on it before you use it.

    Raises:
        ValueError: the checkpoint is none, or of another network.
    """
    return _network("alexnet", checkpoint, sobel, out)


def vgg16(
    checkpoint: _Path | None = None,
    *,
    sobel: bool | None = None,
    out: int | None = None,
) -> torch.nn.Module:
    """VGG-16 with batch norm; otherwise as `alexnet`."""
    return _network("vgg16", checkpoint, sobel, out)


def resnet50(
    checkpoint: _Path | None = None,
    *,
    sobel: bool | None = None,
    out: int | None = None,
) -> torch.nn.Module:
    """ResNet-50; otherwise as `alexnet`."""
    return _network("resnet50", checkpoint, sobel, out)


def resnet18(
    checkpoint: _Path | None = None,
    *,
    sobel: bool | None = None,
    out: int | None = None,
) -> torch.nn.Module:
    """ResNet-18; otherwise as `alexnet`."""
    return _network("resnet18", checkpoint, sobel, out)


def resnet18_small(
    checkpoint: _Path | None = None,
    *,
    sobel: bool | None = None,
    out: int | None = None,
) -> torch.nn.Module:
    """ResNet-18 for images of 32 to 64 pixels; otherwise as `alexnet`."""
    return _network("resnet18_small", checkpoint, sobel, out)


def _network(arch: str, path: _Path | None, sobel: bool | None, out: int | None) -> torch.nn.Module:
    with _own_modules():
        from checkpoints.checkpoint import model_of, read_checkpoint
        from models import MODELS

        if path is None:
            return MODELS[arch](sobel=bool(sobel), out=1000 if out is None else out)
        state = read_checkpoint(path)
        _check(path, "arch", state["arch"], arch)
        model = model_of(state, path)
        top_layer = model.top_layer
        _check(path, "sobel", model.sobel is not None, sobel)
        _check(path, "out", None if top_layer is None else top_layer.out_features, out)
        return model


def _check(path: _Path, name: str, found: object, wanted: object) -> None:
    from system.errors import InputError

    if wanted is not None and wanted != found:
        raise InputError(f"{path}: its {name} is {found}, not {wanted}")


@contextlib.contextmanager
def _own_modules() -> collections.abc.Iterator[None]:
    """Within the block, imports find this folder's modules, whatever of the same names has been
    imported before; afterwards that is all back, and this folder's are forgotten."""
    hidden = {name: module for name, module in sys.modules.items() if _is_in_the_way(name, module)}
    before = set(sys.modules) - set(hidden)
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(_FOLDER))
    try:
        yield
    finally:
        sys.path.remove(str(_FOLDER))
        for name in set(sys.modules) - before:
            if _has_a_name_of_ours(name):
                del sys.modules[name]
        sys.modules.update(hidden)


def _is_in_the_way(name: str, module: types.ModuleType) -> bool:
    """Whether a module has the name of one of this folder, and is another."""
    file = getattr(module, "__file__", None)
    ours = file is not None and _FOLDER in pathlib.Path(file).resolve().parents
    return _has_a_name_of_ours(name) and not ours


def _has_a_name_of_ours(name: str) -> bool:
    top = _FOLDER / name.partition(".")[0]
    return top.with_suffix(".py").exists() or (top / "__init__.py").exists()

"""Entry points for `torch.hub.load`: the networks of `models`, untrained or from a checkpoint.

A user's program may have modules with the same names as ours, such as `models` or `data`. While a
function here runs, these names mean our modules; before and after, the user's.
"""

# Import modules only: torch.hub lists every function without an underscore as an entry point.
import collections.abc
import contextlib
import pathlib
import sys
import types

import torch

dependencies = ["torch", "torchvision", "numpy", "safetensors"]

_FOLDER = pathlib.Path(__file__).resolve().parent

_Path = str | pathlib.Path


def _entry_point(arch: str) -> collections.abc.Callable[..., torch.nn.Module]:
    """The function that `torch.hub.load(…, arch)` calls."""

    def load(
        checkpoint: _Path | None = None,
        *,
        key: str | None = None,
        sobel: bool | None = None,
        out: int | None = None,
    ) -> torch.nn.Module:
        return _network(arch, checkpoint, key, sobel, out)

    load.__name__ = load.__qualname__ = arch
    load.__doc__ = f"""The network `{arch}`.

    Args:
        checkpoint: file of a trained network of this architecture.
        key: of several networks in the file, the one of this name, such as `teacher`.
        sobel: put the Sobel filters in front (default: no). With a checkpoint: check whether its
            network has them.
        out: outputs of the top layer (default: 1000). With a checkpoint: check their number.

    Returns:
        A network from `(N, 3, H, W)` images to `(N, out)`, with the methods `embedding(x)`,
        `conv_features(x, layer)` and `each_conv_features(x, layers)`. Images are normalised with
        ImageNet's mean and the network's `std`, which is ImageNet's unless the checkpoint has
        another. Call `eval()` on it before you use it.

    Raises:
        ValueError: the file isn't a checkpoint of such a network.
    """
    return load


def _network(
    arch: str, path: _Path | None, key: str | None, sobel: bool | None, out: int | None
) -> torch.nn.Module:
    with _own_modules():
        from checkpoints.checkpoint import model_of, read_checkpoint
        from models import MODELS

        if path is None:
            return MODELS[arch](sobel=bool(sobel), out=1000 if out is None else out)
        state = read_checkpoint(path, key)
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
    """Let imports in the block find this folder's modules. Afterwards `sys.modules` has the user's
    modules of these names again, and none of this folder."""
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
    """Whether a module from elsewhere has the name of one of this folder."""
    file = getattr(module, "__file__", None)
    ours = file is not None and _FOLDER in pathlib.Path(file).resolve().parents
    return _has_a_name_of_ours(name) and not ours


def _has_a_name_of_ours(name: str) -> bool:
    top = _FOLDER / name.partition(".")[0]
    return top.with_suffix(".py").exists() or (top / "__init__.py").exists()


with _own_modules():
    import models

    globals().update({arch: _entry_point(arch) for arch in models.MODELS})
    del models

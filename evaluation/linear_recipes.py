"""The protocols of the linear probe side by side; `eval_linear.py` describes them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchvision.transforms import v2

from data.transforms import modelzoo_probe_crop, probe_crop, random_crop, resized_crop
from models.layers import AVGPOOL


@dataclass(frozen=True)
class Recipe:
    """A protocol of the linear probe.

    Attributes:
        view: makes the transform of training images, given the input's side in pixels.
        normalised: each classifier has batch norm without parameters before it.
        nesterov: use Nesterov's momentum.
        conv, epochs, lr, wd, steps: defaults of the flags of these names. `wd` is an exponent of
            ten, None for no decay. `steps` are the numbers of epochs after which the rate is
            divided by ten, None for the paper's rate, which falls with every iteration.
    """

    view: Callable[[int], v2.Transform] = modelzoo_probe_crop
    normalised: bool = True
    nesterov: bool = True
    conv: tuple[str, ...] = ("all",)
    epochs: int = 90
    lr: float = 0.01
    wd: float | None = -4.0
    steps: tuple[int, ...] | None = (30, 60, 90)

    @property
    def flags(self) -> dict[str, Any]:
        """The flags' defaults."""
        return {name: getattr(self, name) for name in ("conv", "epochs", "lr", "wd", "steps")}


# by the names of `--protocol`
RECIPES = {
    "paper": Recipe(probe_crop, normalised=False, nesterov=False, steps=None),
    "modelzoo": Recipe(),
    "modelzoo-places205": Recipe(resized_crop, epochs=28, steps=(7, 14, 21)),
    "modelzoo-inat18": Recipe(epochs=84, steps=(24, 48, 72)),
    "modelzoo-avgpool": Recipe(
        random_crop, normalised=False, nesterov=False, conv=(AVGPOOL,),
        epochs=100, lr=30.0, wd=None, steps=(60, 80),
    ),
}  # fmt: skip

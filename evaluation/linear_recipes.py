"""The protocols of the linear probe side by side; `eval_linear.py` describes them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchvision.transforms import v2

from data.transforms import modelzoo_probe_crop, probe_crop, random_crop, resized_crop
from models.layers import AVGPOOL

BATCH = 256  # images, of all protocols


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
        cosine: in place of `steps`, the rate falls from epoch to epoch to 0, by half a cosine.
        scaled: `lr` is for `BATCH` images, and its default is proportional to the batch.
    """

    view: Callable[[int], v2.Transform] = modelzoo_probe_crop
    normalised: bool = True
    nesterov: bool = True
    conv: tuple[str, ...] = ("all",)
    epochs: int = 90
    lr: float = 0.01
    wd: float | None = -4.0
    steps: tuple[int, ...] | None = (30, 60, 90)
    cosine: bool = False
    scaled: bool = False

    def flags(self, batch: int) -> dict[str, Any]:
        """The flags' defaults for a batch size."""
        found = {name: getattr(self, name) for name in ("conv", "epochs", "lr", "wd", "steps")}
        return found | {"lr": self.lr * batch / BATCH} if self.scaled else found


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
    "swav": Recipe(
        random_crop, normalised=False, nesterov=False, conv=(AVGPOOL,),
        epochs=100, lr=0.3, wd=-6.0, steps=None, cosine=True, scaled=True,
    ),
}  # fmt: skip

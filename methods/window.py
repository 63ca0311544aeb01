"""Signs of health of an epoch's last steps, over the images of all processes."""

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from parallel.collectives import gather_alike, world_size

STEPS = 100


class Window:
    """The signs of health of the last steps: the mean loss of the images of a step, the mean cosine
    between embeddings of different ones, and further means.

    A process keeps sums over its own images. All processes together add them up when the signs are
    asked for, those of many steps at once.

    Args:
        names: of the loss, the cosine and the further means.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._sums: deque[Tensor] = deque(maxlen=STEPS)  # of the steps since the last call
        self._signs: deque[list[float]] = deque(maxlen=STEPS)

    def clear(self) -> None:
        """Forget all steps."""
        self._sums.clear()
        self._signs.clear()

    def add(self, embedding: Tensor, *values: Tensor) -> None:
        """Note a step. A process without images does, too.

        Args:
            embedding: `(B, d)` of unit length, of this process's images.
            values: `(B,)` each: the losses, then what has further means.
        """
        count = embedding.new_full((1,), len(embedding))
        sums = [value.sum().reshape(1) for value in values]
        self._sums.append(torch.cat([count, *sums, embedding.sum(dim=0)]).detach())

    def means(self) -> dict[str, float | None]:
        """The mean of each sign over the steps, by name; None without a step."""
        if not (signs := self.to_plain()):
            return dict.fromkeys(self.names)
        return dict(zip(self.names, np.mean(signs, axis=0).tolist(), strict=True))

    def to_plain(self) -> list[list[float]]:
        """The signs of each step, as a checkpoint keeps them: the same for any number of
        processes."""
        if self._sums:
            own = torch.stack(list(self._sums))
            sums = gather_alike(own).cpu().double().unflatten(0, (world_size(), -1)).sum(dim=0)
            self._signs.extend(self._signs_of(sums))
            self._sums.clear()
        return list(self._signs)

    def load(self, plain: list[list[float]]) -> None:
        """Take the signs in a checkpoint."""
        self._signs.extend(plain)

    def _signs_of(self, sums: Tensor) -> list[list[float]]:
        """From the sums of each step, of all processes. A step of a single image has no cosine, and
        is left out."""
        sums = sums[sums[:, 0] > 1]
        values = len(self.names) - 1
        count, totals, embedding = sums.split([1, values, sums.shape[1] - values - 1], dim=1)
        cosine = (embedding.square().sum(dim=1, keepdim=True) - count) / (count * (count - 1))
        means = totals / count
        signs: list[list[float]] = torch.cat([means[:, :1], cosine, means[:, 1:]], dim=1).tolist()
        return signs

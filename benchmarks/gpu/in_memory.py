"""A run of `main.py` whose training batches are in memory, pinned as its loader leaves them."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import main
from data.batch import Batch
from data.images import ImageList
from parallel.signals import Stopping
from system.device import Compute
from training.experiment import Bystander
from training.run import Run


class InMemory:
    """A run, with its first clustering done and the first batches of an epoch read.

    Args:
        flags: of `main.py`, without the images.
        batches: number of batches.

    Attributes:
        run: it writes nothing.
    """

    def __init__(self, flags: str, images: ImageList, compute: Compute, batches: int) -> None:
        args = main.parse_args([str(images.root), *flags.split()])
        main.check_settings(args, images, compute)
        self.method = main.METHODS[args.method](args, compute)
        with tempfile.TemporaryDirectory() as folder:
            args.exp = Path(folder) / "exp"
            self.run = Run(args, images, self.method, compute, Stopping())
        self.run.folder = Bystander()
        self.method.relabel(self.run)
        self.order = self.method.draw(0)[: batches * args.batch]
        self.run.loaders.start(0, self.order)
        self.batches: list[Batch] = list(self.run.loaders.augmented)
        self.images_in_a_step: int = args.batch

    def steps(self) -> Iterator[None]:
        """The steps of an epoch, as the loop of `main.train` makes them. Not all need be taken."""
        method, run = self.method, self.run
        run.state.step = 0
        run.loaders.augmented = self.batches  # type: ignore[assignment]
        for batch in run.batches(self.order):
            method.before_step()
            run.update(method.losses(run.forward, batch))
            method.after_step(batch)
            yield

    def take(self, count: int) -> Iterator[None]:
        """The first steps of an epoch."""
        return itertools.islice(self.steps(), count)

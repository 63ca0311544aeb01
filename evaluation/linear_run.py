"""A run of linear probes, or of fine-tuning: its settings, its two data sets, its epochs, and how
it resumes."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpoints.checkpoint import digest_of, save_checkpoint
from data.labelled import Labelled
from data.loading import EpochBatches, ImageDataset, load_in_order, make_loader
from data.transforms import central_crop, ten_crops
from data.unreadable import NameUnreadable
from evaluation import linear as probe
from evaluation.linear_recipes import BATCH, MOMENTUM, RECIPES, SEED, SIZE, Recipe
from evaluation.linear_results import History, describe
from models import Network
from models.layers import Layer, name_of
from parallel.collectives import broadcast_buffers, rank, shard_of, world_size
from system.device import Compute
from system.errors import InputError
from system.kept import check_key, continuing
from system.normalisation import CENTRAL, Crop
from system.progress import progress
from system.seeding import derive_seed


@dataclass(frozen=True)
class Settings:
    """How classifiers are trained. `epochs`, `lr`, `wd` and `steps` replace those of the protocol's
    recipe, whose `rates` hold if `lr` is None; `size` is the input's side in pixels."""

    protocol: str
    epochs: int
    lr: float | None
    wd: float | None
    steps: tuple[int, ...] | None
    batch_size: int = BATCH
    momentum: float = MOMENTUM
    tencrops: bool = False
    seed: int = SEED
    size: int = SIZE
    workers: int = 4

    @property
    def recipe(self) -> Recipe:
        """The protocol's recipe."""
        return RECIPES[self.protocol]

    @property
    def cosine(self) -> bool:
        """Whether the rate falls by half a cosine over all epochs."""
        return self.recipe.cosine and self.steps is None

    def rate_of(self, layer: Layer) -> float:
        """The learning rate with which a layer's classifier starts."""
        if self.lr is not None:
            return self.lr
        assert isinstance(layer, int)
        return self.recipe.rates[layer - 1]

    def check_layers(self, model: Network, layers: Sequence[Layer]) -> None:
        """Check that there is a learning rate for each layer.

        Raises:
            InputError: the protocol has none for one of them.
        """
        known = len(self.recipe.rates)
        strange = [name_of(layer) for layer in layers if not isinstance(layer, int)]
        if self.lr is None and (model.conv_layers != known or strange):
            what = strange[0] if strange else model.arch
            raise InputError(
                f"--protocol {self.protocol}: its learning rates are for the {known} conv layers "
                f"of vgg16; give --lr for {what}"
            )

    def optimizer(self, heads: probe.Heads) -> torch.optim.SGD:
        """The optimiser of the classifiers."""
        return torch.optim.SGD(
            self.groups(heads),
            0.0 if self.lr is None else self.lr,
            self.momentum,
            weight_decay=0.0 if self.wd is None else 10**self.wd,
            nesterov=self.recipe.nesterov and self.momentum > 0,  # torch demands a momentum for it
            fused=True,
        )

    def groups(self, heads: probe.Heads) -> list[dict[str, Any]]:
        """The parameters in groups: one, or one for each classifier if their rates differ."""
        if self.lr is not None:
            return [{"params": [*heads.parameters()]}]
        return [
            {"params": [*heads.linear[str(layer)].parameters()], "start": self.rate_of(layer)}
            for layer in heads.pools
        ]

    def set_rate(self, optimizer: torch.optim.SGD, epoch: int, iteration: int) -> None:
        """Set the learning rates of a step, the `iteration`-th since the run began."""
        for group in optimizer.param_groups:
            start = group["start"] if self.lr is None else self.lr
            if self.cosine:
                group["lr"] = start * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
            elif self.steps is None:
                group["lr"] = decayed(start, group["weight_decay"], iteration)
            else:
                group["lr"] = start / 10 ** sum(step <= epoch for step in self.steps)

    def order(self, epoch: int, images: int) -> np.ndarray:
        """The images of an epoch in their order, `(M,) int64` of `images` indices."""
        random = np.random.default_rng(derive_seed(self.seed, "probe order", epoch))
        return random.permutation(images)


class Sets:
    """The two data sets as batches; `crop` is the network's."""

    def __init__(
        self,
        train: Labelled,
        val: Labelled,
        compute: Compute,
        settings: Settings,
        verbose: bool,
        crop: Crop = CENTRAL,
    ) -> None:
        self.train, self.val = train, val
        self.compute, self.settings, self.verbose = compute, settings, verbose
        size, seed = settings.size, settings.seed
        self.draws = EpochBatches(settings.batch_size, rank(), world_size())
        seen = ImageDataset(train.images, settings.recipe.view(size), seed)
        self.to_train = make_loader(seen, self.draws, settings.workers, compute.device)
        view = ten_crops(size) if settings.tencrops else central_crop(size, crop)
        # with ten crops of each image, a tenth of the images fill the memory of a batch
        shown = max(settings.batch_size // 10, 1) if settings.tencrops else settings.batch_size
        self.own = shard_of(len(val.images))
        self.to_validate = load_in_order(
            ImageDataset(val.images, view), shown, settings.workers, compute.device, self.own
        )
        self.train_labels, self.val_labels = (
            torch.from_numpy(each.labels).to(compute.device) for each in (train, val)
        )
        self.name_unreadable = NameUnreadable(train.images), NameUnreadable(val.images)

    def progress(self, name: str, images: int) -> Any:
        return progress(name, images, "images", self.verbose)


def run_epochs(
    model: Network,
    heads: probe.Heads,
    sets: Sets,
    key: dict[str, Any],
    saved: Path | None,
    say: Callable[[str], None],
) -> History:
    """Train and validate until the last epoch.

    Args:
        key: as `key_of` returns it.
        saved: file from which an interrupted call resumes; made if missing.
        say: called with lines of text.

    Returns:
        For each epoch, by layer, val's scores (fractions of 1) and `loss` as from
        `linear.validate`, and the `train_loss`; also for epochs after the last that the file has.

    Raises:
        InputError: a loss is not finite, or the file has other settings.
    """
    settings = sets.settings
    optimizer = settings.optimizer(heads)
    history = go_on(saved, key, heads, optimizer)
    if history:
        say(f"resuming after epoch {len(history) - 1}, from {saved}\n")
    while len(history) < settings.epochs:
        history.append(run_epoch(len(history), model, heads, optimizer, sets))
        if saved is not None and rank() == 0:
            save(saved, key, heads, optimizer, history)
        if sets.verbose:
            say(describe(history))
    return history


def run_epoch(
    epoch: int,
    model: Network,
    heads: probe.Heads,
    optimizer: torch.optim.SGD,
    sets: Sets,
) -> dict[Layer, dict[str, Any]]:
    """Train for an epoch, and validate. Returns the results by layer."""
    settings = sets.settings
    order = for_all(heads, settings.order(epoch, len(sets.train.images)), settings.batch_size)
    sets.draws.start_epoch(epoch, order)
    share = -(-len(order) // world_size())
    torch.manual_seed(derive_seed(settings.seed, "dropout", epoch, rank()))  # in fine-tuning
    name_train, name_val = sets.name_unreadable
    with sets.progress(f"epoch {epoch}, training", share) as advance:
        losses = probe.train_epoch(
            model, heads, optimizer, sets.to_train, sets.train_labels, sets.compute,
            set_rate=lambda batch: settings.set_rate(
                optimizer, epoch, epoch * len(sets.draws) + batch
            ),
            on_unreadable=name_train, advance=advance,
        )  # fmt: skip
    broadcast_buffers(heads)  # else, batch norm validates with each process's last batch
    with sets.progress(f"epoch {epoch}, val", len(sets.own)) as advance:
        found = probe.validate(
            model, heads, sets.to_validate, sets.val_labels, sets.compute,
            on_unreadable=name_val, advance=advance,
        )  # fmt: skip
    return {layer: {**found[layer], "train_loss": losses[layer]} for layer in found}


def for_all(heads: torch.nn.Module, order: np.ndarray, batch: int) -> np.ndarray:
    """An epoch's order, `(M,)`, without a last batch that has no image for some process, if batch
    norm is synchronised: the blank image of that process would count in its statistics."""
    synchronised = any(isinstance(each, torch.nn.SyncBatchNorm) for each in heads.modules())
    rest = len(order) % batch
    return order[: len(order) - rest] if synchronised and rest < world_size() else order


def key_of(
    model: Network,
    layers: Sequence[Layer],
    train: Labelled,
    val: Labelled,
    compute: Compute,
    settings: Settings,
) -> dict[str, Any]:
    """The settings and digests that must be the same for a run to resume from a saved file."""
    free = {"workers"} if settings.cosine else {"workers", "epochs"}  # a cosine depends on its end
    kept = {n: v for n, v in dataclasses.asdict(settings).items() if n not in free}
    digests = {"train": train.digest, "val": val.digest, "network": digest_of(model)}
    key = {
        **kept,
        "layers": list(layers),
        "precision": compute.precision,
        **train.images.reading.key,
    }
    return key | {name: digest[:12] for name, digest in digests.items()}


def save(
    path: Path,
    key: dict[str, Any],
    heads: probe.Heads,
    optimizer: torch.optim.SGD,
    history: History,
) -> None:
    """Save the classifiers, the optimiser, and the results of the epochs so far."""
    state = {"heads": heads.state_dict(), "optimizer": optimizer.state_dict()}
    save_checkpoint(path, {**state, "history": history, "settings": key})


def go_on(
    path: Path | None, key: dict[str, Any], heads: probe.Heads, optimizer: torch.optim.SGD
) -> History:
    """Restore the classifiers and the optimiser from `save`'s file, if there is one. Returns the
    results of the epochs that are done.

    Raises:
        InputError: the file is damaged, or has other settings.
    """
    if path is None or not path.exists():
        return []
    with continuing(path, "give another --exp"):
        state = torch.load(path, map_location="cpu", weights_only=True)
        check_key(path, dict(state["settings"]), key, "give another --exp")
        heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        return list(state["history"])


def learning_rate_decay(optimizer: torch.optim.Optimizer, t: int, lr_0: float) -> None:
    """Set each group's learning rate to lr_0 / √(1 + lr_0·wd·t) after `t` iterations, where wd is
    the group's weight decay (the paper's linear probes)."""
    for group in optimizer.param_groups:
        group["lr"] = decayed(lr_0, group["weight_decay"], t)


def decayed(lr: float, wd: float, t: int) -> float:
    """The rate of `learning_rate_decay`."""
    return lr / (1 + lr * wd * t) ** 0.5

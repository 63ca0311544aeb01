"""Fine-tuning on VOC 2007: a new classifier, and the convolutions if wanted.

Everything random is a function of the seed and the iteration. A run that resumes from `Run.save`'s
file therefore ends like an uninterrupted one, on the CPU in float32 bit for bit.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from checkpoints.checkpoint import load_weights, network_entries, read_checkpoint, save_checkpoint
from data.batch import Batch
from data.loading import EpochBatches, ImageDataset, make_loader
from data.transforms import object_crop, to_input
from data.unreadable import RaiseUnreadable
from data.voc import CLASSES, VocSplit
from evaluation.multilabel import multilabel_loss
from evaluation.voc import LARGEST_GRADIENT, MOMENTUM, Settings
from models import ConvNet, Network
from system.device import Compute
from system.errors import InputError
from system.kept import check_key, continuing
from system.seeding import derive_seed

STEPS_BETWEEN_LOSSES = 20  # losses are fetched from the device this many at a time
SECONDS_BETWEEN_SAVES = 600.0


@dataclass
class Run:
    """The state of a fine-tuning.

    Attributes:
        iteration: number of batches trained on.
        loss_sums: the sum of the losses at each learning rate.
        results: of the finished network; None before.
    """

    network: ConvNet
    optimizer: torch.optim.SGD
    scaler: GradScaler
    iteration: int = 0
    loss_sums: list[float] = field(default_factory=list)
    results: dict[str, Any] | None = None

    def losses(self, settings: Settings) -> list[float]:
        """The mean loss at each learning rate so far."""
        starts = range(0, self.iteration, settings.stepsize)
        steps = [min(settings.stepsize, self.iteration - start) for start in starts]
        return [total / count for total, count in zip(self.loss_sums, steps, strict=True)]

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Save a checkpoint for `load` and `checkpoint.load_model`.

        Args:
            identity: settings that `load` compares with its own.
        """
        training = {
            "optimizer": self.optimizer.state_dict(),
            "grad_scaler": self.scaler.state_dict(),
        }
        state = {
            **network_entries(self.network),
            "settings": identity,
            "iteration": self.iteration,
            "loss_sums": self.loss_sums,
            "results": self.results,
        }
        save_checkpoint(path, state | (training if self.results is None else {}))

    def load(self, path: Path, identity: dict[str, Any]) -> None:
        """Resume from what `save` wrote.

        Raises:
            InputError: it has other settings, or is malformed.
        """
        state = read_checkpoint(path)
        with continuing(path, "give another --exp"):
            check_key(path, dict(state["settings"]), identity, "give another --exp")
            load_weights(self.network, state["state_dict"], path)
            self.iteration, self.results = int(state["iteration"]), state["results"]
            self.loss_sums = [float(value) for value in state["loss_sums"]]
            if self.results is None:
                self.optimizer.load_state_dict(state["optimizer"])
                self.scaler.load_state_dict(state["grad_scaler"])


def begin(model: ConvNet, settings: Settings, seed: int, compute: Compute) -> Run:
    """A run before its first iteration, with a copy of the network on the device.

    Raises:
        InputError: the network has no classifier.
    """
    trained = trained_parameters(model, not settings.fc6_8, settings.train_batchnorm)
    network = copy.deepcopy(model).cpu()  # so that the new weights are the same for every device
    renew_classifier(network, len(CLASSES), seed)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trained)
    network.to(compute.device).to(memory_format=torch.channels_last)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        parameters, settings.lr, MOMENTUM, weight_decay=settings.wd, fused=True
    )
    return Run(network, optimizer, compute.grad_scaler())


def fine_tune(
    run: Run,
    voc: VocSplit,
    settings: Settings,
    seed: int,
    compute: Compute,
    workers: int,
    save: Callable[[], None],
    advance: Callable[[int], None],
) -> None:
    """Train from iteration `run.iteration` to the last.

    Args:
        save: called every ten minutes.
        advance: called with 1 after each iteration.

    Raises:
        InputError: an image cannot be decoded, or the loss is not finite.
    """
    network, targets = run.network, torch.from_numpy(voc.targets).to(compute.device)
    order = draw_order(len(voc.images), settings.nit * settings.batch, seed)
    batches = EpochBatches(settings.batch)
    batches.start_epoch(0, order, first_batch=run.iteration)
    crop = object_crop(settings.size, settings.min_scale, settings.max_scale, settings.aspect)
    loader = make_loader(ImageDataset(voc.images, crop, seed), batches, workers, compute.device)
    network.eval()  # batch norm keeps the statistics of pretraining
    network.classifier.train()
    pending: list[Tensor] = []
    last_save = time.monotonic()
    raise_unreadable = RaiseUnreadable(voc.images)
    for batch in loader:
        raise_unreadable(batch.unreadable)
        torch.manual_seed(derive_seed(seed, "dropout", run.iteration))
        wanted = targets[batch.index.to(compute.device, non_blocking=True)]
        pending.append(_step(run, batch, wanted, settings, compute))
        run.iteration += 1
        time_to_save = time.monotonic() - last_save >= SECONDS_BETWEEN_SAVES
        if len(pending) == STEPS_BETWEEN_LOSSES or time_to_save or run.iteration == settings.nit:
            _take_losses(run, pending, settings)
            pending.clear()
        if time_to_save:
            save()
            last_save = time.monotonic()
        advance(1)


def _step(run: Run, batch: Batch, targets: Tensor, settings: Settings, compute: Compute) -> Tensor:
    """One step of SGD; the returned loss is still on the device."""
    for group in run.optimizer.param_groups:
        group["lr"] = settings.lr * 0.5 ** (run.iteration // settings.stepsize)
    with compute.autocast():
        scores = class_scores(run.network, to_input(batch.pixels, compute.device, run.network.std))
    loss = multilabel_loss(scores, targets)
    run.optimizer.zero_grad()
    run.scaler.scale(loss).backward()
    run.scaler.unscale_(run.optimizer)
    nn.utils.clip_grad_norm_(run.optimizer.param_groups[0]["params"], LARGEST_GRADIENT)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    return loss.detach()


def _take_losses(run: Run, losses: list[Tensor], settings: Settings) -> None:
    values = torch.stack(losses).tolist()
    for iteration, value in enumerate(values, run.iteration - len(values)):
        if not math.isfinite(value):
            raise InputError(f"the loss became {value} in iteration {iteration}; try a lower --lr")
        if iteration % settings.stepsize == 0:
            run.loss_sums.append(0.0)
        run.loss_sums[-1] += value


def draw_order(images: int, length: int, seed: int) -> np.ndarray:
    """Permutations of the images, one after the other: `(length,) int64` indices. A longer order
    begins like a shorter one."""
    passes = range(-(-length // images))
    seeds = (derive_seed(seed, "VOC order", number) for number in passes)
    return np.concatenate([np.random.default_rng(s).permutation(images) for s in seeds])[:length]


def new_top_layer(network: Network, out: int, seed: int) -> None:
    """Give a network a top layer with `out` outputs and PyTorch's initial weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "new top layer"))
        network.top_layer = nn.Linear(network.embedding_dim, out)


def renew_classifier(network: Network, out: int, seed: int, with_top: bool = True) -> None:
    """Add a top layer with `out` outputs, and reset the classifier's linear layers: weights
    N(0, 0.01), biases 0.1.

    Args:
        with_top: reset the top layer in the same way; else it has PyTorch's initial weights.
    """
    new_top_layer(network, out, seed)
    assert network.top_layer is not None
    layers = [m for m in network.classifier.modules() if isinstance(m, nn.Linear)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "new classifier"))
        for layer in [*layers, network.top_layer] if with_top else layers:
            nn.init.normal_(layer.weight, 0.0, 0.01)
            nn.init.constant_(layer.bias, 0.1)


def trained_parameters(network: ConvNet, convolutions: bool, norms: bool) -> list[str]:
    """Names of the parameters that train: always the classifier's and the top layer's, never the
    Sobel filters'.

    Args:
        convolutions: whether the conv layers train.
        norms: whether batch norm's scales and shifts train.

    Raises:
        InputError: the network has no classifier.
    """
    classifier = [f"classifier.{name}" for name, _ in network.classifier.named_parameters()]
    if not classifier:
        raise InputError(f"{network.arch}: has no classifier to train")
    trained = []
    for place, module in network.features.named_modules(prefix="features"):
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if norms if is_norm else convolutions:
            own = module.named_parameters(recurse=False)
            trained += [f"{place}.{name}" for name, _ in own]
    return [*trained, *classifier, "top_layer.weight", "top_layer.bias"]


def class_scores(network: Network, x: Tensor) -> Tensor:
    """`(N, 3, H, W)` images → `(N, K)` logits, in float32 whatever the precision: rounding would
    make many of them equal, and ties count against the network."""
    hidden = network.classifier[-1:](network.embedding(x))
    assert network.top_layer is not None
    with torch.autocast(x.device.type, enabled=False):
        return network.top_layer(hidden.float())

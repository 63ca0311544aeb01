"""What SwAV and DeepCluster-v2 share: a network with heads, several crops of each image, LARS, and
a k-means of the finished network's features (Caron et al., NeurIPS 2020).
"""

import argparse
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from cluster import components
from cluster.components import AUTO
from cluster.quality import clustering_metrics
from clustering import add_clustering_flags, check_clustering, make_clustering
from data.loading import Batch
from data.multicrop import MultiCrop, add_crop_flags, crops_of, unpack
from data.transforms import to_input
from features.forward import Features, evaluating
from methods.clustered import Clustered
from methods.fitting import FITTED_HELPS, clusters_for
from methods.frozen import frozen_features
from methods.method import Running, Schedule
from methods.window import Window
from models import accepts_size, untrained
from models.heads import Heads, MultiCropNet
from models.prototypes import Prototypes
from parallel.collectives import gather_rows, synchronised
from system import cli, flags
from system.device import Compute
from system.errors import InputError
from system.normalisation import SWAV_STD
from system.seeding import derive_seed

TRUST = 0.001  # of LARS
FINAL_DIM_PCA_HELP = "dimensions that features are whitened to for the k-means of the finished run"


class MultiCropMethod(Clustered, ABC):
    """The common part of the two methods; attributes as in `methods.clustered.Clustered`.

    Args:
        args: the flags of `main.py`, after `fit_settings`.
        compute: device and precision.
        prototypes: number of prototypes of each head.
        learned: whether gradients move the prototypes.
    """

    order_settings: ClassVar[tuple[str, ...]] = ()
    signs: ClassVar[tuple[str, ...]] = ("window_loss", "mean_cosine")
    form: ClassVar[dict[str, Any]] = {
        **Clustered.form,
        "heads": dict,
        "window": list,
        "best_probe": (int, float, type(None)),
    }

    def __init__(
        self, args: argparse.Namespace, compute: Compute, prototypes: list[int], learned: bool
    ) -> None:
        super().__init__(args, compute)
        self.crops = crops_of(args)
        self.assign: list[int] = args.crops_for_assign
        self.network = untrained(args.arch, args.sobel, 2, args.seed)
        self.network.top_layer, self.network.std = None, SWAV_STD
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(args.seed, "heads"))
            dim = self.network.embedding_dim
            self.heads = Heads(dim, args.feat_dim, args.hidden_mlp, prototypes)
        self.heads.prototypes.requires_grad_(learned)
        self.net: nn.Module = MultiCropNet(self.network, self.heads)
        if args.sync_bn == "pytorch":
            self.net = synchronised(self.net, compute.device)
        self.schedule: Schedule | None = Schedule(
            args.lr, args.final_lr, args.warmup_epochs, args.start_warmup
        )
        self._window = Window(self.signs)
        self._best: float | None = None  # of the accuracies of --probe so far

    @staticmethod
    def add_shared_flags(parser: argparse.ArgumentParser) -> None:
        """The flags of both methods. None as a default: `fit_settings` chooses."""
        add_clustering_flags(parser)
        group = parser.add_argument_group("crops")
        add_crop_flags(group)
        group = parser.add_argument_group("heads and optimiser")
        add = group.add_argument
        assign_help = "crops that images are clustered by, from 0 on"
        add("--crops_for_assign", type=cli.whole_number(0), nargs="+", default=[0, 1],
            help=assign_help)  # fmt: skip
        add("--temperature", type=cli.positive_number, default=0.1, help="of the softmax of scores")
        add("--feat_dim", type=cli.whole_number(2), default=128, help="width of the embedding")
        hidden_help = "width of the projection head's hidden layer; 0: a single linear layer"
        add("--hidden_mlp", type=cli.whole_number(0), default=2048, help=hidden_help)
        add("--base_lr", dest="lr", type=cli.positive_number, help="the same as --lr")
        final_help = "learning rate at the end; left out: a thousandth of --lr"
        add("--final_lr", type=cli.number_from_zero, help=final_help)
        warmup_help = "epochs in which the learning rate rises; left out: 0 up to batch 256, else "
        warmup_help += "a tenth of the epochs, 10 at most"
        add("--warmup_epochs", type=cli.whole_number(0), help=warmup_help)
        start_help = "learning rate of the first iteration, if there is a warm-up; left out: a "
        start_help += "sixteenth of --lr"
        add("--start_warmup", type=cli.number_from_zero, help=start_help)
        add("--optimizer", choices=["lars", "sgd"], default="lars", help="lars: as in the paper")
        flags.add_sync_bn(group, "pytorch")
        components.add_flag(group, AUTO, FINAL_DIM_PCA_HELP, "--final_dim_pca", "--dim_pca")
        parser.set_defaults(nmb_cluster=None, lr=None, wd=-6.0, epochs=100, size_crops=None)
        cli.replace_helps(parser, FITTED_HELPS)

    @staticmethod
    def check_shared_flags(
        args: argparse.Namespace, images: int, device: torch.device, prototypes: int
    ) -> None:
        """Fail early on flags that don't fit each other or the number of images.

        Args:
            prototypes: of the head that has most.

        Raises:
            InputError: naming the flag, its value and what would be right.
        """
        crops = crops_of(args)
        total = sum(crops.counts)
        if max(args.crops_for_assign) >= total:
            raise InputError(
                f"--crops_for_assign {max(args.crops_for_assign)}: crops are 0 to {total - 1}"
            )
        for size in crops.sizes:
            if not accepts_size(args.arch, size):
                raise InputError(f"--size_crops {size}: too small for {args.arch}; give more")
        if args.batch > images:
            raise InputError(
                f"--batch {args.batch}: more than the {images} images; only whole batches are "
                f"trained on, so give {images} at most"
            )
        if prototypes > images:
            raise InputError(
                f"--nmb_prototypes {prototypes}: more clusters than the {images} images of "
                f"{args.data}; give {clusters_for(images)} or fewer"
            )
        if args.warmup_epochs > args.epochs:
            raise InputError(
                f"--warmup_epochs {args.warmup_epochs}: more than the {args.epochs} epochs"
            )
        check_clustering(args, images, f"images of {args.data}")
        make_clustering(args, 0, device, args.final_dim_pca)  # fail early on bad clustering flags

    @property
    def trained(self) -> nn.Module:
        return self.net

    @property
    def k(self) -> int:
        """Number of prototypes of the first head."""
        return self.heads.prototype_sets()[0].out_features

    def view(self, size: int) -> v2.Transform:
        return MultiCrop(self.crops, self.args.blur)

    def groups(self) -> list[dict[str, Any]]:
        """The network and the projection head, and prototypes that are learned."""
        args = self.args
        settings = {"lr": args.lr, "momentum": args.momentum, "weight_decay": 10**args.wd}
        if args.optimizer == "lars":
            settings["trust"] = TRUST
        body = [*self.network.body(), *self.heads.projection_head.parameters()]
        learned = [p for p in self.heads.prototypes.parameters() if p.requires_grad]
        groups = [{"params": body, **settings}]
        return [*groups, {"params": learned, **settings}] if learned else groups

    def relabel(self, run: Running) -> None:
        """Probe the network, if `--probe` says so, then find new targets."""
        probe = self.args.probe
        if probe and run.epoch % probe == 0:
            frozen_features(run, self.network, self.compute)
        self.previous = self.assignment
        self._window.clear()
        self.find_targets(run)

    @abstractmethod
    def find_targets(self, run: Running) -> None:
        """New targets before an epoch."""

    def draw(self, epoch: int) -> np.ndarray:
        """All images in random order, but those of the last batch if it is not whole."""
        rng = np.random.default_rng(derive_seed(self.args.seed, "sampler", epoch))
        images = len(self.assignment)
        return rng.permutation(images)[: images // self.args.batch * self.args.batch]

    def losses(self, forward: nn.Module, batch: Batch) -> Tensor:
        with self.compute.autocast():
            embedding, scores = forward(self.inputs(batch))
        # a part of the pinned batch: a selection would be a copy, which travels only after a wait
        index = batch.index[: int((batch.index >= 0).sum())]
        count = sum(self.crops.counts)
        rows = [part.unflatten(0, (count, -1))[:, : len(index)] for part in (embedding, *scores)]
        self._embedding = rows[0].detach()  # (crops, B, d)
        found = self.losses_of(rows[1:], index)
        if len(index) > 0:
            return found
        # a blank image has no loss, but other processes wait for its gradients, which are 0
        return 0 * torch.stack([part.sum() for part in (embedding, *scores)]).sum(0, keepdim=True)

    @abstractmethod
    def losses_of(self, scores: list[Tensor], index: Tensor) -> Tensor:
        """The loss of each image, `(B,)`, from the scores `(crops, B, K_h)` of each head. B may
        be 0."""

    def inputs(self, batch: Batch) -> list[Tensor]:
        """The crops of a batch as network input, by resolution."""
        pixels = batch.pixels.to(self.compute.device, non_blocking=True)
        device, std = self.compute.device, self.network.std
        return [to_input(part, device, std) for part in unpack(pixels, self.crops)]

    def assigned_rows(self) -> Tensor:
        """The last batch's embeddings of the crops that are clustered, `(B, assign, d)`."""
        return torch.stack([self._embedding[crop] for crop in self.assign], dim=1)

    def cluster_finished(self, run: Running, features: Features) -> np.ndarray:
        """By prototypes, too: `by_prototypes`."""
        with evaluating(self.heads):
            prototypes = Prototypes.of(self.heads, self.network)
            found, _ = prototypes.assign(features.rows, self.compute.device)
        present = gather_rows(features.present)
        self.by_prototypes = np.full(len(present), -1, np.int64)
        self.by_prototypes[present] = gather_rows(found)
        return super().cluster_finished(run, features)

    def note_health(self, losses: Tensor, *more: Tensor) -> None:
        """Keep a step's signs of health. Each argument is `(B,)`, a value of each image."""
        self._window.add(self._embedding[self.assign[0]], losses, *more)

    def metrics(self, labels: np.ndarray | None) -> dict[str, Any]:
        return {
            "kmeans_loss": None,
            "ln_k": float(np.log(self.k)),
            **clustering_metrics(self.assignment, self.previous, labels, self.k),
            **self._window.means(),
            "unreadable": int((self.assignment < 0).sum()),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "heads": self.heads.state_dict(),
            "window": self._window.to_plain(),
            "best_probe": self._best,
        }

    def load_state_dict(self, state: dict[str, Any], with_heads: bool) -> None:
        super().load_state_dict(state, with_heads)
        try:
            self.heads.load_state_dict(state["heads"])
        except RuntimeError as error:
            raise InputError(f"--resume {self.args.resume}: its heads do not fit") from error
        self._window.load(state["window"])
        self._best = state["best_probe"]

    def misfit(self, problem: str, *names: str) -> InputError:
        """The error of a checkpoint that doesn't fit the flags of these names."""
        flags = " and ".join(f"--{name} {_words(vars(self.args)[name])}" for name in names)
        return InputError(f"--resume {self.args.resume}: its {problem} {flags}")

    @classmethod
    def is_sound(cls, state: dict[str, Any], step: int) -> bool:
        signs = torch.tensor([[0.0] * len(cls.signs), *state["window"]])  # raises on other lengths
        return (
            super().is_sound(state, step)
            and bool(signs.isfinite().all())
            and np.isfinite(state["best_probe"] or 0)
        )


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)

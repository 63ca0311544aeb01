"""Images per second of the feature pass and of training, from JPEG files to the end.

They are compared with the network alone, on images in memory; with reading alone; with the limit
that these two give (on a CPU, where they share the cores, 1 / (1/network + 1/reading); with a GPU
the smaller of the two); and with the naive way: float32, contiguous layout, Pillow, images
normalised in the workers.
"""

import argparse
import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms as v1
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import main
from benchmarks.clustering import arriving, store
from benchmarks.photos import add_images_flag, write_photos
from benchmarks.timing import add_rounds_flag, matmul_rate, number, timed
from cluster.components import PCA
from cluster.moments import Moments
from clustering import Kmeans
from data.images import ImageList, find_images
from data.loading import EpochBatches, ImageDataset, add_decode_flag, make_loader
from data.transforms import central_crop, random_crop
from features.forward import compute_features
from methods.deepcluster import DeepCluster
from models import ConvNet, add_arch_flag, untrained
from parallel.signals import Stopping
from system import flags
from system.device import AUTOCAST, Compute, add_precision_flag, select_compute
from system.normalisation import IMAGENET_MEAN, IMAGENET_STD
from training.experiment import Bystander
from training.run import Run

K = 1000  # outputs of the network that is trained
IMAGENET, IMAGENET_K, EPOCHS = 1_281_167, 10_000, 500
DIM = 4096  # of AlexNet's and VGG-16's embedding
CLUSTERED = (20_000, 40_000)  # features; ImageNet's time is extrapolated from these
NORMALIZE = v1.Normalize(IMAGENET_MEAN, IMAGENET_STD)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print the table. Returns the same as a dict."""
    compute = select_compute(args.device, args.precision)
    gemm = matmul_rate(compute.device, AUTOCAST.get(compute.precision, torch.float32))
    sys.stdout.write(
        f"{args.arch}, {args.images} photos of 500 × 375, batch {args.batch}, "
        f"{args.workers} workers; {compute.device} in {compute.precision}, "
        f"{torch.get_num_threads()} threads, matrix product {gemm / 1e9:,.0f} GFLOP/s\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder), args.images)
        images = find_images(Path(folder))
        rates = {
            name: measure(stage(args, images, compute), args.rounds)
            for name, stage in STAGES.items()
        }
    used = {
        name: rate["network"] * operations(args.arch, training=name == "training") / gemm
        for name, rate in rates.items()
    }
    sys.stdout.write(table(rates, used))
    results = {"images_per_second": rates, "matmul_flops": gemm, "of_matmul": used}
    if args.project:
        results["imagenet_seconds"] = epoch = imagenet_epoch(rates, compute.device)
        sys.stdout.write(describe_epoch(epoch))
    return results


class Stage:
    """A stage to time, in several ways that each go once through all images.

    Args:
        images: the photographs.
        transform: for our way.
        naive_transform: for the naive way, from a PIL image to normalised floats.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        images: ImageList,
        compute: Compute,
        transform: v2.Transform,
        naive_transform: v1.Compose,
    ) -> None:
        self.args, self.compute, self.images = args, compute, images
        self.naive_transform = naive_transform
        flags = f"--arch {args.arch} --sobel --k {K} --batch {args.batch}"
        self.settings = main.parse_args([str(images.root), *flags.split()])
        dataset = ImageDataset(self.images, transform, decode=args.decode)
        self.batches = EpochBatches(args.batch)
        self.loader = make_loader(dataset, self.batches, args.workers, compute.device)
        self.network = untrained(args.arch, True, K, seed=0).to(compute.device)
        self.network.to(memory_format=torch.channels_last)
        self.start_epoch()
        self.in_memory = list(self.loader)  # starts the workers, too

    @functools.cached_property
    def naive_loader(self) -> DataLoader[Any]:
        return DataLoader(
            ImageFolder(self.images.root, self.naive_transform),
            self.args.batch,
            num_workers=self.args.workers,
            persistent_workers=self.args.workers > 0,
        )

    @functools.cached_property
    def naive_network(self) -> ConvNet:
        return untrained(self.args.arch, True, K, seed=0).to(self.compute.device)

    @functools.cached_property
    def naive_optimizer(self) -> torch.optim.Optimizer:
        weights = [p for p in self.naive_network.parameters() if p.requires_grad]
        return torch.optim.SGD(weights, 0.05, 0.9)

    def start_epoch(self) -> None:
        self.batches.start_epoch(0, np.arange(len(self.images)))

    def work(self, loader: Any) -> None:
        raise NotImplementedError

    def naive(self) -> None:
        raise NotImplementedError


class FeaturePass(Stage):
    """The features of all images."""

    def __init__(self, args: argparse.Namespace, images: ImageList, compute: Compute) -> None:
        steps = [v1.Resize(256), v1.CenterCrop(224), v1.ToTensor(), NORMALIZE]
        super().__init__(args, images, compute, central_crop(224), v1.Compose(steps))

    def work(self, loader: Any) -> None:
        every = range(len(self.images))
        compute_features(loader, self.network, every, self.compute, lambda unreadable: None)

    @torch.inference_mode()
    def naive(self) -> None:
        rows = []
        self.naive_network.eval()
        for x, _ in self.naive_loader:
            rows.append(self.naive_network.embedding(x.to(self.compute.device)).cpu())


class Training(Stage):
    """An epoch on pseudo-labels."""

    def __init__(self, args: argparse.Namespace, images: ImageList, compute: Compute) -> None:
        steps = [v1.RandomResizedCrop(224), v1.RandomHorizontalFlip(), v1.ToTensor(), NORMALIZE]
        super().__init__(args, images, compute, random_crop(224), v1.Compose(steps))
        labels = torch.arange(len(self.images)) % K
        state = {"assignment": labels, "previous": labels, "clusters": None, "clustering_loss": 0}
        self.method = DeepCluster(self.settings, compute)
        self.method.load_state_dict(state, with_heads=True)
        self.method.trained.to(compute.device).to(memory_format=torch.channels_last)
        with tempfile.TemporaryDirectory() as exp:
            self.settings.exp = Path(exp) / "exp"
            self.training = Run(self.settings, self.images, self.method, compute, Stopping())
        self.training.folder = Bystander()

    def work(self, loader: Any) -> None:
        self.training.state.step = 0
        self.training.loaders.augmented = loader
        for batch in self.training.batches(np.arange(len(self.images))):
            self.training.update(self.method.losses(self.training.forward, batch))

    def naive(self) -> None:
        self.naive_network.train()
        for x, label in self.naive_loader:
            logits = self.naive_network(x.to(self.compute.device))
            loss = F.cross_entropy(logits, label.to(self.compute.device))
            self.naive_optimizer.zero_grad()
            loss.backward()
            self.naive_optimizer.step()
            loss.item()


STAGES: dict[str, type[FeaturePass | Training]] = {"features": FeaturePass, "training": Training}


def measure(stage: Stage, rounds: int, with_naive: bool = True) -> dict[str, float]:
    """Images per second of each way, the median of the rounds, and the limit."""
    ways: dict[str, Callable[[], object]] = {
        "end to end": lambda: stage.work(stage.loader),
        "network": lambda: stage.work(stage.in_memory),
        "reading": lambda: [None for _ in stage.loader],
    }
    if with_naive:
        ways["naive"] = stage.naive
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + rounds):
        for name, way in ways.items():
            stage.start_epoch()
            seconds[name].append(timed(way).seconds)
    images = len(stage.images)
    rates = {name: images / float(np.median(each[1:])) for name, each in seconds.items()}
    if stage.compute.device.type == "cpu":  # they share the cores
        return rates | {"limit": 1 / (1 / rates["network"] + 1 / rates["reading"])}
    return rates | {"limit": min(rates["network"], rates["reading"])}


def operations(arch: str, training: bool) -> float:
    """Floating-point operations for one image."""
    network = untrained(arch, True, K, seed=0)
    x = torch.zeros(2, 3, 224, 224)
    with FlopCounterMode(display=False) as counter:
        if training:
            network(x).sum().backward()
        else:
            network.eval().embedding(x)
    return counter.get_total_flops() / len(x)


def table(rates: dict[str, dict[str, float]], used: dict[str, float]) -> str:
    """Images per second, and their ratios to the limit and to the naive way."""
    columns = ("end to end", "network", "reading", "limit", "of it", "naive", "ratio", "of GEMM")
    lines = [f"{'images/s':12}" + "".join(f"{column:>12}" for column in columns)]
    for name, rate in rates.items():
        whole = rate["end to end"]
        row = [whole, rate["network"], rate["reading"], rate["limit"], whole / rate["limit"]]
        row += [rate["naive"], whole / rate["naive"], used[name]]
        digits = (1, 1, 1, 1, 2, 1, 2, 2)
        cells = (number(value, 12, places) for value, places in zip(row, digits, strict=True))
        lines.append(f"{name:12}" + "".join(cells))
    return "\n".join(lines) + "\n"


def imagenet_epoch(rates: dict[str, dict[str, float]], device: torch.device) -> dict[str, float]:
    """Seconds of each stage of an epoch of ImageNet: features and training at these rates,
    clustering extrapolated linearly from two smaller numbers of random features."""
    few, more = (clustering_seconds(n, device) for n in CLUSTERED)
    slope = (more - few) / (CLUSTERED[1] - CLUSTERED[0])
    return {
        "features": IMAGENET / rates["features"]["end to end"],
        "clustering": more + slope * (IMAGENET - CLUSTERED[1]),
        "training": IMAGENET / rates["training"]["end to end"],
    }


def clustering_seconds(n: int, device: torch.device) -> float:
    """Seconds of PCA and k-means of `n` features of 4096 dimensions, with the covariance that the
    feature pass sums up."""
    rows = np.empty((n, DIM), np.float16)
    batches = list(arriving(n, DIM))

    def work() -> None:
        moments = Moments(DIM, device)
        for batch in batches:
            store(rows, moments, *batch)
        Kmeans(IMAGENET_K, device=device, pca=PCA).cluster(rows, moments=moments)

    return timed(work).seconds


def describe_epoch(seconds: dict[str, float]) -> str:
    """The stages, and the time of all epochs, in a line."""
    stages = ", ".join(f"{stage} {each:,.0f} s" for stage, each in seconds.items())
    return (
        f"an epoch of {IMAGENET:,} images at these rates, k = {IMAGENET_K:,}: {stages}; "
        f"{EPOCHS} epochs: {EPOCHS * sum(seconds.values()) / 3600:,.0f} h\n"
    )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`, except the device."""
    add_arch_flag(parser)
    add_images_flag(parser)
    flags.add_batch(parser, 64, least=2)
    flags.add_workers(parser, 2)
    add_rounds_flag(parser)
    add_precision_flag(parser, "of our way; the naive way is in fp32")
    add_decode_flag(parser)
    project_help = "also project an epoch of ImageNet, for which clustering is timed, too"
    parser.add_argument("--project", action="store_true", help=project_help)

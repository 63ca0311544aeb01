"""Seconds of each stage of cluster_images.py, beside decoding alone and the network alone; and of
the stages behind the network with very many pictures, whose features are made of those of the few.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.photos import add_images_flag, write_photos
from benchmarks.timing import timed
from features import network
from features.continued import open_shards
from features.forward import forward_pass
from features.network import Applied, open_inputs
from system import cli, flags
from system.errors import InputError

ROOT = Path(__file__).parents[1]
NOISE = 0.35  # added to made rows, as a share of their length: so no two are duplicates
FEATURES = "features"  # a stage, and its folder


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Print a table in Markdown. Returns the same as a dict."""
    if args.many and args.many < args.images:
        raise InputError(f"--many {args.many}: give {args.images} of --images or more, or 0")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos, few = folder / "photos", folder / "few"
        write_photos(photos, args.images)
        found = alone(open_all(args, photos))
        found |= stages(args, photos, few, few / FEATURES)
        many: dict[str, float] = {}
        if args.many:
            names, made = folder / "names", folder / "made"
            write_names(names, args.many)
            make_features(open_all(args, names), args.batch, few / FEATURES, made)
            many = stages(args, names, folder / "many", made)
            for stage in ("decoding alone", "network alone", FEATURES):
                many[stage] = found[stage] * args.many / args.images
    sys.stdout.write(table(found, many, args.images, args.many))
    return {"seconds": found, "seconds_of_many": many}


def open_all(args: argparse.Namespace, images: Path) -> Applied:
    """The network and the images."""
    parser = argparse.ArgumentParser()
    network.add_flags(parser)
    return open_inputs(parser.parse_args([args.model, str(images), *shared(args)]))


def shared(args: argparse.Namespace) -> list[str]:
    """The flags that are passed on."""
    words = ["--workers", args.workers, "--batch", args.batch, "--device", args.device]
    return [*map(str, words), *(["--size", str(args.size)] if args.size else [])]


@torch.inference_mode()
def alone(inputs: Applied) -> dict[str, float]:
    """The seconds of decoding and of the network, each by itself."""
    first, *rest = inputs.loader  # starts the workers
    batches = [first, *(first for _ in rest[:-1])]
    read = timed(lambda: sum(len(batch.index) for batch in inputs.loader))
    model = inputs.model
    steps = forward_pass(batches, model.embedding, model.std, inputs.compute, lambda _: None)
    passed = timed(lambda: sum(len(index) for index, _, _ in steps))
    of_all = read.result / passed.result
    return {"decoding alone": read.seconds, "network alone": of_all * passed.seconds}


def stages(args: argparse.Namespace, images: Path, out: Path, kept: Path) -> dict[str, float]:
    """The seconds of each stage of a call of cluster_images.py."""
    words = ["cluster_images.py", images, "--out", out, "--features", kept, "--model", args.model]
    command = [sys.executable, *map(str, words), *shared(args)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InputError(f"cluster_images.py: {done.stderr.strip().splitlines()[-1]}")
    told = json.loads((out / "clusters.json").read_text())
    return dict(told["results"]["seconds"])


def write_names(folder: Path, count: int) -> None:
    """Small pictures, each with bytes of its own; only near duplicates are opened."""
    folder.mkdir()
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    for number in range(count):
        (folder / f"{number:06d}.jpg").write_bytes(picture.getvalue() + str(number).encode())


def make_features(inputs: Applied, batch: int, few: Path, folder: Path) -> None:
    """Write rows of all images, as if they had gone through the network: those of a few images
    again and again, each with noise of its own."""
    rows = np.concatenate(
        [np.load(path, allow_pickle=False) for path in sorted(few.glob("*.npy"))]
    ).astype(np.float32)
    shards, rng = open_shards(folder, inputs, batch, "remove it"), np.random.default_rng(0)
    length = np.linalg.norm(rows, axis=1).mean() / np.sqrt(rows.shape[1])
    for number in shards.missing():
        own = rows[np.array(shards.images_of(number)) % len(rows)]
        made = own + NOISE * length * rng.standard_normal(own.shape, np.float32)
        shards.write(number, made.astype(np.float16), {})


def table(found: dict[str, float], many: dict[str, float], few: int, count: int) -> str:
    """A row for each stage."""
    lines = [f"| seconds | {few:,} pictures |" + (f" {count:,} |" if many else "")]
    lines.append("|---" * (2 + bool(many)) + "|")
    for name, seconds in found.items():
        cells = [seconds, many[name]] if many else [seconds]
        lines.append(f"| {name} | {' | '.join(f'{cell:.1f}' for cell in cells)} |")
    return "\n".join(lines) + "\n"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `run`, except the device."""
    add_images_flag(parser, 2000)
    add = parser.add_argument
    many_help = "pictures of which only the features are made; 0: none"
    add("--many", type=cli.whole_number(0), default=100_000, help=many_help)
    model_help = "as for cluster_images.py"
    add("--model", default="timm:vit_tiny_patch16_224@none", help=model_help)
    network.add_size_flag(parser)
    flags.add_batch(parser, 256, "images at a time")
    flags.add_workers(parser)

"""Images → features in a file.

Protocol. Images have their short side resized to 256, are cropped to the central 224 and
normalised with ImageNet's mean and deviation; these are the sizes of --size 224, and scale with it.
The network is in eval mode. A row is the embedding of an image, the last hidden layer before its
ReLU, which is what is clustered; or with --conv the activations of a conv layer after the ReLU,
average-pooled as for the linear probe (AlexNet: to 9600, 9216, 9600, 9600 and 9216 dimensions;
other networks: to the square grid that comes nearest to 9,000 to 10,000), or with --pool average
over the whole map. With --whiten rows are PCA-whitened and L2-normalised, as for clustering, by a
PCA that is fitted on these images, or by the checkpoint's own. Images that cannot be read or whose
features are not finite have no row.
"""

import argparse
import contextlib
import functools
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.checkpoint import digest_of
from checkpoints.clusters import clusters_of
from cluster.whitening import PCA, Whitening
from data.decode import MAX_PIXELS, exif_choice, exif_key
from data.loading import load_in_order
from features import network
from features.extraction import dimensions, extract, features_of, fit
from features.network import Applied, open_inputs
from features.rows import DTYPES, FORMATS, Shards, join, shard_length
from parallel import script
from parallel.collectives import gather_objects, rank, together, world_size
from system import cli
from system.errors import InputError
from system.files import atomic_write, make_folder, write_text
from system.kept import check_key, continuing
from system.locks import sole_user
from system.names import to_lines, to_reasons
from system.results import save_results

RESULTS = "features.json"
PARTIAL = "features.part"
LOCK = ".extract_features.lock"


def main(args: argparse.Namespace) -> None:
    """Extract, with all processes that work together, and none beside them."""
    with contextlib.ExitStack() as until_done:
        check_and_extract(args, until_done)


def check_and_extract(args: argparse.Namespace, until_done: contextlib.ExitStack) -> None:
    """Check everything that can be checked, then extract.

    Args:
        until_done: keeps the folder from other processes.
    """
    file = args.out / f"features.{args.format}"
    with together():
        inputs = open_inputs(args)
        compute, images = inputs.compute, inputs.images
        forward = features_of(inputs.model, args.conv, args.pool)
        dim, length = dimensions(forward, inputs.size, compute.device), shard_length(args.batch)
        shards = Shards(args.out / PARTIAL, len(images), dim, DTYPES[args.dtype], length)
        whitening = own_whitening(args, inputs, dim)
        key = key_of(args, inputs, whitening)
        if args.whiten not in (None, "checkpoint") and len(images) < 2:
            raise InputError(f"--whiten {args.whiten}: needs 2 images or more; there is 1")
        make_folder(args.out, "--out")
        if rank() == 0:
            busy = f"--out {args.out}: another process writes there; wait for it, or give another"
            until_done.enter_context(sole_user(args.out / LOCK, busy))
        done = is_done(file, key)
        if not done and rank() == 0:
            of_rows = {name: value for name, value in key.items() if name != "whiten"}
            copies = 2 if args.format == "npy" else 3
            shards.begin({**of_rows, "images in a shard (by --batch)": length}, copies)
    if gather_objects(done)[0]:
        if rank() == 0:
            shutil.rmtree(shards.folder, ignore_errors=True)  # if it was cut just before
        say(f"{file}: is there already, of these images and settings")
        return
    # as process 0 has it: others may see a network's disk as it was a moment ago
    missing = gather_objects(shards.missing() if rank() == 0 else [])[0]
    left = sum(len(shards.images_of(number)) for number in missing)
    if left < len(images):
        say(f"going on after {len(images) - left:,} of {len(images):,} images")
    load = functools.partial(
        load_in_order, inputs.dataset, args.batch, args.workers, compute.device
    )
    bad = extract(shards, missing, images, load, forward, compute)
    count = len(images) - len(bad)
    with together():
        if count == 0:
            if rank() == 0:
                shutil.rmtree(shards.folder)  # it would only be found again
            raise InputError(f"{args.data[0]}: none of the images can be read")
        if whitening is None and args.whiten is not None:
            whitening = fit(shards, count, args.whiten, compute.device)
            if (found := whitening.matrix.shape[1]) < args.whiten:
                say(f"--whiten {args.whiten}: the rows have only {found} directions")
        if rank() == 0:
            finish(args, inputs, shards, key, whitening, bad)


def own_whitening(args: argparse.Namespace, inputs: Applied, dim: int) -> Whitening | None:
    """With `--whiten checkpoint`, the PCA that the checkpoint's centroids belong to.

    Raises:
        InputError: it has none, or as many components as are wanted there cannot be.
    """
    if args.whiten != "checkpoint":
        if args.whiten is not None and args.whiten > dim:
            raise InputError(f"--whiten {args.whiten}: more than the features' {dim} dimensions")
        return None
    if args.conv is not None:
        raise InputError("--whiten checkpoint: is of the embedding, not of --conv; give a number")
    clusters = clusters_of(inputs.checkpoint, args.model, dim)
    if clusters is None:
        raise InputError(
            f"--whiten checkpoint: {args.model} has no PCA; give a number, and one is fitted on "
            "these images"
        )
    return clusters.whitening


def key_of(
    args: argparse.Namespace, inputs: Applied, whitening: Whitening | None
) -> dict[str, Any]:
    """What has to be the same for a call to take what another one has done; for it to go on with
    its rows, all but the whitening, which comes last."""
    names = ("conv", "format", "dtype", "decode")
    by = args.whiten
    if whitening is not None:  # the same network may have been clustered twice
        by = f"checkpoint, {hashlib.sha256(whitening.matrix.tobytes()).hexdigest()[:12]}"
    return {
        "network": digest_of(inputs.model)[:12],
        "images": inputs.images.digest[:12],
        "size": inputs.size,
        "precision": inputs.compute.precision,
        "pool": args.pool or (args.conv and "probe"),
        "whiten": by,
        "max_pixels": None if args.max_pixels == MAX_PIXELS else args.max_pixels,
        **{name: getattr(args, name) for name in names},
        **exif_key(),
    }


def is_done(file: Path, key: dict[str, Any]) -> bool:
    """Whether the folder has these very features, in this file.

    Raises:
        InputError: it has other ones, or files of other origin that would be overwritten.
    """
    out, finished = file.parent, file.exists()
    results, cut = out / RESULTS, (out / PARTIAL).exists()
    if results.exists() and (finished or not cut):
        with continuing(results, "give another --out"):
            before = json.loads(results.read_text())["settings"]["key"]
            check_key(results, dict(before), key, "give another --out")
        return finished
    names = ["images.txt", "bad_images.txt", "whitening.npz"]
    there = [
        name for name in [f"features.{kind}" for kind in FORMATS] + names if (out / name).exists()
    ]
    if there and not cut:
        raise InputError(f"--out {out}: has {there[0]} of other origin; give another folder")
    return False


def finish(
    args: argparse.Namespace,
    inputs: Applied,
    shards: Shards,
    key: dict[str, Any],
    whitening: Whitening | None,
    bad: dict[int, str],
) -> None:
    """Join the shards, and give all files their names, the features last."""
    out, paths = args.out, inputs.images.names
    final = out / f"features.{args.format}"
    blocks, dim = shards.blocks(range(len(shards))), shards.none.shape[1]
    if whitening is not None:
        blocks = (whitening.apply(block, inputs.compute.device) for block in blocks)
        dim = whitening.matrix.shape[1]
    shape = len(paths) - len(bad), dim
    joined = shards.folder / final.name
    join(joined, args.format, DTYPES[args.dtype], shape, blocks)
    present = (path for index, path in enumerate(paths) if index not in bad)
    write_text(out / "images.txt", to_lines(present))
    if bad:
        write_text(out / "bad_images.txt", to_reasons(paths, bad))
    if whitening is not None:
        with atomic_write(out / "whitening.npz") as file:
            np.savez(file, mean=whitening.mean, matrix=whitening.matrix)
    used: dict[str, Any] = {
        "device": str(inputs.compute.device),
        "precision": inputs.compute.precision,
    }
    used |= {"size": inputs.size, "arch": inputs.model.arch, "processes": world_size()}
    used["exif"] = exif_choice()
    settings = {**vars(args), "data": [str(each) for each in args.data], **used, "key": key}
    results = {"file": final.name, "shape": shape, "images": len(paths), "unreadable": len(bad)}
    save_results(out / RESULTS, __doc__ or "", settings, results)
    joined.replace(final)
    shutil.rmtree(shards.folder)
    say(
        f"{final}: {shape[0]:,} rows of {shape[1]:,} dimensions, {args.dtype}; "
        f"their images: {out / 'images.txt'}; unreadable: {len(bad)}"
    )


def say(line: str) -> None:
    """Print a line, of many processes once."""
    if rank() == 0:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def components(text: str) -> int | str:
    """The type of `--whiten`."""
    try:
        return text if text == "checkpoint" else cli.whole_number(1)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor 'checkpoint'") from error


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Write the features of images to a file, and beside it which row is whose.",
        example="python extract_features.py exp/001/checkpoint.pth.tar /your/images "
        "--out exp/features --whiten",
        details="docs/using.md",
    )
    add = parser.add_argument
    network.add_flags(parser)
    out_help = "folder for the features; the same command goes on with what lies there"
    add("--out", type=Path, required=True, metavar="FOLDER", help=out_help)
    conv_help = "a conv layer, from 1 on; left out: the embedding, before the last ReLU"
    add("--conv", type=cli.whole_number(1), metavar="N", help=conv_help)
    pool_help = "how its maps are averaged: to a grid, as the linear probe does, or to one value "
    pool_help += "for each channel; left out: probe"
    add("--pool", choices=("probe", "average"), help=pool_help)
    whiten_help = "PCA-whiten to D dimensions and L2-normalise, with a PCA fitted on these images "
    whiten_help += f"(D left out: {PCA}); or with the checkpoint's own, given the word checkpoint"
    add("--whiten", type=components, nargs="?", const=PCA, metavar="D", help=whiten_help)
    add("--format", choices=FORMATS, default="npy", help="of the file")
    dtype_help = "of the rows; half precision is what the clustering takes"
    add("--dtype", choices=tuple(DTYPES), default="float16", help=dtype_help)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(script.run(main, parse_args))

"""Images → features in a file.

Protocol. Images have their short side resized to 256, are cropped to the central 224 and
normalised with ImageNet's mean and deviation; these sizes are for --size 224, and scale with it.
The network is in eval mode. A row is the embedding of an image, the last hidden layer before its
ReLU, as it is clustered; or with --conv the activations of a conv layer after the ReLU,
average-pooled as for the linear probe (AlexNet: to 9600, 9216, 9600, 9600 and 9216 dimensions;
other networks: to the square grid that comes nearest to 9,000 to 10,000), or with --pool average
over the whole map. With --whiten rows are PCA-whitened and L2-normalised, as for clustering: by a
PCA fitted on these images (of as many dimensions as suit their number, if none is given), or by the
checkpoint's. Images that cannot be read, or whose features are not finite, have no row.
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
from typing import Any, Literal

import system.interrupt

import numpy as np

from checkpoints.checkpoint import digest_of
from checkpoints.clusters import clusters_of
from cluster.components import AUTO, auto_dim, components, remark
from cluster.whitening import Preparation, Whitening
from data.decode import MAX_PIXELS
from data.images import check_alike
from data.listing import write_names
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
from system.names import by_line, to_reasons
from system.results import save_results

RESULTS = "features.json"
PARTIAL = "features.part"
LOCK = ".extract_features.lock"


def main(args: argparse.Namespace) -> None:
    with contextlib.ExitStack() as until_done:
        check_and_extract(args, until_done)


def check_and_extract(args: argparse.Namespace, until_done: contextlib.ExitStack) -> None:
    """Check everything that can be checked, then extract.

    Args:
        until_done: holds the folder's lock.
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
        if args.whiten not in (None, 0, "checkpoint") and len(images) < 2:
            raise InputError(f"--whiten {args.whiten}: needs 2 images or more; there is 1")
        make_folder(args.out, "--out")
        if rank() == 0:
            busy = f"--out {args.out}: another process writes there; wait for it, or give another"
            until_done.enter_context(sole_user(args.out / LOCK, busy))
        done = is_done(file, key, dim)
        if not done and rank() == 0:
            of_rows = {name: value for name, value in key.items() if name != "whiten"}
            copies = 2 if args.format == "npy" else 3
            shards.begin({**of_rows, "images in a shard (by --batch)": length}, copies)
    check_alike(images)
    if gather_objects(done)[0]:
        if rank() == 0:
            shutil.rmtree(shards.folder, ignore_errors=True)  # if the last call ended just before
        script.say(f"{file}: is there already, with these images and settings\n")
        return
    # from process 0, as others may see an older state of a network disk
    missing = gather_objects(shards.missing() if rank() == 0 else [])[0]
    left = sum(len(shards.images_of(number)) for number in missing)
    if left < len(images):
        script.say(f"continuing after {len(images) - left:,} of {len(images):,} images\n")
    load = functools.partial(
        load_in_order, inputs.dataset, args.batch, args.workers, compute.device
    )
    bad = extract(shards, missing, images, load, forward, inputs.model.std, compute)
    count = len(images) - len(bad)
    with together():
        if count == 0:
            if rank() == 0:
                shutil.rmtree(shards.folder)  # or the next call would continue it
            raise InputError(f"{args.data[0]}: none of the images can be read")
        if whitening is None and args.whiten is not None:
            whitening = fit(shards, count, args.whiten, compute.device)
            describe_whitening(args.whiten, whitening, count, dim)
        if rank() == 0:
            finish(args, inputs, shards, key, whitening, bad)


def own_whitening(args: argparse.Namespace, inputs: Applied, dim: int) -> Preparation | None:
    """With `--whiten checkpoint`, the PCA in which the checkpoint's centroids are given.

    Raises:
        InputError: the checkpoint has none, or --whiten is larger than `dim`.
    """
    if args.whiten != "checkpoint":
        if isinstance(args.whiten, int) and args.whiten > dim:
            raise InputError(f"--whiten {args.whiten}: more than the features' {dim} dimensions")
        return None
    if args.conv is not None:
        raise InputError("--whiten checkpoint: whitens the embedding, not --conv; give a number")
    clusters = clusters_of(inputs.checkpoint, args.model, dim)
    if clusters is None:
        raise InputError(f"--whiten checkpoint: {args.model} has no PCA; give a number")
    return clusters.whitening


def key_of(
    args: argparse.Namespace, inputs: Applied, whitening: Preparation | None
) -> dict[str, Any]:
    """All settings that the features depend on. The rows in the shards depend on all but `whiten`,
    which comes last."""
    by = args.whiten
    if whitening is not None:  # the same network may have been clustered twice
        matrix = whitening.matrix.tobytes() if isinstance(whitening, Whitening) else b""
        by = f"checkpoint, {hashlib.sha256(matrix).hexdigest()[:12]}"
    return {
        "network": digest_of(inputs.model)[:12],
        "images": inputs.images.digest[:12],
        "size": inputs.size,
        "precision": inputs.compute.precision,
        "pool": args.pool or (args.conv and "probe"),
        "whiten": by,
        "max_pixels": None if args.max_pixels == MAX_PIXELS else args.max_pixels,
        **{name: getattr(args, name) for name in ("conv", "format", "dtype", "decode")},
        **inputs.images.reading.key,
    }


def describe_whitening(
    wanted: int | Literal["auto"], whitening: Preparation, count: int, dim: int
) -> None:
    """Print a line if there are fewer dimensions than asked for, and a `remark` if there is one."""
    found = whitening.components
    if found < (auto_dim(count, dim) if wanted == AUTO else wanted):
        script.say(f"--whiten {wanted}: the rows have only {found} directions\n")
    if words := remark(wanted, found, count, dim):
        script.say(f"note: {words}\n")


def is_done(file: Path, key: dict[str, Any], dim: int) -> bool:
    """Whether the file has these features already.

    Args:
        dim: of the features before the whitening.

    Raises:
        InputError: the folder has other features, or files of another program that would be
            overwritten.
    """
    out, finished = file.parent, file.exists()
    results, cut = out / RESULTS, (out / PARTIAL).exists()
    if results.exists() and (finished or not cut):
        with continuing(results, "give another --out"):
            content = json.loads(results.read_text())
            before, rows = dict(content["settings"]["key"]), content["results"]["shape"][0]
            if {before["whiten"], key["whiten"]} == {AUTO, auto_dim(rows, dim)}:
                before["whiten"] = key["whiten"]  # by another name
            check_key(results, before, key, "give another --out")
        return finished
    features = [f"features.{kind}" for kind in FORMATS]
    for name in (*features, "images.txt", "bad_images.txt", "whitening.npz"):
        if (out / name).exists() and not cut:
            raise InputError(f"--out {out}: has another program's {name}; give another folder")
    return False


def finish(
    args: argparse.Namespace,
    inputs: Applied,
    shards: Shards,
    key: dict[str, Any],
    whitening: Preparation | None,
    bad: dict[int, str],
) -> None:
    """Join the shards and write all files, the features last."""
    out, paths = args.out, inputs.images.names
    final = out / f"features.{args.format}"
    blocks, dim = shards.blocks(range(len(shards))), shards.none.shape[1]
    if whitening is not None:
        blocks = (whitening.apply(block, inputs.compute.device) for block in blocks)
        dim = whitening.components or dim
    shape = len(paths) - len(bad), dim
    joined = shards.folder / final.name
    join(joined, args.format, DTYPES[args.dtype], shape, blocks)
    present = (path for index, path in enumerate(paths) if index not in bad)
    write_names(out / "images.txt", present)
    if bad:
        write_text(out / "bad_images.txt", to_reasons(by_line(paths, bad)))
    if isinstance(whitening, Whitening):
        with atomic_write(out / "whitening.npz") as file:
            np.savez(file, mean=whitening.mean, matrix=whitening.matrix)
    settings = vars(args) | {
        "data": [str(each) for each in args.data], "device": str(inputs.compute.device),
        "precision": inputs.compute.precision, "size": inputs.size,
        **inputs.about, **inputs.images.reading.settings, "processes": world_size(), "key": key,
    }  # fmt: skip
    results = {"file": final.name, "shape": shape, "images": len(paths), "unreadable": len(bad)}
    results |= {"whitened to": whitening and whitening.components}
    save_results(out / RESULTS, __doc__ or "", settings, results)
    joined.replace(final)
    shutil.rmtree(shards.folder)
    script.say(
        f"{final}: {shape[0]:,} rows of {shape[1]:,} dimensions, {args.dtype}; "
        f"their images: {out / 'images.txt'}; unreadable: {len(bad)}\n"
    )


def whiten_by(text: str) -> int | str:
    """The type of `--whiten`."""
    try:
        return text if text == "checkpoint" else components(text)
    except argparse.ArgumentTypeError as error:
        message = f"{error}, or checkpoint (without a value: as the last argument)"
        raise argparse.ArgumentTypeError(message) from error


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Write the features of images to a file, and a list of the images in its rows.",
        example="python extract_features.py exp/001/checkpoint.pth.tar /your/images "
        "--out exp/features --whiten",
        details="docs/using.md",
    )
    add = parser.add_argument
    network.add_flags(parser)
    out_help = "folder for the features; after an interruption the same command continues there"
    add("--out", type=Path, required=True, metavar="FOLDER", help=out_help)
    conv_help = "a conv layer, from 1 on; left out: the embedding, before the last ReLU"
    add("--conv", type=cli.whole_number(1), metavar="N", help=conv_help)
    pool_help = (
        "average its maps to the linear probe's grid (if left out), or to one value for each "
    )
    pool_help += "channel"
    add("--pool", choices=("probe", "average"), help=pool_help)
    whiten_help = (
        "PCA-whiten to D dimensions and L2-normalise, with a PCA fitted on these images (left out "
        "or auto: as many as suit their number; 0: only normalise); or checkpoint: its own PCA"
    )
    add("--whiten", type=whiten_by, nargs="?", const=AUTO, metavar="D", help=whiten_help)
    add("--format", choices=FORMATS, default="npy", help="of the features file")
    dtype_help = "of the rows; clustering takes half precision"
    add("--dtype", choices=tuple(DTYPES), default="float16", help=dtype_help)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(script.run(main, parse_args))

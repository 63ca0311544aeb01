"""A trained network for other programs: as ONNX, or its weights as safetensors, or a ResNet's for a
detection program."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import system.interrupt

import numpy as np
import torch
from torch import Tensor, nn

from checkpoints.checkpoint import digest_of, model_of, read_checkpoint, save_checkpoint
from checkpoints.detection import LAYOUTS, detection_file, input_in_words
from checkpoints.networks import input_size
from checkpoints.safetensors_file import save_weights
from features.network import SIZE_HELP
from models import ConvNet, check_size
from system import cli, flags
from system.errors import InputError
from system.extras import check_installed
from system.files import atomic_write, make_folder
from system.normalisation import IMAGENET_MEAN, IMAGENET_STD

TOLERANCE = 1e-4  # of an output, absolute, or relative where it is above 1
BATCHES = (1, 3)  # sizes that are compared; the export is traced with another one
SUFFIXES = (".onnx", ".safetensors")
TORCH = ".pth"  # of a --layout


class Exported(nn.Module):
    """`(N, 3, S, S)` images → one output of a network.

    Args:
        output: `embedding`, `logits`, or `conv1` and so on.
        normalise: takes RGB from 0 to 1, subtracts ImageNet's mean and divides by the network's
            `std`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: ConvNet, output: str, normalise: bool) -> None:
        super().__init__()
        self.model, self.normalise = model, normalise
        self._compute = output_of(model, output)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(model.std).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self._compute((images - self.mean) / self.std if self.normalise else images)


def output_of(model: ConvNet, output: str) -> Callable[[Tensor], Tensor]:
    """The function that computes an output of a network.

    Raises:
        InputError: the network has no such output.
    """
    layers = {f"conv{layer}": layer for layer in range(1, model.conv_layers + 1)}
    if output == "embedding":
        return model.embedding
    if output == "logits" and model.top_layer is not None:
        return model.forward
    if output in layers:
        return lambda images: model.conv_features(images, layers[output])
    logits = [] if model.top_layer is None else ["logits"]
    there = ", ".join(["embedding", *logits, *layers])
    raise InputError(f"--output {output}: this network has {there}")


def to_onnx(network: Exported, output: str, size: int, about: dict[str, str]) -> bytes:
    """The network in eval mode as one ONNX file, for batches of any size.

    Args:
        output: the output's name in the file.
        size: side of the images in pixels.
        about: the file's metadata.
    """
    import onnx

    images = torch.zeros(2, 3, size, size)
    any_number = {"images": {0: torch.export.Dim("batch")}}
    program = torch.onnx.export(
        network.eval(), (images,), dynamo=True, verbose=False, external_data=False,
        input_names=["images"], output_names=[output], dynamic_shapes=any_number,
    )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    graph = proto.graph
    for part in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        for entry in part:
            entry.ClearField("metadata_props")  # stack traces of our code
    onnx.helper.set_model_props(proto, about)
    return proto.SerializeToString()


@torch.inference_mode()
def largest_difference(network: Exported, exported: bytes, size: int) -> float:
    """The largest difference between onnxruntime's and torch's outputs on random images: absolute,
    or relative to outputs above 1; infinite for NaN."""
    import onnxruntime

    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch in BATCHES:
        images = torch.rand(batch, 3, size, size, generator=generator)
        if not network.normalise:
            images = (images - network.mean) / network.std
        expected = network(images).numpy()
        (found,) = session.run(None, {"images": images.numpy()})
        difference = np.abs(found - expected) / np.maximum(np.abs(expected), 1)
        largest = max(largest, float(np.nan_to_num(difference, nan=np.inf).max()))
    return largest


def main(args: argparse.Namespace) -> None:
    """Check everything that can be checked, then export."""
    out, kind = args.out, args.out.suffix
    suffixes = SUFFIXES if args.layout is None else (TORCH,)
    if kind not in suffixes or out.is_dir():
        raise InputError(f"{out}: give a file whose name ends in {' or '.join(suffixes)}")
    if kind == ".onnx":
        check_installed(str(out), "onnx", "onnxscript", "onnxruntime")
    checkpoint = read_checkpoint(args.model, args.network_key)
    model = model_of(checkpoint, args.model).eval()
    size = input_size(args.size, checkpoint)
    about = describe(checkpoint, model, size)
    if kind != ".onnx":
        for flag in ("output", "size", "normalise"):
            if getattr(args, flag):
                raise InputError(f"--{flag}: only for .onnx; {out.name} holds the weights alone")
        export_weights(out, model, args.layout, about)
        return
    check_size(model.arch, size)
    output = args.output or "embedding"
    network = Exported(model, output, args.normalise)
    make_folder(out.parent, "OUT")
    taken = f"images (batch, 3, {size}, {size}) float32, RGB, from 0 to 1"
    if not args.normalise:
        imagenet = " (ImageNet)" if model.std == IMAGENET_STD else ""
        taken += f", minus {IMAGENET_MEAN}, divided by {model.std}{imagenet}"
    about |= {"output": output, "input": taken}
    exported = to_onnx(network, output, size, about)
    difference = largest_difference(network, exported, size)
    if difference > TOLERANCE:
        raise InputError(
            f"{out}: not written, as onnxruntime's {output} differs from torch's by "
            f"{difference:.1e}"
        )
    with atomic_write(out) as file:
        file.write(exported)
    sys.stdout.write(
        f"{out}: {output} of {model.arch}, {len(exported) / 1e6:.1f} MB; onnxruntime's differs "
        f"from torch's by {difference:.1e} at most\n"
    )


def export_weights(out: Path, model: ConvNet, layout: str | None, about: dict[str, str]) -> None:
    """Write the weights, as safetensors or in a program's layout, and a line about the file.

    Raises:
        InputError: the program has no such network.
    """
    content = layout and detection_file(model, layout, about)
    make_folder(out.parent, "OUT")
    if content:
        save_checkpoint(out, content)
    else:
        save_weights(out, model, about)
    sys.stdout.write(f"{out}: {model.arch}, {out.stat().st_size / 1e6:.1f} MB\n")
    if layout:
        sys.stdout.write(f"for {layout}: {input_in_words(layout, model.std)}\n")


def describe(checkpoint: dict[str, Any], model: ConvNet, size: int) -> dict[str, str]:
    """The metadata of a network's file."""
    about = {
        "arch": model.arch,
        "sobel": "true" if model.sobel is not None else "false",
        "size": str(size),
        "weights_sha256": digest_of(model),
    }
    if model.std != IMAGENET_STD:
        about["std"] = " ".join(map(str, model.std))
    if model.margin:
        about["margin"] = str(model.margin)
    if model.top_layer is not None:
        about["k"] = str(model.top_layer.out_features)
    if isinstance(epoch := checkpoint.get("epoch"), int):
        about["epoch"] = str(epoch)
    settings = checkpoint.get("settings", {})
    if (exif := settings.get("exif", "ignore")) != "ignore":
        about["exif"] = str(exif)
    if scale := settings.get("range"):
        about["range"] = " ".join(map(str, scale))
    if channels := settings.get("channels"):
        about["channels"] = " ".join(map(str, channels))
    return about


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(
        description="Export a network to ONNX (checked with onnxruntime), or its weights to "
        "safetensors (all scripts here read them like a checkpoint), or a ResNet's weights for "
        "detection and segmentation.",
        example="python -m tools.export exp/001/checkpoint.pth.tar alexnet.onnx --normalise",
        details="docs/using.md",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help="checkpoint of a network")
    flags.add_key(parser)
    out_help = "file whose name ends in .onnx or .safetensors, or with --layout in .pth"
    add("out", metavar="OUT", type=Path, help=out_help)
    layout_help = "the weights of a ResNet under the names that this program reads"
    add("--layout", choices=LAYOUTS, help=layout_help)
    output_help = "ONNX: embedding (if left out), logits, or a conv layer such as conv3"
    add("--output", help=output_help)
    flags.add_size(parser, None, f"ONNX: {SIZE_HELP}")
    normalise_help = "ONNX: the network takes images from 0 to 1 and normalises them"
    add("--normalise", action="store_true", help=normalise_help)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(cli.run(main, parse_args))

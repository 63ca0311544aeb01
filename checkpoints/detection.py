"""A ResNet's weights in the files that detection and segmentation programs read.

torchvision's and mmdet's ResNets have our names without `features.`. detectron2's begin with `stem`
and `res2` to `res5`, and their batch norm belongs to a convolution: `conv1.norm`, `shortcut.norm`.
"""

from typing import Any

from models import ConvNet
from system.errors import InputError
from system.normalisation import IMAGENET_MEAN, Std

ARCHS = ("resnet18", "resnet50")  # that all these programs have
FIRST = (7, 7)  # kernel of their first convolution
LAYOUTS = ("torchvision", "detectron2", "mmdet")


def detection_file(model: ConvNet, layout: str, about: dict[str, str]) -> dict[str, Any]:
    """The content of a program's file, for `torch.save`: the weights without the top layer.

    Args:
        layout: one of `LAYOUTS`.
        about: metadata; only mmdet's file has a place for them.

    Raises:
        InputError: the program has no such network.
    """
    if model.arch not in ARCHS:
        raise InputError(f"--layout {layout}: takes {' and '.join(ARCHS)}, not {model.arch}")
    if model.sobel is not None:
        raise InputError(
            f"--layout {layout}: the network has Sobel filters, and {layout}'s have none; give one "
            "that was trained without --sobel"
        )
    height, width = model.features.state_dict()["conv1.weight"].shape[2:]
    if (height, width) != FIRST:
        raise InputError(
            f"--layout {layout}: the network's first convolution is {height} × {width}, with "
            f"Sobel filters merged into it, and {layout}'s is 7 × 7; give one that was trained "
            "without --sobel"
        )
    weights = {name: weight.contiguous() for name, weight in model.features.state_dict().items()}
    if layout == "torchvision":
        return weights
    if layout == "mmdet":
        return {"meta": about, "state_dict": weights}
    counters = "num_batches_tracked"  # which its batch norm does not read
    renamed = {detectron2_name(n): w for n, w in weights.items() if not n.endswith(counters)}
    # lets it find `stem.conv1.weight` as `backbone.bottom_up.stem.conv1.weight`, for example
    return {"model": renamed, "__author__": "deepcluster", "matching_heuristics": True}


def detectron2_name(name: str) -> str:
    """detectron2's name of a ResNet's weight: `layer1.0.bn2.bias` → `res2.0.conv2.norm.bias`."""
    match name.split("."):
        case [stage, block, *rest] if stage.startswith("layer"):
            place = [f"res{int(stage.removeprefix('layer')) + 1}", block]
        case rest:
            place = ["stem"]
    match rest:
        case ["downsample", "0", kind]:
            return ".".join([*place, "shortcut", kind])
        case ["downsample", _, kind]:
            return ".".join([*place, "shortcut", "norm", kind])
        case [module, kind] if module.startswith("bn"):
            return ".".join([*place, module.replace("bn", "conv"), "norm", kind])
    return ".".join([*place, *rest])


def input_in_words(layout: str, std: Std) -> str:
    """The settings of a program that give the network the colours that it was trained with."""
    mean, deviation = (
        [round(255 * each, 3) for each in channels] for channels in (IMAGENET_MEAN, std)
    )
    return {
        "torchvision": f"image_mean={list(IMAGENET_MEAN)}, image_std={list(std)}",
        "detectron2": f"MODEL.PIXEL_MEAN {mean}, MODEL.PIXEL_STD {deviation}, INPUT.FORMAT RGB, "
        "MODEL.RESNETS.STRIDE_IN_1X1 False",
        "mmdet": f"data_preprocessor: mean={mean}, std={deviation}, bgr_to_rgb=True; backbone: "
        "style='pytorch'",
    }[layout]

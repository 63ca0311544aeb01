"""Part: images per second of features and of training: from JPEG files, from tensors in memory,
and of decoding alone; and the operations per second as a fraction of a matrix product's."""

import functools
from typing import Any

from benchmarks import training
from benchmarks.gpu.setting import Setting, Work, photos

ARCHS = ("alexnet", "vgg16", "resnet50")
SIZES = "--images 10240 --batch 128 --rounds 1"  # five batches for each of 16 workers
TINY = "--images 20 --batch 10 --rounds 1"


def works(setting: Setting) -> dict[str, Work]:
    archs = ARCHS[:1] if setting.tiny else ARCHS
    return {
        f"{arch}, {stage}": functools.partial(rates_of, setting, arch, stage)
        for arch in archs
        for stage in training.STAGES
    }


def rates_of(setting: Setting, arch: str, stage: str) -> dict[str, Any]:
    """Images per second, with the fraction of a matrix product and the GPU's peak memory."""
    sizes = TINY if setting.tiny else SIZES
    flags = f"--arch {arch} --workers {setting.workers} {sizes}"
    args = setting.arguments(training, flags)
    with photos(args.images) as images:
        measured = training.STAGES[stage](args, images, setting.compute)
        rates = training.measure(measured, args.rounds, with_naive=False)
    used = rates["network"] * training.operations(arch, stage == "training") / setting.matmul()
    return {**rates, "of a matrix product": used, **setting.peak_memory()}

"""Part: the GPU, the versions, and the speed of large matrix products."""

import functools
from typing import Any

import faiss
import torch

from benchmarks.gpu.setting import NO_GPU, Setting, Work
from benchmarks.timing import matmul_rate
from system.cores import allowed_cores
from system.device import full_float32
from system.results import versions


def works(setting: Setting) -> dict[str, Work]:
    return {
        "machine": functools.partial(machine, setting),
        "TFLOP/s of a matrix product": functools.partial(products, setting),
    }


def machine(setting: Setting) -> dict[str, Any]:
    """The GPU as torch and Faiss see it."""
    found = {"cores": allowed_cores(), "CUDA of torch": torch.version.cuda or "none", **versions()}
    if not setting.on_gpu:
        return found
    properties = torch.cuda.get_device_properties(0)
    return {
        "GPU": properties.name,
        "compute capability": f"{properties.major}.{properties.minor}",
        "GB": properties.total_memory / 1e9,
        "GPUs": torch.cuda.device_count(),
        "GPUs that Faiss sees": faiss.get_num_gpus(),
        "kernels of torch": " ".join(torch.cuda.get_arch_list()),
        **found,
    }


def products(setting: Setting) -> dict[str, Any]:
    """bf16; TF32, in which networks compute with `--precision fp32`; and full float32, of distances
    and covariances."""
    if not setting.on_gpu:
        return NO_GPU
    device = setting.compute.device
    with full_float32():
        full = matmul_rate(device)
    rates = {
        "bf16": matmul_rate(device, torch.bfloat16), "TF32": matmul_rate(device), "float32": full
    }  # fmt: skip
    return {name: rate / 1e12 for name, rate in rates.items()}

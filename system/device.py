"""Which device computes, and in which precision."""

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from system.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--device` and `--precision`, which `select_compute` takes."""
    add_device_flag(parser)
    add_precision_flag(parser)


def add_device_flag(parser: argparse.ArgumentParser) -> None:
    """`--device` alone, where no network runs."""
    device_help = "auto takes a GPU where there is one"
    parser.add_argument("--device", choices=DEVICES, default="auto", help=device_help)


def add_precision_flag(
    parser: argparse.ArgumentParser,
    help: str = "auto takes bf16 where the hardware computes in it natively",
) -> None:
    """`--precision` alone."""
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help=help)


@dataclass(frozen=True)
class Compute:
    """A device and the precision, fp32, bf16 or fp16, that forward passes on it run in."""

    device: torch.device
    precision: str

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context of a forward pass."""
        dtype = AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """What keeps small gradients from vanishing in fp16; in the other precisions it does
        nothing."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")


def select_compute(device: str = "auto", precision: str = "auto") -> Compute:
    """What `--device` and `--precision` ask for.

    auto takes a GPU where there is one, and bf16 where the hardware computes in it natively. On an
    NVIDIA GPU, convolutions are timed to choose the fastest, and those products that are left in
    float32 may run in TF32 (see `full_float32`).

    Raises:
        InputError: the device is not there.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    there = [name for name, is_there in present.items() if is_there]
    if device != "auto" and device not in there:
        raise InputError(f"--device {device}: not on this machine, which has: {', '.join(there)}")
    selected = torch.device(there[0] if device == "auto" else device)
    if selected.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = True
    if precision == "auto":
        precision = "bf16" if _has_native_bf16(selected) else "fp32"
    return Compute(selected, precision)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Within it, matrix products of float32 on an NVIDIA GPU keep all their digits: distances and
    covariances need them, networks do not."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False

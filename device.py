"""Which device computes, and in which precision."""

import contextlib
from dataclasses import dataclass

import torch

from errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class Compute:
    """A device and the precision, fp32 or bf16, that forward passes on it run in."""

    device: torch.device
    precision: str

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")


def select_compute(device: str = "auto", precision: str = "auto") -> Compute:
    """What `--device` and `--precision` ask for.

    auto takes a GPU where there is one, and bf16 where the hardware computes in it natively.

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
    if precision == "auto":
        precision = "bf16" if _has_native_bf16(selected) else "fp32"
    return Compute(selected, precision)


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False

"""The device and the precision of a computation."""

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from system.cores import allowed_cores
from system.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--device` and `--precision`, the arguments of `select_compute`."""
    add_device_flag(parser)
    add_precision_flag(parser)


def add_device_flag(parser: argparse.ArgumentParser) -> None:
    """`--device` alone, if no network runs."""
    device_help = "auto takes a GPU if there is one"
    parser.add_argument("--device", choices=DEVICES, default="auto", help=device_help)


def add_precision_flag(
    parser: argparse.ArgumentParser,
    help: str = "auto takes bf16 if the hardware supports it natively",
) -> None:
    """`--precision` alone."""
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help=help)


@dataclass(frozen=True)
class Compute:
    """A device, and the precision of its forward passes: fp32, bf16 or fp16."""

    device: torch.device
    precision: str

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context of a forward pass."""
        dtype = AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Keeps small gradients from vanishing in fp16; does nothing in other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")


def select_compute(device: str = "auto", precision: str = "auto") -> Compute:
    """The compute that `--device` and `--precision` ask for.

    On an NVIDIA GPU, this also lets cuDNN choose the fastest convolutions by timing them, and lets
    float32 products run in TF32 (see `full_float32`). On the CPU, it lowers torch's threads to the
    cores that this process may use.

    Raises:
        InputError: this machine lacks the device, or torch has no kernels for its GPU.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    there = [name for name, is_there in present.items() if is_there]
    if device != "auto" and device not in there:
        raise InputError(f"--device {device}: not on this machine, which has: {', '.join(there)}")
    cores = allowed_cores()
    if cores < torch.get_num_threads():  # torch doesn't know quotas
        torch.set_num_threads(cores)
    selected = torch.device(there[0] if device == "auto" else device)
    if selected.type == "cuda":
        _check_kernels(selected)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = True
    if precision == "auto":
        precision = "bf16" if _has_native_bf16(selected) else "fp32"
    return Compute(selected, precision)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 products on an NVIDIA GPU without TF32: networks can do with fewer digits,
    distances and covariances can't."""
    matmul = torch.backends.cuda.matmul
    # reading `allow_tf32` raises if a program has used torch's newer name; setting it sets both
    before = matmul.fp32_precision
    matmul.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32 = before == "tf32"


def _check_kernels(gpu: torch.device) -> None:
    """Raise an InputError if torch has no kernels for this GPU: the first one would fail."""
    capability, kernels = torch.cuda.get_device_capability(gpu), torch.cuda.get_arch_list()
    names = [name for name in kernels if name.startswith(("sm_", "compute_"))]  # not those of AMD
    if not names or any(_runs_on(name, capability) for name in names):
        return
    own = "sm_{}{}".format(*capability)
    raise InputError(
        f"--device cuda: torch {torch.__version__} has kernels for {', '.join(names)}, and not for "
        f"the {torch.cuda.get_device_name(gpu)}, which needs {own}; install a torch that has them "
        "(for an older card: a build for an older CUDA, such as 12.6), or give --device cpu"
    )


def _runs_on(kernels: str, capability: tuple[int, int]) -> bool:
    """Whether a GPU runs kernels such as `sm_86`, compiled for its generation, or `compute_90`,
    which newer ones compile."""
    kind, _, number = kernels.rstrip("af").partition("_")
    major, minor = divmod(int(number), 10)
    if kind == "compute":
        return (major, minor) <= capability
    return major == capability[0] and minor <= capability[1]


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False

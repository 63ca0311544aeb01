"""Small wheels that stand for real packages, and the pins with their hashes."""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

KIND = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_wheel(folder: Path, name: str, version: str, modules: Mapping[str, str]) -> Path:
    """Write a wheel of a package without dependencies; `modules` are paths and their sources."""
    stem = f"{name.replace('-', '_')}-{version}"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    info = f"{stem}.dist-info"
    files = {**modules, f"{info}/METADATA": about, f"{info}/WHEEL": KIND, f"{info}/RECORD": ""}
    path = folder / f"{stem}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)
    return path


def pin(wheel: Path) -> str:
    """The line of a requirements file for this wheel and no other."""
    name, version, *_ = wheel.name.split("-")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"{name.replace('_', '-')}=={version} --hash=sha256:{digest}\n"


def write_cpu_torch(folder: Path, cuda: str = "None") -> None:
    """Write wheels of torch, torchvision and TorchCodec, as an index of CPU wheels names them."""
    version = {"torch/__init__.py": "from . import version\n", "torch/version.py": f"cuda = {cuda}"}
    write_wheel(folder, "torch", "7.1+cpu", version)
    write_wheel(folder, "torchvision", "0.7+cpu", {"torchvision.py": ""})
    write_wheel(folder, "torchcodec", "0.3+cpu", {"torchcodec.py": ""})


CPU_TORCH = "torch==7.1\ntorchcodec==0.3\ntorchvision==0.7\n"


def pip_finds(*folders: Path) -> dict[str, str]:
    """Variables with which pip finds the packages of these folders, and no others."""
    found = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": " ".join(map(str, folders))}
    return {**found, "PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": ""}

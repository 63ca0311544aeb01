"""The files of pins: versions and hashes, one set of versions, no addresses."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
TORCH = "requirements-cpu-torch.txt"
HASHED = [
    *("requirements.txt", "requirements-cpu.txt"),
    *("requirements-images.txt", "requirements-dev.txt"),
]
MACHINES = [  # faiss-gpu and CUDA are for the first only
    {"sys_platform": "linux", "platform_machine": "x86_64", "platform_system": "Linux"},
    {"sys_platform": "darwin", "platform_machine": "arm64", "platform_system": "Darwin"},
    {"sys_platform": "win32", "platform_machine": "AMD64", "platform_system": "Windows"},
]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def pins(file: str) -> list[Requirement]:
    """The requirements of a file, with their markers."""
    lines = (ROOT / file).read_text().replace("\\\n", "").splitlines()
    return [Requirement(line.split("--hash")[0]) for line in lines if not line.startswith("#")]


def chosen(files: list[str], machine: dict[str, str], python: str) -> dict[str, str]:
    """Name → version of what a machine installs from these files. A name must not occur twice."""
    here = {**machine, "python_version": python, "python_full_version": f"{python}.0"}
    found = [
        pin for file in files for pin in pins(file) if not pin.marker or pin.marker.evaluate(here)
    ]
    assert len({pin.name for pin in found}) == len(found)
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in found}


def wanted(extras: set[str], machine: dict[str, str]) -> list[Requirement]:
    """The direct dependencies of pyproject.toml, with those of the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"]]
    for extra in extras:
        listed += project["optional-dependencies"][extra]
    found = [Requirement(line) for line in listed]
    return [need for need in found if not need.marker or need.marker.evaluate({**machine})]


@pytest.mark.parametrize("file", [*HASHED, TORCH])
def test_a_file_says_when_and_how_it_was_made_and_has_no_address(file: str) -> None:
    text = (ROOT / file).read_text()
    heading = text.splitlines()[1]
    assert re.search(r"Made on 20\d\d-[01]\d-[0-3]\d .*by recipes/pins\.sh\.$", heading)
    assert not re.search(r"://|index-url|find-links", text)


@pytest.mark.parametrize("file", HASHED)
def test_every_package_has_its_version_and_hashes(file: str) -> None:
    lines = (ROOT / file).read_text().replace("\\\n", "").splitlines()[2:]
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==\S+ (; .+?)?( +--hash=sha256:[0-9a-f]{64})+", line), line


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine["sys_platform"])
def test_the_files_have_what_pyproject_needs(machine: dict[str, str], python: str) -> None:
    cuda = chosen(HASHED[:1], machine, python)
    images = chosen([HASHED[0], HASHED[2]], machine, python)
    tests = chosen([HASHED[0], *HASHED[2:]], machine, python)
    extras = {"export", "tables", "caffe", "images", "dev"}
    for found, needed in ((cuda, set[str]()), (images, {"images"}), (tests, extras)):
        for need in wanted(needed, machine):
            if need.name != "deepcluster":
                assert need.specifier.contains(found[need.name]), need


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine["sys_platform"])
def test_without_cuda_it_is_the_same_without_cuda(machine: dict[str, str], python: str) -> None:
    cuda = chosen(["requirements.txt"], machine, python)
    cpu = chosen(["requirements-cpu.txt", TORCH], machine, python)
    of_cuda = re.compile(r"faiss-gpu|triton|(nvidia|cuda)-.*")
    rest = {name: version for name, version in cuda.items() if not of_cuda.fullmatch(name)}
    assert cpu == {**rest, "faiss-cpu": cuda.get("faiss-gpu", rest.get("faiss-cpu"))}
    assert not any(of_cuda.fullmatch(name) for name in cpu)
    assert (machine is MACHINES[0]) == any(of_cuda.fullmatch(name) for name in cuda)

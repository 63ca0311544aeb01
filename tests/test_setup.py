"""setup.sh, and what the other scripts install on first use, with stand-ins for the packages."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clones import bash, stub
from stand_in_wheels import CPU_TORCH, pin, pip_finds, write_cpu_torch, write_wheel

SOURCE = '. recipes/env.sh && "$PYTHON" -c "import sys; print(sys.prefix)"'
UV = """
import os, sys
with open("uv-was-called", "a") as file:
    print(*sys.argv[1:], file=file)
sys.exit("no-such-package" in open(sys.argv[-1]).read())
"""
NO_FITTING_PYTHON = "no Python of version 3.11 or newer found"


@pytest.fixture
def pinned(clone: Path, tmp_path: Path) -> Path:
    """A clone whose pins are stand-ins: `base`, `base-cpu`, `images-more` and `dev-more` 1.0, which
    lie in the folder `wheels` beside it."""
    for file, name in (
        ("requirements", "base"),
        ("requirements-cpu", "base-cpu"),
        ("requirements-images", "images-more"),
        ("requirements-dev", "dev-more"),
    ):
        wheel = write_wheel(tmp_path / "wheels", name, "1.0", {f"{name.replace('-', '_')}.py": ""})
        (clone / f"{file}.txt").write_text(pin(wheel))
    (clone / "requirements-cpu-torch.txt").write_text(CPU_TORCH)
    return clone


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A PATH whose python3 makes environments in no time: copies of one."""
    folder = tmp_path_factory.mktemp("copies")
    made = folder / "made"
    subprocess.run([sys.executable, "-m", "venv", str(made)], check=True)
    copy = f'[ "$1 $2 $3" = "-m venv --clear" ] && rm -rf "$4" && exec cp -R "{made}" "$4"'
    stub(folder / "bin", "python3", f'{copy}\nexec {sys.executable} "$@"')
    return {"PATH": f"{folder}/bin:{os.environ['PATH']}"}


@pytest.fixture
def packages(tmp_path: Path, copies: dict[str, str]) -> dict[str, str]:
    """Variables with which pip finds the stand-ins, and no uv."""
    return {**copies, **pip_finds(tmp_path / "wheels")}


@pytest.fixture
def uv(tmp_path: Path) -> dict[str, str]:
    """Variables with which pip finds one package: a fake uv, which writes down how it is called."""
    write_wheel(tmp_path / "uv", "uv", "1.0", {"uv/__main__.py": UV})
    return pip_finds(tmp_path / "uv")


def installed(environment: Path) -> set[str]:
    """The packages of an environment besides pip's own."""
    found = environment.glob("lib/python*/site-packages/*.dist-info")
    return {path.stem for path in found if not path.stem.startswith(("pip-", "setuptools-"))}


def test_the_environment_is_made_once_and_updated_when_pins_change(
    clone: Path, uv: dict[str, str]
) -> None:
    for file in ("requirements", "requirements-images", "requirements-dev"):
        (clone / f"{file}.txt").write_text("# nothing to install\n")
    first = bash(SOURCE, clone, **uv)
    assert first.stdout.split()[-1] == str(clone / ".venv"), first.stderr
    assert "Setting up .venv from requirements.txt" in first.stderr
    assert bash(SOURCE, clone, **uv).stderr == ""

    (clone / "requirements.txt").write_text("# still nothing to install\n")
    (clone / ".venv" / "marker").touch()
    assert "Setting up .venv" in bash(SOURCE, clone, **uv).stderr
    assert (clone / ".venv" / "marker").exists(), "updated in place"

    assert "requirements-dev.txt" in bash(f"extras=dev; {SOURCE}", clone, **uv).stderr
    assert bash(SOURCE, clone, **uv).stderr == "", "keeps the extras"
    (clone / "requirements-dev.txt").write_text("# still nothing\n")
    assert "requirements-dev.txt" in bash(SOURCE, clone, **uv).stderr, "and updates them"
    python = clone / ".venv/bin/python"
    sync = f"pip sync --quiet --require-hashes --python {python} requirements.txt"
    tests = f"{sync} requirements-images.txt requirements-dev.txt"
    calls = (clone / "uv-was-called").read_text().splitlines()
    assert calls == [sync, sync, tests, tests]


def test_a_failed_installation_starts_over(
    clone: Path, uv: dict[str, str], copies: dict[str, str]
) -> None:
    """The second time, uv is missing and pip installs."""
    (clone / "requirements.txt").write_text("./no-such-package\n")
    failed = bash(SOURCE, clone, **copies, **uv)
    assert failed.returncode == 2
    assert "installing the packages failed" in failed.stderr

    (clone / ".venv" / "marker").touch()
    (clone / "requirements.txt").write_text("# nothing to install\n")
    activated = f"{clone}/.venv/bin:{copies['PATH']}"
    again = {**pip_finds(clone / "docs"), "PATH": activated, "VIRTUAL_ENV": f"{clone}/.venv"}
    done = bash(SOURCE, clone, **again)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == str(clone / ".venv")
    assert not (clone / ".venv" / "marker").exists(), "made from scratch"


def test_setup_installs_elsewhere_and_does_nothing_else(
    pinned: Path, packages: dict[str, str]
) -> None:
    before = {path for path in pinned.rglob("*") if "__pycache__" not in path.parts}
    elsewhere = pinned.parent / "scratch of mine"
    elsewhere.mkdir()
    done = bash("../clone/setup.sh images", elsewhere, VENV="dc", **packages)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{elsewhere}/dc is ready: Python {sys.version.split()[0]}, cuda")
    assert installed(elsewhere / "dc") == {"base-1.0", "images_more-1.0"}
    assert {path for path in pinned.rglob("*") if "__pycache__" not in path.parts} == before

    offline = pip_finds(pinned)  # the other scripts use it, and install nothing
    used = bash(SOURCE, pinned, VENV=f"{elsewhere}/dc", **offline)
    assert (used.stdout, used.stderr) == (f"{elsewhere}/dc\n", "")


@pytest.mark.parametrize("index", ["folder", "index"])
def test_an_environment_without_cuda(pinned: Path, packages: dict[str, str], index: str) -> None:
    """torch comes from TORCH_INDEX. Afterwards the environment stays as it is without TORCH."""
    if index == "folder":
        write_cpu_torch(pinned / "cpu wheels")
        where, finds = "cpu wheels", packages
    else:  # a project's page for each, without any JavaScript
        for name in ("torch", "torchvision", "torchcodec"):
            write_cpu_torch(pinned / "simple" / name)
            wheels = (pinned / "simple" / name).glob(f"{name}-*.whl")
            links = "".join(f'<a href="{wheel.name}">{wheel.name}</a>' for wheel in wheels)
            (pinned / "simple" / name / "index.html").write_text(links)
        where = (pinned / "simple").as_uri()
        finds = {**packages, "PIP_NO_INDEX": "0", "PIP_INDEX_URL": "file:///no/index"}
    done = bash("./setup.sh", pinned, TORCH="cpu", TORCH_INDEX=where, **finds)
    assert done.returncode == 0, done.stderr
    torch = {"torch-7.1+cpu", "torchvision-0.7+cpu", "torchcodec-0.3+cpu"}
    assert installed(pinned / ".venv") == {"base_cpu-1.0", *torch}
    assert bash(SOURCE, pinned, **pip_finds(pinned)).stderr == ""

    missing = bash("TORCH=cuda ./setup.sh", pinned, **pip_finds(pinned))
    assert "Setting up .venv from requirements.txt" in missing.stderr
    assert missing.returncode == 2


def test_a_torch_for_cuda_is_no_cpu_wheel(pinned: Path, packages: dict[str, str]) -> None:
    write_cpu_torch(pinned / "other", cuda="'13.2'")
    done = bash("./setup.sh", pinned, TORCH="cpu", TORCH_INDEX="other", **packages)
    assert done.returncode == 2
    assert done.stderr.endswith("setup.sh: error: TORCH_INDEX: its PyTorch is not one for CPUs\n")
    assert "Setting up" in bash("./main.sh", pinned, TORCH_INDEX="other", **packages).stderr


def test_a_wheel_of_another_hash_is_not_installed(pinned: Path, packages: dict[str, str]) -> None:
    write_wheel(pinned.parent / "wheels", "base", "1.0", {"base.py": "import canary"})
    done = bash("./setup.sh", pinned, **packages)
    assert done.returncode == 2
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert installed(pinned / ".venv") == set()


def test_nodes_without_internet(pinned: Path, packages: dict[str, str]) -> None:
    """The two commands of docs/installing.md: download, then install from the folder alone."""
    page = (pinned / "docs/installing.md").read_text()
    (download,) = re.findall(r"^python3 (-m pip download .*)$", page, re.MULTILINE)
    (install,) = re.findall(r"^PIP_NO_INDEX=.*setup.sh$", page, re.MULTILINE)
    fetched = bash(f"{sys.executable} {download}", pinned, **packages)
    assert fetched.returncode == 0, fetched.stderr
    shutil.rmtree(pinned.parent / "wheels")
    done = bash(install, pinned, PATH=packages["PATH"], PIP_CONFIG_FILE=os.devnull)
    assert done.returncode == 0, done.stderr
    assert installed(pinned / ".venv") == {"base-1.0"}


def test_the_commands_of_the_docker_image(pinned: Path, packages: dict[str, str]) -> None:
    """In a clean folder, with the files that the image has by then; without `useradd`."""
    lines = (pinned / "Dockerfile").read_text().splitlines()
    image = pinned.parent / "image"
    image.mkdir()
    ran = False
    for line in lines[lines.index("WORKDIR /home/user/deepcluster") :]:
        if line.startswith("COPY"):
            *sources, target = line.split()[2:]
            (image / target).mkdir(exist_ok=True)
            for source in (path for name in sources if name != "." for path in pinned.glob(name)):
                shutil.copy(source, image / target)
        elif line.startswith("RUN"):
            done = bash(line[4:], image, VENV=f"{image}/venv", TORCH="cuda", **packages)
            assert done.returncode == 0, done.stderr
            ran = True
    assert ran
    assert installed(image / "venv") == {"base-1.0"}
    use = bash(SOURCE, image, VENV=f"{image}/venv", **pip_finds(image))
    assert (use.stdout, use.stderr) == (f"{image}/venv\n", "")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("setup.sh timm", "timm: no such extra; there are images and dev"),
        ("setup.sh", "TORCH=gpu: must be cuda or cpu"),
        (
            "setup.sh",
            "TORCH=cpu: name an index or a folder of PyTorch's CPU wheels in TORCH_INDEX; see "
            "docs/installing.md",
        ),
        ("main.sh", "TORCH_INDEX={clone}/none: no such folder"),
        ("setup.sh", "VENV={clone}/docs: not an environment of these scripts; name a new folder"),
        ("main.sh", "VENV={clone}/LICENSE/dc: cannot write there; name another folder"),
        ("setup.sh", "PYTHON={clone}/no/python: is no Python of version 3.11 or newer"),
        ("main.sh", "PYTHON=/no/such/python: no such program"),
    ],
)
def test_bad_settings_are_one_line(clone: Path, command: str, message: str) -> None:
    """Nothing is made, and nothing that was there changes."""
    name, _, value = message.split(": ")[0].partition("=")
    settings = {name: value.replace("{clone}/", "")} if value else {}
    if name == "TORCH_INDEX":
        settings["TORCH"] = "cpu"
    before = sorted(clone.rglob("*"))
    done = bash(f"./{command}", clone, **settings)
    assert done.returncode == 2
    assert done.stderr == f"{command.split()[0]}: error: {message.format(clone=clone)}\n"
    assert [p for p in sorted(clone.rglob("*")) if p.name != ".venv.lock"] == before


def test_no_fitting_python(clone: Path) -> None:
    for tool in ("bash", "basename", "dirname", "flock", "mkdir"):
        if found := shutil.which(tool):
            (clone / "bin").mkdir(exist_ok=True)
            (clone / "bin" / tool).symlink_to(found)
    done = bash("./test.sh", clone, PATH=str(clone / "bin"))
    assert done.returncode == 2
    assert NO_FITTING_PYTHON in done.stderr


def test_pip_installs_the_project_for_editing(clone: Path, tmp_path: Path) -> None:
    """Its modules come from the clone, from any folder."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    prefix = ["--no-build-isolation", "--prefix", str(tmp_path / "prefix")]
    subprocess.run([*pip, *prefix, "-e", str(clone)], check=True)
    (packages,) = (tmp_path / "prefix").glob("lib/python*/site-packages")
    code = f"import site; site.addsitedir({str(packages)!r})\nimport util, system.files as files\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}print(util.__file__, files.__file__)"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [f"{clone}/util.py", f"{clone}/system/files.py"]

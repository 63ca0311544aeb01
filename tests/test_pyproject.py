"""pyproject.toml: `pip install -e .` finds every module and every part of a page."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_room_is_a_package(project: dict[str, Any]) -> None:
    rooms = (init.parent.relative_to(ROOT) for init in ROOT.glob("[!.]*/**/__init__.py"))
    named = {".".join(room.parts) for room in rooms if room.parts[0] not in ("build", "tests")}
    assert sorted(named) == project["tool"]["setuptools"]["packages"]


def test_every_script_is_a_module(project: dict[str, Any]) -> None:
    scripts = sorted(path.stem for path in ROOT.glob("*.py"))
    assert scripts == project["tool"]["setuptools"]["py-modules"]


def test_files_beside_the_modules_are_packaged(project: dict[str, Any]) -> None:
    data = project["tool"]["setuptools"]["package-data"]
    packaged = {
        path for room, patterns in data.items() for p in patterns for path in (ROOT / room).glob(p)
    }
    for room in project["tool"]["setuptools"]["packages"]:
        for path in (ROOT / room.replace(".", "/")).iterdir():
            if path.is_file() and path.suffix not in (".py", ".sh"):
                assert path in packaged, path


def test_the_citation_has_this_version(project: dict[str, Any]) -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    version = re.search(r"^version: (.+)$", citation, re.MULTILINE)
    assert version is not None
    assert version[1] == project["project"]["version"]
    assert f"license: {project['project']['license']}" in citation.splitlines()

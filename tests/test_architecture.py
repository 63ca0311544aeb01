"""The rooms and what each may import: the table of docs/architecture.md, as data."""

import ast
import graphlib
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = {path.stem for path in ROOT.glob("*.py")} - {"clustering", "util"}
# Rooms, or modules of a room, that each room may import beside its own. `benchmarks` may import
# all, `visu` and `tools` all but scripts and what stands above them.
MAY_IMPORT = {
    "system": set(),
    "parallel": {"system"},
    "data": {"system", "parallel"},
    "models": {"system"},
    "cluster": {"system", "parallel"},
    "checkpoints": {"models", "cluster", "system"},
    "features": {"data", "models", "cluster", "checkpoints", "parallel", "system"},
    "methods": {"features", "clustering", "cluster", "data", "models", "parallel", "system"},
    "training": {
        "checkpoints", "cluster", "data", "methods.method", "models", "parallel", "system",
    },
    "evaluation": {
        "features", "data", "models", "cluster", "checkpoints", "parallel", "system",
    },
    "clustering": {"cluster", "parallel", "system"},
    "util": {"checkpoints", "cluster", "evaluation", "training"},
}  # fmt: skip


def modules() -> dict[str, Path]:
    """Every module that git knows, but the tests, by its name."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [Path(line) for line in listed.splitlines() if not line.startswith("tests/")]
    return {
        ".".join(path.with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
        if (ROOT / path).exists()
    }


MODULES = modules()


def imports_of(module: str) -> set[str]:
    """The modules of this project that one imports."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / MODULES[module]).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    return found & MODULES.keys()


def room(module: str) -> str:
    return module.partition(".")[0]


def may_import(module: str, other: str) -> bool:
    if room(other) == room(module):
        return True
    if room(other) in SCRIPTS:  # benchmarks run what they measure
        return room(module) == "benchmarks" and other == "main"
    if room(module) in SCRIPTS or room(module) == "benchmarks":
        return room(other) != "benchmarks"
    below = MAY_IMPORT.keys() | ({"visu"} if room(module) == "tools" else set())
    return bool({room(other), other} & MAY_IMPORT.get(room(module), below))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    assert {other for other in imports_of(module) if not may_import(module, other)} == set()


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {module: imports_of(module) - {module} for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_every_room_is_in_the_table() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms == MAY_IMPORT.keys() - {"clustering", "util"} | {"visu", "tools", "benchmarks"}


@pytest.mark.parametrize("name", ["main.py", "clustering.py", "util.py"])
def test_what_a_newcomer_reads_first_is_short(name: str) -> None:
    lines = len((ROOT / name).read_text("utf-8").splitlines())
    assert lines <= {"util.py": 30, "clustering.py": 300}.get(name, 250)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_file_has_at_most_300_lines(module: str) -> None:
    assert len((ROOT / MODULES[module]).read_text("utf-8").splitlines()) <= 300


def test_few_files_stand_at_the_top() -> None:
    assert len(list(ROOT.glob("*.py"))) <= 13
    assert len(list(ROOT.glob("*.sh"))) <= 8

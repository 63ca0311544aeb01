"""The rooms and what each may import: the table of docs/architecture.md, as data."""

import ast
import graphlib
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPTS = {path.stem for path in ROOT.glob("*.py")} - {"clustering", "util"}
# Rooms, or modules of a room, that each room may import besides itself. `benchmarks` may import
# everything, `visu` and `tools` everything but scripts and the rooms above them.
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
    """Every module in git except the tests, by its name."""
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
    """The modules of this project that a module imports."""
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
    if room(other) in SCRIPTS:  # benchmarks measure it
        return room(module) == "benchmarks" and other == "main"
    if room(module) in SCRIPTS or room(module) == "benchmarks":
        return room(other) != "benchmarks"
    below = MAY_IMPORT.keys() | ({"visu"} if room(module) == "tools" else set())
    return bool({room(other), other} & MAY_IMPORT.get(room(module), below))


def test_modules_import_only_rooms_below() -> None:
    wrong = {
        (module, other)
        for module in MODULES
        for other in imports_of(module)
        if not may_import(module, other)
    }
    assert wrong == set()


def test_there_are_no_circular_imports() -> None:
    graph = {module: imports_of(module) - {module} for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_every_room_is_in_the_table() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms == MAY_IMPORT.keys() - {"clustering", "util"} | {"visu", "tools", "benchmarks"}


def test_files_are_short() -> None:
    lengths = {
        str(path): len((ROOT / path).read_text("utf-8").splitlines()) for path in MODULES.values()
    }
    most = {"main.py": 250, "util.py": 30}
    assert {path: n for path, n in lengths.items() if n > most.get(path, 300)} == {}


def test_there_are_few_files_at_the_top() -> None:
    assert len(list(ROOT.glob("*.py"))) <= 13
    assert len(list(ROOT.glob("*.sh"))) <= 8


def test_every_loader_notices_faults_of_its_workers() -> None:
    """Torch's waits for ever. `benchmarks` compares with it."""
    makers = {
        module
        for module, path in MODULES.items()
        if re.search(r"DataLoader\(|\(DataLoader\[", path.read_text("utf-8"))
        and room(module) != "benchmarks"
    }
    assert makers == {"data.loader"}

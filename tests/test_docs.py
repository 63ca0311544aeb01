"""The documentation names files, commands, tests and sections that exist."""

import ast
import importlib
import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
ROOMS = sorted(init.parent for init in ROOT.glob("[!.]*/__init__.py"))
KINDS = ("py", "sh", "js", "html", "css")
SOURCES = [
    path
    for pattern in ("*.py", "*.sh", "*.toml", *(f"[!.]*/**/*.{kind}" for kind in KINDS))
    for path in ROOT.glob(pattern)
    if path.relative_to(ROOT).parts[0] not in ("build", "datasets", "exp")
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCRIPT = re.compile(r"(?<![\w/.*<>{-])(?:\./)?((?:[\w-]+/)*[\w-]+\.(?:py|sh))\b")
TEST = re.compile(r"`(tests/[\w/]+\.py)?(?:::(test_\w+))?`")
WITH_COMMANDS = [page for page in PAGES if page.name != "CHANGELOG.md"]  # that one has old names


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def words_of_code(page: Path) -> list[str]:
    return re.findall(r"`([^`]+)`", prose(page))


def commands(page: Path) -> list[str]:
    """The shell commands of a page: in its blocks, and in its text."""
    found = [code for code in words_of_code(page) if re.match(r"(\w+=\S* )*(python|\./)", code)]
    for language, block in FENCE.findall(page.read_text()):
        lines = block.replace("\\\n", " ").splitlines()
        if language == "sh":
            found += lines
        elif language == "console":
            found += [line[2:] for line in lines if line.startswith("$ ")]
    return found


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def exists(name: str) -> bool:
    return (ROOT / name).exists()


def files_of(room: Path) -> list[str]:
    """The names of a room's modules and subfolders."""
    modules = [path.name for path in room.glob("*.py") if path.name != "__init__.py"]
    return [*modules, *(f"{init.parent.name}/" for init in room.glob("*/__init__.py"))]


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 250
    assert {"./main.sh", "./test.sh"} <= {line.split(" ")[0] for line in lines[:35]}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_targets_of_relative_links_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("index", ["README.md", "docs/README.md"])
def test_every_page_is_in_the_index(index: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", prose(ROOT / index))
    linked = {((ROOT / index).parent / target).resolve() for target in links}
    assert {page.resolve() for page in ROOT.glob("docs/**/*.md")} - {ROOT / index} <= linked


def test_pages_that_the_code_names_exist() -> None:
    """The code names pages in comments, docstrings, messages and the texts of `--help`."""
    found = 0
    for source in SOURCES:
        for target in re.findall(r"\bdocs/[\w/.-]*\.\w+(?:#[\w-]+)?", source.read_text()):
            path, _, anchor = target.partition("#")
            assert (ROOT / path).exists(), (named(source), target)
            assert not anchor or anchor in anchors(ROOT / path), (named(source), target)
            found += 1
    assert found >= 5


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=named)
def test_commands_start_scripts_and_modules_that_exist(page: Path) -> None:
    for command in commands(page):
        for name in SCRIPT.findall(command):
            assert exists(name), command
        for module in re.findall(r"python -m ([\w.]+)", command):
            if not module.endswith("NAME") and module != "X":
                assert importlib.util.find_spec(module) is not None, command


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=named)
def test_files_that_pages_name_exist(page: Path) -> None:
    """A name without its folder may be in any room."""
    in_rooms = {path.name for room in (*ROOMS, ROOT / "recipes") for path in room.rglob("*")}
    for code in words_of_code(page):
        for name in SCRIPT.findall(code):
            assert "NAME" in name or exists(name) or name in in_rooms, code


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=named)
def test_modules_and_names_that_snippets_import_exist(page: Path) -> None:
    for language, block in FENCE.findall(page.read_text()):
        for node in ast.walk(ast.parse(block if language == "python" else "")):
            if isinstance(node, ast.Import):
                for module in node.names:
                    importlib.import_module(module.name)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found = importlib.import_module(node.module)
                for each in node.names:
                    name = f"{node.module}.{each.name}"
                    assert hasattr(found, each.name), name


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_tests_that_pages_name_exist(page: Path) -> None:
    file = ""
    for path, test in TEST.findall(page.read_text()):
        file = path or file
        if test:
            assert re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.MULTILINE), test


def test_the_readmes_tree_names_every_room_and_script() -> None:
    """Every name in it exists, too. A file is listed below its room, or in the room's own line."""
    (tree,) = (
        code for _, code in FENCE.findall((ROOT / "README.md").read_text()) if "__init__" in code
    )
    room = ""
    for line in tree.splitlines():
        if not line.startswith(" "):
            room = first if (first := f"{line} ".split(" ")[0]).endswith("/") else ""
        for name in re.findall(r"[\w-]+\.(?:py|sh|js)\b", line):
            assert exists(name) or exists(room + name), line
    parts = re.findall(r"[\w-]+(?:/|\.py|\.sh)", tree)
    assert {f"{path.name}/" for path in ROOMS} <= set(parts)
    scripts = {path.name for pattern in ("*.py", "*.sh") for path in ROOT.glob(pattern)}
    assert scripts <= set(parts)


@pytest.mark.parametrize("room", [*ROOMS, ROOT / "tools/caffe"], ids=named)
def test_every_room_introduces_its_files(room: Path) -> None:
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
    assert text is not None
    introduced = re.findall(r"^ *(\S+\.py|\S+/)  +\S", text, re.MULTILINE)
    assert sorted(introduced) == sorted(files_of(room))

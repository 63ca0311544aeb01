"""All command lines: the help ends with an example and a page, and each flag is defined once."""

import argparse
import ast
import importlib
import re
import shlex
from collections import defaultdict
from pathlib import Path

import pytest

from system import cli

ROOT = Path(__file__).parents[2]
MODULES = [
    *ROOT.glob("*.py"),
    *(path for init in ROOT.glob("[!.]*/__init__.py") for path in init.parent.rglob("*.py")),
]
SCRIPTS = sorted(
    str(path.relative_to(ROOT)) for path in MODULES if "\ndef parse_args(" in path.read_text()
)
SUBCOMMANDS = {
    "benchmarks/__main__.py": [
        "clustering",
        "training",
        "containers",
        "probe",
        "visu",
        "scaling",
        "gpu",
        "decoding",
    ],
    "tools/make_packaged.py": ["digits", "emoji", "cifar10"],
}
HELPS = [pytest.param(script, [], id=script) for script in SCRIPTS]
HELPS += [
    pytest.param(script, [command], id=f"{script} {command}")
    for script, commands in SUBCOMMANDS.items()
    for command in commands
]
# Flags with another meaning in each file that defines them
HOMONYMS = {
    "--clusters", "--conv", "--count", "--dim", "--epochs", "--folders", "--graph", "--images",
    "--json", "--k", "--lr", "--method", "--model", "--momentum", "--n", "--names", "--niter",
    "--nmb_cluster", "--nmb_prototypes", "--out", "--pickle", "--points", "--processes",
    "--protocol", "--prototypes", "--reassignment", "--super_classes", "--wd",
}  # fmt: skip


def parse(script: str, argv: list[str]) -> argparse.Namespace:
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    found = module.parse_args(argv)
    assert isinstance(found, argparse.Namespace)
    return found


@pytest.fixture
def parser(
    script: str, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> argparse.ArgumentParser:
    """The parser of a script."""
    printed: list[argparse.ArgumentParser] = []
    monkeypatch.setattr(cli.Parser, "print_help", lambda self: printed.append(self))
    with pytest.raises(SystemExit):
        parse(script, [*command, "--help"])
    return printed[0]


@pytest.mark.parametrize(("script", "command"), HELPS)
def test_a_help_ends_with_an_example_that_works_and_the_page_about_the_script(
    parser: argparse.ArgumentParser, script: str, command: list[str]
) -> None:
    ending = re.search(r"\n\nExample: (.+)\nDetails: (docs/\S+\.md)\n$", parser.format_help())
    assert ending is not None
    example, page = ending.groups()
    if script.startswith(("tools/", "benchmarks/")):
        module = script.removesuffix(".py").removesuffix("/__main__").replace("/", ".")
        start, name = f"python -m {module}", module
    else:
        name = script.replace("activ_", "activ-")  # the original's
        start = f"python {name}"
    assert example.startswith(f"{start} ")
    assert name in (ROOT / page).read_text()
    words = shlex.split(example.removeprefix(start))
    assert words[: len(command)] == command
    parse(script, words)


@pytest.mark.parametrize(("script", "command"), HELPS)
def test_a_help_has_the_defaults(parser: argparse.ArgumentParser) -> None:
    text = " ".join(parser.format_help().split())
    for flag in parser._actions:
        if flag.option_strings:
            assert flag.help, flag.dest
            shown = f"(default: {flag.default})" in text
            assert shown or flag.default in (None, False, argparse.SUPPRESS), flag.dest


@pytest.mark.parametrize(("script", "command"), [("main.py", ["--method", "swav"])])
def test_the_help_of_a_method_has_the_default_method(parser: argparse.ArgumentParser) -> None:
    text = " ".join(parser.format_help().split())
    assert "training method (default: deepcluster)" in text
    assert "--queue_length" in text


def test_a_flag_is_defined_once() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for path in MODULES:
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and any(word.arg == "help" for word in call.keywords):
                for name in call.args:
                    if isinstance(name, ast.Constant) and str(name.value).startswith("--"):
                        found[str(name.value)].add(str(path.relative_to(ROOT)))
    assert found["--workers"] == {"system/flags.py"}
    assert {name for name, files in found.items() if len(files) > 1} <= HOMONYMS

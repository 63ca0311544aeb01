"""Hostile names of files and folders: no shell runs them, and no page shows them as HTML. And no
source file uses a call that makes this, or loading files, unsafe."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import open_page
from conftest import write_images

from system import cli
from visu import clusters, feature_map
from visu.report_page import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parent.parent
HOSTILE = [
    "$(touch canary); x",
    "`touch canary`",
    "'; touch canary; '",
    '"; touch canary; "',
    "a\ntouch canary\nb",
    "a & touch canary | b > canary",
    "* ? [a] ~ $HOME \\ ${x:=$(touch canary)}",
    "-rf --exp",
]
SCRIPTS = {  # the program that each starts, and the variables that name files
    "main.sh": ("main.py", ["DIR", "EXP"]),
    "recipes/resnet50.sh": ("main.py", ["DIR", "EXP"]),
    "recipes/small.sh": ("main.py", ["DIR", "EXP"]),
    "recipes/swav_small.sh": ("main.py", ["DIR", "EXP"]),
    "recipes/deepclusterv2_small.sh": ("main.py", ["DIR", "EXP"]),
    "recipes/deepercluster_small.sh": ("main.py", ["DIR", "EXP"]),
    "recipes/deepercluster.sh": ("main.py", ["DIR", "EXP"]),
    "recipes/deepercluster_imagenet.sh": ("main.py", ["DIR", "EXP"]),
    "recipes/rotnet.sh": ("main.py", ["DIR", "EXP"]),
    "recipes/swav.sh": ("main.py", ["DIR", "EXP"]),
    "recipes/deepclusterv2.sh": ("main.py", ["DIR", "EXP"]),
    "recipes/slurm.sh": ("parallel/launch.py", ["DIR", "EXP"]),
    "eval_linear.sh": ("eval_linear.py", ["DATA", "MODEL", "EXP"]),
    "recipes/eval_linear_modelzoo.sh": ("eval_linear.py", ["DATA", "MODEL", "EXP"]),
    "recipes/eval_linear_deepercluster.sh": ("eval_linear.py", ["DATA", "MODEL", "EXP"]),
    "recipes/eval_semisup.sh": ("eval_semisup.py", ["DATA", "MODEL", "SUBSET", "EXP"]),
    "recipes/eval_voc_deepercluster.sh": ("eval_voc_classif.py", ["VOCDIR", "MODEL", "EXP"]),
    "recipes/eval_knn.sh": ("eval_knn.py", ["DATA", "MODEL", "EXP"]),
    "recipes/eval_svm.sh": ("eval_svm.py", ["VOCDIR", "MODEL", "EXP"]),
    "eval_retrieval.sh": ("eval_retrieval.py", ["DATASET", "MODEL", "TEMP_DIR"]),
    "eval_voc_classif_all.sh": ("eval_voc_classif.py", ["VOCDIR", "MODEL", "EXP"]),
    "eval_voc_classif_fc6_8.sh": ("eval_voc_classif.py", ["VOCDIR", "MODEL", "EXP"]),
    "visu/gradient_ascent.sh": ("visu/gradient_ascent.py", ["MODEL", "EXP"]),
    "visu/activ-retrieval.sh": ("visu/activ-retrieval.py", ["DATA", "MODEL", "EXP"]),
}
SLURM = {
    "srun": '#!/bin/sh\nshift 3\nexec "$@"\n',
    "scontrol": "#!/bin/sh\necho localhost\n",
}


def copy_scripts(folder: Path) -> None:
    """Copy all shell scripts, and replace their programs by ones that print their arguments."""
    for script in [*ROOT.glob("*.sh"), *ROOT.glob("*/*.sh")]:
        target = folder / script.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(script, target)
    for program, _ in SCRIPTS.values():
        (folder / program).parent.mkdir(exist_ok=True)
        (folder / program).write_text("import json, sys; print(json.dumps(sys.argv[1:]))")
    (folder / "bin").mkdir()
    for name, text in SLURM.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)


def test_every_script_is_tried() -> None:
    there = {str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.sh"), *ROOT.glob("*/*.sh")]}
    sourced = {"recipes/env.sh", "recipes/install.sh"}
    without_names = {"test.sh", "recipes/pins.sh"}
    assert there == {*SCRIPTS, *sourced, *without_names, "setup.sh", "download_model.sh"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_names_reach_a_program_unchanged(tmp_path: Path, script: str) -> None:
    here = tmp_path / HOSTILE[0]  # the scripts' own folder, too
    copy_scripts(here)
    _, variables = SCRIPTS[script]
    for number, name in enumerate(HOSTILE):
        named = {variable: f"{name}{number}/{variable}\n" for variable in variables}
        environment = {
            "PATH": f"{here}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "PYTHON": sys.executable,
            "PROCESSES": "1",
            "WORKERS": "1",
            "SLURM_JOB_ID": "7",
            **named,
        }
        done = subprocess.run(
            ["bash", f"./{script}"], cwd=here, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        given = json.loads(done.stdout.splitlines()[-1])
        for path in named.values():
            assert {path, f"{here}/{path}"} & set(given), (path, given)
        assert not list(tmp_path.rglob("canary"))


@pytest.mark.parametrize("variable", ["VENV", "TORCH_INDEX"])
@pytest.mark.parametrize("name", HOSTILE)
def test_setup_uses_its_folders_unchanged(tmp_path: Path, name: str, variable: str) -> None:
    """It stops before it installs: there is no index, or the environment's folder is a file."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(ROOT / "setup.sh", tmp_path)
    (tmp_path / name).touch()
    done = subprocess.run(
        ["bash", "./setup.sh"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "TORCH": "cpu", variable: name},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"{variable}={tmp_path / name}: " in done.stderr
    assert not list(tmp_path.rglob("canary"))


@pytest.mark.parametrize("name", HOSTILE)
def test_the_download_uses_its_folder_unchanged(tmp_path: Path, name: str) -> None:
    """It fails, because no server answers, but makes its folder."""
    root = tmp_path / name
    shutil.copy(ROOT / "download_model.sh", tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sleep").symlink_to("/bin/true")  # between two attempts
    done = subprocess.run(
        ["bash", "./download_model.sh"],
        cwd=tmp_path,
        env={
            "PATH": f"{tmp_path}/bin:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "MODELROOT": str(root),
            "ARCHS": "alexnet",
            "BASE": "http://127.0.0.1:9/none",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode in (1, 2)
    assert (root / "alexnet").is_dir()
    assert not list(tmp_path.rglob("canary"))


# Calls that no source file may make: of a shell, of code in a string, of loaders that run code.
FORBIDDEN = {
    "os.system", "os.popen", "eval", "exec", "compile", "__import__", "subprocess.getoutput",
    "subprocess.getstatusoutput", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "shutil.unpack_archive", "marshal.loads", "yaml.load", "shelve.open", "joblib.load",
}  # fmt: skip
METHODS = {"extractall"}  # of archives
WANTED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def sources() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        if not parts[0].startswith((".", "exp", "datasets")) and "tests" not in parts:
            yield path


def unsafe(source: str) -> list[str]:
    """The forbidden calls and base classes in a source file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in FORBIDDEN:
            found.append(ast.unparse(node))
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        wanted, value = WANTED.get(name, (None, None))
        if name in FORBIDDEN or name.split(".")[-1] in METHODS:
            found.append(name)
        if wanted and given.get(wanted) != str(value):
            found.append(f"{name} without {wanted}={value}")
        if given.get("shell", "False") != "False" or given.get("allow_pickle", "False") != "False":
            found.append(f"{name} with {given}")
    return found


@pytest.mark.parametrize(
    "line",
    [
        "os.system('ls')", "subprocess.run(x, shell=True)", "eval(x)", "pickle.load(file)",
        "torch.load(x)", "torch.load(x, weights_only=False)", "np.load(x)", "archive.extractall()",
        "np.load(x, allow_pickle=True)", "class A(pickle.Unpickler): ...", "f = pickle.loads",
    ],
)  # fmt: skip
def test_unsafe_calls_are_found(line: str) -> None:
    assert unsafe(line)


def test_no_source_file_has_unsafe_calls() -> None:
    found = {str(path.relative_to(ROOT)): unsafe(path.read_text("utf-8")) for path in sources()}
    assert len(found) > 80
    # a subclass that restricts it
    assert found.pop("system/safe_pickle.py") == ["pickle.Unpickler"]
    # bytes of the program's own worker
    assert set(found.pop("data/parcel.py")) == {"pickle.loads"}
    assert {path: calls for path, calls in found.items() if calls} == {}


TAGS = ["<script>window.ran=1<", '"><img src=x onerror=window.ran=2>', "<", "'-window.ran=3-'"]
FILES = ["script>.png", "--><svg onload=window.ran=4>.png", "{{content}}&lt;b>.png",
         "<img src=x onerror=window.ran=5>.png"]  # fmt: skip


def test_pages_of_a_run_over_hostile_names(
    tmp_path: Path, train: Callable[..., Path], browser: "Browser"
) -> None:
    """The folder `<` and the file `script>.png` make a path that ends a script: `</script>.png`."""
    tree = tmp_path / "<b onclick=window.ran=6>"
    made = iter(write_images(tmp_path / "made", 16))
    for folder in TAGS:
        (tree / folder).mkdir(parents=True)
        for name in FILES:
            next(made).rename(tree / folder / name)
    exp = train(tree, exp="<i onmouseover=window.ran=7>exp")
    paths = [f"{folder}/{name}" for folder in TAGS for name in FILES]

    flags = ["--device", "cpu", "--precision", "fp32", "--workers", "0"]
    drawn = cli.run(feature_map.main, feature_map.parse_args, [str(exp), *flags])
    assert drawn == cli.run(clusters.main, clusters.parse_args, [str(exp), *flags]) == 0
    with open_page(browser, write_report(exp)) as page:
        assert page.locator("h1").inner_text().endswith(exp.name)
        for path in paths:
            page.get_by_label("Find").fill(path)
            shown = [name.inner_text() for name in page.locator("#gallery li:visible").all()]
            assert path in shown
        assert page.evaluate("window.ran") is None
        assert page.locator("svg[onload], img[onerror], [onclick], [onmouseover]").count() == 0
    with open_page(browser, exp / "feature_map.html") as page:
        for path in paths:
            page.fill("#search", path)
            found = page.locator("#found img").all()
            assert path in [image.get_attribute("alt") for image in found]
        assert page.evaluate("window.ran") is None
        assert page.locator("svg[onload], img[onerror], [onclick], [onmouseover]").count() == 0

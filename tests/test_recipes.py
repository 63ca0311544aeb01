"""Each recipe from its script to its results, on a few images: the script's flags, then flags that
make the run small."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import write_images

import eval_knn
import eval_linear
import main
from training.logs import read_metrics
from training.resume import OWN_SETTINGS

ROOT = Path(__file__).parents[1]
HERE = ["--workers", "0", "--device", "cpu", "--precision", "fp32"]
TINY = [
    *HERE,
    *["--batch", "8", "--nmb_cluster", "4", "--epochs", "1", "--reassign", "1", "--no-report"],
]


def flags_of(script: str, *flags: str, **variables: str) -> list[str]:
    """The arguments with which a script starts a Python program."""
    done = subprocess.run(
        ["bash", f"./{script}", *flags],
        cwd=ROOT, env={"PATH": "/usr/bin:/bin", "PYTHON": "echo", "PROCESSES": "1", **variables},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()[1:]


def pretrain(script: str, data: Path, exp: Path, *flags: str, **variables: str) -> dict[str, Any]:
    """Run a recipe for pretraining with `--arch resnet18_small`. Returns the run's settings."""
    given = flags_of(script, DIR=str(data), **variables)
    small = ["--arch", "resnet18_small", "--size", "32"]
    main.main(main.parse_args([*given, *TINY, *small, "--exp", str(exp), *flags]))
    return json.loads((exp / "config.json").read_text())["settings"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split, count in (("train", 12), ("val", 5)):
        for label in "ab":
            write_images(tmp_path / "data" / split / label, count, seed=ord(label))
    return tmp_path / "data"


def test_the_model_zoos_recipe_and_its_probes(data: Path, tmp_path: Path) -> None:
    asked = {"arch": "resnet50", "sobel": True, "transforms": "modelzoo", "lr": 0.1, "wd": -5.0}
    args = vars(main.parse_args(flags_of("recipes/resnet50.sh", DIR="images")))
    assert asked.items() <= args.items()

    settings = pretrain("recipes/resnet50.sh", data / "train", tmp_path / "exp")
    assert settings["transforms"] == "modelzoo"
    variables = {"DATA": str(data), "MODEL": str(tmp_path / "exp" / "checkpoint.pth.tar")}
    small = [*HERE, *["--size", "32", "--epochs", "1", "--batch_size", "8"]]
    for protocol in ("modelzoo", "modelzoo-places205", "modelzoo-inat18", "modelzoo-avgpool"):
        command = flags_of("recipes/eval_linear_modelzoo.sh", PROTOCOL=protocol, **variables)
        exp = tmp_path / "exp" / protocol
        eval_linear.main(eval_linear.parse_args([*command, *small, "--exp", str(exp)]))
        layers = json.loads((exp / "linear.json").read_text())["results"]["trained"]
        assert len(layers) == (1 if protocol.endswith("avgpool") else 5)

    command = flags_of("recipes/eval_knn.sh", **variables)
    eval_knn.main(eval_knn.parse_args([*command, *HERE, "--k", "3", "10"]))
    found = json.loads(next((tmp_path / "exp").glob("knn_*/knn.json")).read_text())
    assert list(found["results"]["trained"]) == ["3", "10"]


@pytest.mark.parametrize(
    ("size", "arch"), [("32", "resnet18_small"), ("64", "resnet18"), ("96", "resnet18")]
)
def test_the_recipe_for_small_images_has_a_stem_to_match(size: str, arch: str) -> None:
    args = main.parse_args(flags_of("recipes/small.sh", DIR="images", SIZE=size))
    assert (args.arch, args.size, args.nmb_cluster) == (arch, int(size), 100)


def test_the_recipe_for_small_images(data: Path, tmp_path: Path) -> None:
    settings = pretrain("recipes/small.sh", data / "train", tmp_path / "exp")
    asked = {"arch": "resnet18_small", "sobel": True, "size": 32, "probe": 1, "wd": -5.0}
    assert asked.items() <= settings.items()
    assert read_metrics(tmp_path / "exp")[0]["knn_top1"]["10"] > 0


@pytest.mark.parametrize("script", ["recipes/resnet50.sh", "recipes/small.sh"])
def test_a_resumed_run_of_a_recipe_keeps_its_settings(
    script: str, data: Path, tmp_path: Path
) -> None:
    exp = tmp_path / "exp"
    before = pretrain(script, data / "train", exp)
    resume = ["--resume", str(exp / "checkpoint.pth.tar")]
    given = flags_of(script, *resume, DIR=str(data / "train"), EPOCHS="2")
    args = vars(main.parse_args(given))
    changed = {name for name in before if before[name] != args[name]} - set(OWN_SETTINGS)
    assert changed == {"epochs"}


@pytest.mark.parametrize("script", ["main.sh", "recipes/resnet50.sh", "recipes/small.sh"])
def test_resume_auto_starts_with_all_settings_of_the_recipe(script: str) -> None:
    at = {"DIR": "/images", "EXP": "/exp"}
    assert flags_of(script, "--resume", "auto", **at) == [
        *flags_of(script, **at),
        "--resume",
        "auto",
    ]


@pytest.mark.parametrize(
    ("script", "variables", "message"),
    [
        ("small.sh", {"DIR": "d", "SIZE": "big"}, "SIZE=big: not a whole number"),
        ("small.sh", {}, "DIR: name a folder of images"),
        ("resnet50.sh", {}, "DIR: name a folder of images"),
    ],
)
def test_bad_settings_are_one_line(script: str, variables: dict[str, str], message: str) -> None:
    env = {"PATH": "/usr/bin:/bin", "PYTHON": "echo", **variables}
    command = ["bash", f"recipes/{script}"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"{script}: error: {message}")

"""Each recipe from its script to its results, on a few images: the script's flags, then flags that
make the run small."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_images
from networks import vgg_like
from voc_tree import write_voc

import eval_knn
import eval_linear
import eval_semisup
import eval_voc_classif
import main
from checkpoints.checkpoint import load_model
from data.multicrop import Crops, crops_of
from models import MODELS, accepts_size
from training.logs import read_metrics
from training.resume import OWN_SETTINGS

ROOT = Path(__file__).parents[1]
HERE = ["--workers", "0", "--device", "cpu", "--precision", "fp32"]
TINY = [*HERE, *["--batch", "8", "--nmb_cluster", "4", "--epochs", "1", "--no-report"]]
SMALL = {
    "small.sh": {"method": "deepcluster", "sobel": True, "lr": 0.03, "wd": -5.0},
    "swav_small.sh": {"method": "swav", "sobel": False, "lr": 0.05, "wd": -6.0, "epsilon": 0.03},
    "deepclusterv2_small.sh": {"method": "deepclusterv2", "sobel": False, "lr": 0.05, "wd": -6.0},
    "deepercluster_small.sh": {
        **{"method": "deepercluster", "sobel": True, "lr": 0.03, "wd": -5.0},
        **{"super_classes": 4, "reassignment": 4, "rotnet": True},
    },
}
SHORTENED = {"small.sh": ["--reassign", "1"], "deepercluster_small.sh": ["--batch", "16"]}
TWO_LEVEL = ["deepercluster.sh", "deepercluster_imagenet.sh", "rotnet.sh"]
PUBLISHED = ["swav.sh", "deepclusterv2.sh", *TWO_LEVEL]


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


def changed_by_a_resume(script: str, data: Path, exp: Path) -> set[str]:
    """The settings that a resumed run of a recipe doesn't keep, though they are not given."""
    before = json.loads((exp / "config.json").read_text())["settings"]
    resume = ["--resume", str(exp / "checkpoint.pth.tar")]
    args = vars(main.parse_args(flags_of(script, *resume, DIR=str(data), EPOCHS="2")))
    return {name for name in before if before[name] != args[name]} - set(OWN_SETTINGS)


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
    at = data / "train", tmp_path / "exp"
    assert changed_by_a_resume("recipes/resnet50.sh", *at) == {"epochs"}

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


def test_deeperclusters_evaluations_of_a_released_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "vgg16", vgg_like)
    weights = {n: w for n, w in vgg_like(sobel=True).state_dict().items() if "top_layer" not in n}
    renamed = {
        f"module.{n}" if n.startswith("sobel") else f"module.body.{n}": w
        for n, w in weights.items()
    }
    torch.save({"state_dict": renamed}, tmp_path / "ours.pth")
    variables = {"DATA": str(data), "MODEL": str(tmp_path / "ours.pth")}
    small = [*HERE, *["--size", "32", "--epochs", "1", "--batch_size", "8"]]
    for protocol in ("deepercluster", "deepercluster-places205"):
        command = flags_of("recipes/eval_linear_deepercluster.sh", PROTOCOL=protocol, **variables)
        exp = ["--exp", str(tmp_path / protocol)]
        eval_linear.main(eval_linear.parse_args([*command, *small, *exp]))
        report = json.loads((tmp_path / protocol / "linear.json").read_text())
        assert len(report["results"]["trained"]) == len(report["settings"]["rates"]) == 13
        assert f"{protocol}: " in report["protocol"]
    voc = {**variables, "DATA": str(write_voc(tmp_path, trainval=20, test=20))}
    command = flags_of("recipes/eval_linear_deepercluster.sh", PROTOCOL="deepercluster-voc", **voc)
    eval_linear.main(eval_linear.parse_args([*command, *small, "--exp", str(tmp_path / "voc")]))
    report = json.loads((tmp_path / "voc" / "linear.json").read_text())
    assert [*report["results"]["trained"]] == ["conv13"]
    assert report["settings"]["rates"] == {"conv13": 0.02}
    own = {"PROTOCOL": "deepercluster", "PERCENT": "50"}
    command = flags_of("recipes/eval_semisup.sh", "--sobel2rgb", **own, **variables)
    exp = ["--exp", str(tmp_path / "tuned")]
    eval_semisup.main(eval_semisup.parse_args([*command, *small, *exp]))
    settings = json.loads((tmp_path / "tuned" / "semisup.json").read_text())["settings"]
    assert (settings["protocol"], settings["percent"], settings["wd"]) == ("deepercluster", 50, -4)
    tuned = load_model(tmp_path / "tuned" / "network_trained.pth.tar")
    assert (tuned.margin, tuned.sobel, tuned.arch) == (1, None, "vgg16")


@pytest.mark.parametrize(("part", "stepsize", "wd"), [("1", 20_000, 1e-5), ("0", 10_000, 1e-4)])
def test_deeperclusters_voc_recipe(part: str, stepsize: int, wd: float) -> None:
    command = flags_of("recipes/eval_voc_deepercluster.sh", VOCDIR="v", MODEL="m", FC6_8=part)
    args = eval_voc_classif.parse_args(command)
    assert (args.split, args.fc6_8, args.nit) == ("trainval", int(part), 150_000)
    assert (args.stepsize, args.wd, args.max_scale) == (stepsize, wd, 1.0)


@pytest.mark.parametrize(
    ("size", "arch"), [("32", "resnet18_small"), ("64", "resnet18"), ("96", "resnet18")]
)
def test_the_recipe_for_small_images_has_a_stem_to_match(size: str, arch: str) -> None:
    args = main.parse_args(flags_of("recipes/small.sh", DIR="images", SIZE=size))
    assert (args.arch, args.size, args.nmb_cluster) == (arch, int(size), 100)


@pytest.mark.parametrize("script", SMALL)
def test_recipes_for_small_images(script: str, data: Path, tmp_path: Path) -> None:
    short = SHORTENED.get(script, [])
    settings = pretrain(f"recipes/{script}", data / "train", tmp_path / "exp", *short)
    asked = {"arch": "resnet18_small", "size": 32, "probe": 1, **SMALL[script]}
    assert asked.items() <= settings.items()
    assert read_metrics(tmp_path / "exp")[0]["knn_top1"]["10"] > 0
    at = data / "train", tmp_path / "exp"
    assert changed_by_a_resume(f"recipes/{script}", *at) == {"epochs"}


def test_small_runs_of_both_kinds_of_clusters_see_the_images_equally_often() -> None:
    deep, deeper = (
        main.parse_args(flags_of(f"recipes/{script}", DIR="images"))
        for script in ("small.sh", "deepercluster_small.sh")
    )
    assert deep.epochs * deep.reassign == deeper.epochs
    assert (deep.nmb_cluster, deep.batch) == (deeper.nmb_cluster, deeper.batch)


@pytest.mark.parametrize("script", ["swav_small.sh", "deepclusterv2_small.sh"])
@pytest.mark.parametrize("size", ["32", "64", "96"])
def test_crops_of_small_images_fit_the_network(script: str, size: str) -> None:
    args = main.parse_args(flags_of(f"recipes/{script}", DIR="images", SIZE=size))
    assert (args.nmb_crops, args.size_crops) == ([2], [int(size)])
    assert all(accepts_size(args.arch, side) for side in args.size_crops)
    assert args.optimizer == "sgd"
    assert args.nmb_cluster is None, "main.py chooses it"
    main.METHODS[args.method].fit_settings(args, 3000)
    main.METHODS[args.method].check_flags(args, 3000, torch.device("cpu"))


LARGE = {
    **{"batch": 4096, "lr": 4.8, "final_lr": 0.0048, "warmup_epochs": 10, "start_warmup": 0.3},
    **{"epochs": 400, "arch": "resnet50", "feat_dim": 128, "hidden_mlp": 2048, "temperature": 0.1},
    **{"wd": -6.0, "momentum": 0.9, "optimizer": "lars", "crops_for_assign": [0, 1]},
}
SWAV = {
    **LARGE,
    **{"nmb_prototypes": 3000, "freeze_prototypes_niters": 313, "queue_length": 0},
    **{"epsilon": 0.05, "sinkhorn_iterations": 3},
}
QUEUE = {
    **SWAV,
    **{"batch": 256, "lr": 0.6, "final_lr": 0.0006, "warmup_epochs": 0},
    "start_warmup": 0.6,  # without effect
    **{"queue_length": 3840, "epoch_queue_starts": 15, "freeze_prototypes_niters": 5005},
}
WIDE = {**SWAV, "arch": "resnet50w2", "hidden_mlp": 8192}
V2 = {**LARGE, "nmb_prototypes": [3000, 3000, 3000]}
BEST_V2 = {**V2, "epochs": 800}
TWO = ((2,), (224,), (0.08,), (1.0,))


def multi(count: int) -> Crops:
    return Crops((2, count), (224, 96), (0.14, 0.05), (1.0, 0.14))


@pytest.mark.parametrize(
    ("script", "variables", "crops", "published"),
    [
        ("swav.sh", {}, multi(6), SWAV),
        *(("swav.sh", {"EPOCHS": e}, multi(6), {**SWAV, "epochs": int(e)}) for e in ("100", "800")),
        ("swav.sh", {"CROPS": "2x224"}, TWO, SWAV),
        ("swav.sh", {"BATCH": "256", "EPOCHS": "200"}, multi(6), {**QUEUE, "epochs": 200}),
        ("swav.sh", {"BATCH": "256"}, multi(6), QUEUE),
        ("swav.sh", {"ARCH": "resnet50w2"}, multi(4), WIDE),
        ("deepclusterv2.sh", {}, ((2, 4), (160, 96), (0.08, 0.05), (1.0, 0.14)), V2),
        ("deepclusterv2.sh", {"CROPS": "2x224"}, TWO, V2),
        ("deepclusterv2.sh", {"CROPS": "2x224+6x96", "EPOCHS": "800"}, multi(6), BEST_V2),
    ],
)
def test_on_imagenet_the_settings_are_the_published_ones(
    script: str, variables: dict[str, str], crops: Crops, published: dict[str, Any]
) -> None:
    args = main.parse_args(flags_of(f"recipes/{script}", DIR="images", **variables))
    main.METHODS[args.method].fit_settings(args, 1_281_167)
    assert crops_of(args) == crops
    assert {name: getattr(args, name) for name in published} == published


YFCC = {
    **{"arch": "vgg16", "sobel": True, "lr": 0.1, "wd": -5.0, "momentum": 0.9, "epochs": 100},
    **{"batch": 3072, "nmb_cluster": 320_000, "super_classes": 16, "rotnet": True},
    **{"reassignment": 3, "niter": 10, "dim_pca": 4096, "size_dataset": None},
}
AS_IMAGENET = {**YFCC, "batch": 256, "lr": 0.05, "nmb_cluster": 10_000}
ROTATIONS = {
    **{"arch": "vgg16", "sobel": False, "lr": 0.1, "wd": -5.0, "momentum": 0.9, "epochs": 100},
    **{"super_classes": 4, "nmb_cluster": 1, "rotnet": True},
}


@pytest.mark.parametrize(
    ("script", "images", "settings"),
    [
        ("deepercluster.sh", 95_920_149, YFCC),
        ("deepercluster_imagenet.sh", 1_281_167, AS_IMAGENET),
        ("rotnet.sh", 1_281_167, ROTATIONS),
    ],
)
def test_deeperclusters_settings_are_those_of_its_release(
    script: str, images: int, settings: dict[str, Any]
) -> None:
    args = main.parse_args(flags_of(f"recipes/{script}", DIR="images"))
    method = main.METHODS[args.method]
    method.fit_settings(args, images)
    method.check_flags(args, images, torch.device("cpu"))
    assert {name: getattr(args, name) for name in settings} == settings
    other = "--sobel" if script == "rotnet.sh" else ""
    args = main.parse_args(flags_of(f"recipes/{script}", DIR="images", SOBEL=other))
    assert args.sobel != settings["sobel"]


def test_deepercluster_starts_from_the_network_of_rotnet(data: Path, tmp_path: Path) -> None:
    rotnet, deeper = tmp_path / "rotnet", tmp_path / "deeper"
    pretrain("recipes/rotnet.sh", data / "train", rotnet, "--nmb_cluster", "1", SOBEL="--sobel")
    init = ["--init", str(rotnet / "checkpoint.pth.tar")]
    given = flags_of("recipes/deepercluster.sh", *init, DIR=str(data / "train"))
    assert "--arch" not in given, "the file has it"
    short = ["--batch", "16", "--dim_pca", "auto", "--size", "32", "--exp", str(deeper)]
    main.main(main.parse_args([*given, *TINY, *short]))
    assert json.loads((deeper / "config.json").read_text())["settings"]["sobel"]
    assert "took " in (deeper / "log.txt").read_text()


RECIPES = [f"recipes/{script}" for script in ("resnet50.sh", *SMALL, *PUBLISHED)]


@pytest.mark.parametrize("script", ["main.sh", *RECIPES])
def test_resume_auto_starts_with_all_settings_of_the_recipe(script: str) -> None:
    at = {"DIR": "/images", "EXP": "/exp"}
    assert flags_of(script, "--resume", "auto", **at) == [
        *flags_of(script, **at),
        "--resume",
        "auto",
    ]


@pytest.mark.parametrize("flags", [[], ["--method", "swav"], ["--method=swav"]])
def test_main_sh_leaves_the_settings_of_another_method_to_main_py(flags: list[str]) -> None:
    variables = {} if flags else {"METHOD": "swav"}
    args = main.parse_args(flags_of("main.sh", *flags, DIR="images", **variables))
    assert (args.method, args.lr, args.nmb_cluster, args.sobel) == ("swav", None, None, False)
    assert (args.wd, args.epochs) == (-6.0, 100)
    variables |= {"SOBEL": "--sobel", "K": "20", "LR": "0.3"}
    args = main.parse_args(flags_of("main.sh", *flags, DIR="images", **variables))
    assert (args.lr, args.nmb_cluster, args.sobel) == (0.3, 20, True)


@pytest.mark.parametrize(
    ("script", "variables", "message"),
    [
        ("small.sh", {"DIR": "d", "SIZE": "big"}, "SIZE=big: not a whole number"),
        ("small.sh", {}, "DIR: name a folder of images"),
        *((script, {}, "DIR: name a folder of images") for script in ("resnet50.sh", *PUBLISHED)),
        ("swav_small.sh", {}, "DIR: name a folder of images"),
        ("deepclusterv2_small.sh", {}, "DIR: name a folder of images"),
        ("deepercluster_small.sh", {}, "DIR: name a folder of images"),
        ("small.sh", {"DIR": "d", "METHOD": "moco"}, "METHOD=moco: give deepcluster, "),
        ("swav.sh", {"DIR": "d", "CROPS": "2x160"}, "CROPS=2x160: give 2x224, "),
        ("deepclusterv2.sh", {"DIR": "d", "CROPS": "4"}, "CROPS=4: give 2x160+4x96, "),
    ],
)
def test_bad_settings_are_one_line(script: str, variables: dict[str, str], message: str) -> None:
    env = {"PATH": "/usr/bin:/bin", "PYTHON": "echo", **variables}
    command = ["bash", f"recipes/{script}"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"{script}: error: {message}")

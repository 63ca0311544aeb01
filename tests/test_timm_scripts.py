"""Every script with `--model timm:NAME`: from a small network of timm's to its results."""

import csv
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import ErrorLine, read_file, write_images
from voc_tree import write_voc

import assign
import eval_knn
import eval_linear
import eval_semisup
import eval_svm
import extract_features
import main
from checkpoints.checkpoint import read_checkpoint
from checkpoints.networks import init_checkpoint, open_network, weights_in
from data.decode import read_pixels
from data.transforms import central_crop, to_input
from system import cli
from system.errors import InputError
from tools import compare
from visu import activ_retrieval, feature_map

CPU = ["--workers", "0", "--device", "cpu", "--precision", "fp32"]
NETWORK = "timm:test_efficientnet"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split, count in (("train", 7), ("val", 5)):
        for label in "ab":
            write_images(tmp_path / "data" / split / label, count, seed=ord(label))
    return tmp_path / "data"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.fixture
def model(weights: Path) -> str:
    return f"{NETWORK}@{weights}"


def run(script: ModuleType, *words: object) -> None:
    assert cli.run(script.main, script.parse_args, [*map(str, words), *CPU]) == 0


def settings_of(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())["settings"])


def embeddings(weights: Path, images: list[Path], size: int = 64) -> np.ndarray:
    """By timm's network, on the images in its own view."""
    body = timm.create_model("test_efficientnet", num_classes=0).eval()
    body.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    crop = open_network(Path(f"{NETWORK}@none"), None, size).model.crop
    seen = [central_crop(size, crop)(read_file(read_pixels, path)) for path in images]
    with torch.inference_mode():
        return body(to_input(torch.stack(seen), torch.device("cpu"))).numpy()


def test_features(data: Path, weights: Path, model: str, tmp_path: Path) -> None:
    run(extract_features, model, data / "val", "--size", 64, "--out", tmp_path / "out")
    found = np.load(tmp_path / "out/features.npy")
    expected = embeddings(weights, sorted((data / "val").rglob("*.png")))
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=2e-3)
    found = settings_of(tmp_path / "out/features.json")
    assert (found["arch"], found["weights"]) == (NETWORK, str(weights))
    assert found["licence"] == "not known (timm's own weights: apache-2.0)"
    assert found["preprocessing"]["interpolation"] == "bicubic"
    run(
        extract_features, model, data / "val", "--size", 64, "--conv", 2, "--pool", "average",
        "--out", tmp_path / "conv",
    )  # fmt: skip
    assert np.load(tmp_path / "conv/features.npy").shape[0] == 10


def test_clusters_are_found_and_used_again(data: Path, model: str, tmp_path: Path) -> None:
    """Without whitening, which timm's networks do not need."""
    kept, first, again = (tmp_path / name for name in ("c.pth", "first.csv", "again.csv"))
    run(
        assign, model, data / "train", "--size", 64, "--recluster", 2, "--out", first,
        "--save-clusters", kept,
    )  # fmt: skip
    run(assign, model, data / "train", "--size", 64, "--clusters", kept, "--out", again)
    with first.open() as one, again.open() as two:
        assert list(csv.reader(one)) == list(csv.reader(two))
    assert torch.load(kept, weights_only=True)["clusters"]["pca_matrix"] is None


def test_evaluations(data: Path, model: str, tmp_path: Path) -> None:
    base = ["--data", data, "--model", model, "--size", "32", "--untrained"]
    run(eval_knn, *base, "--exp", tmp_path / "knn", "--k", "1")
    linear = ["--protocol", "modelzoo-avgpool", "--epochs", "1"]
    run(eval_linear, *base, "--exp", tmp_path / "linear", *linear)
    run(eval_linear, *base, "--exp", tmp_path / "layers", "--conv", "1", "3", "--epochs", "1")
    run(eval_linear, *base, "--exp", tmp_path / "simple", "--protocol", "simple")
    run(eval_semisup, *base, "--exp", tmp_path / "semisup", "--epochs", "1", "--batch_size", "8")
    files = [f"{name}/linear.json" for name in ("linear", "layers", "simple")]
    for file in ("knn/knn.json", "semisup/semisup.json", *files):
        found = json.loads((tmp_path / file).read_text())
        assert found["settings"]["arch"] == NETWORK
        assert found["settings"]["weights"].endswith("weights.pth")
        assert found["results"].keys() == {"trained", "untrained"}
    tuned = f"{NETWORK}@{tmp_path}/semisup/network_trained.pth.tar"
    before, after = (open_network(Path(name), None, 32).model for name in (model, tuned))
    kernel = "body.conv_stem.weight"
    assert not torch.equal(before.state_dict()[kernel], after.state_dict()[kernel])


def test_svms(model: str, tmp_path: Path) -> None:
    voc = write_voc(tmp_path, trainval=80, test=40)
    flags = ["--size", "32", "--conv", "5", "--costs", "1", "--k", "--jobs", "1"]
    run(eval_svm, "--vocdir", voc.parent, "--model", model, *flags, "--exp", tmp_path / "svm")
    assert settings_of(tmp_path / "svm/svm.json")["arch"] == NETWORK


def test_a_comparison(data: Path, model: str, tmp_path: Path) -> None:
    run(
        compare, model, f"{NETWORK}@none", "--data", data, "--size", 32, "--seeds", 0,
        "--out", tmp_path / "out",
    )  # fmt: skip
    rows = json.loads((tmp_path / "out/compare.json").read_text())["results"]["rows"]
    _, untrained, trained, none = rows
    assert [row["name"] for row in rows[2:]] == [model, f"{NETWORK}@none"]
    assert none["figures"] == untrained["figures"] != trained["figures"]
    found = settings_of(tmp_path / "out/compare.json")["networks"]
    assert found[f"{NETWORK}@none"]["weights"] == "random"


def test_a_map(data: Path, model: str, tmp_path: Path) -> None:
    run(feature_map, model, data, "--out", tmp_path / "map.html", "--batch", 8)
    assert "timm:test_efficientnet" in (tmp_path / "map.html").read_text()


def test_a_training_starts_from_an_architecture_of_ours(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18").state_dict()
    torch.save(theirs, tmp_path / "w.pth")
    name = f"timm:resnet18@{tmp_path / 'w.pth'}"
    state = init_checkpoint(Path(name), None)
    assert (state["arch"], state["std"]) == ("resnet18", (0.229, 0.224, 0.225))
    for weight in ("conv1.weight", "layer4.1.bn2.running_var"):
        assert torch.equal(state["state_dict"][f"features.{weight}"], theirs[weight])
    args = main.parse_args(["images", "--init", name])
    assert (args.arch, args.sobel) == ("resnet18", False)
    with pytest.raises(InputError, match=r"^--init timm:test_vit@none: .* none of the .* alexnet"):
        init_checkpoint(Path("timm:test_vit@none"), None)


def test_weights_in_files_of_other_programs(tmp_path: Path) -> None:
    own, mean = {"a": torch.zeros(1)}, {"a": torch.ones(1)}
    for content, expected in (
        (own, own),
        ({"state_dict": own, "epoch": 3}, own),
        ({"model": own, "model_ema": mean}, mean),
    ):
        torch.save(content, tmp_path / "w.pth")
        assert weights_in(tmp_path / "w.pth") == expected
    for wrong in ({"state_dict": {"a": 3}}, {}, [torch.ones(1)]):
        torch.save(wrong, tmp_path / "w.pth")
        with pytest.raises(InputError, match=r"w\.pth: holds no table of weights by name"):
            weights_in(tmp_path / "w.pth")


def test_bad_input(data: Path, model: str, tmp_path: Path, error_line: ErrorLine) -> None:
    out = ["--out", tmp_path / "out"]
    line = error_line(extract_features, f"{NETWORK}s@none", data, *out)
    assert "timm:test_efficientnets: timm" in line
    assert "nearest names: test_efficientnet, " in line
    line = error_line(extract_features, f"timm:test_vit{model[len(NETWORK) :]}", data, *out)
    assert "weights.pth: does not fit timm:test_vit: missing: cls_token" in line
    line = error_line(extract_features, f"{NETWORK}@{tmp_path}/none.pth", data, *out)
    assert line.endswith("none.pth: cannot read this checkpoint: No such file or directory")
    line = error_line(eval_knn, "--data", data, "--model", model)
    assert line.endswith(f"--model {model}: has no folder for the results; give one as --exp")
    line = error_line(extract_features, model, data, *out, "--key", "teacher")
    assert "--key teacher: names a network in a checkpoint" in line
    line = error_line(assign, model, data, "--size", 64)
    assert "holds no clusters; give --recluster K" in line
    line = error_line(eval_linear, "--data", data, "--model", model, "--conv", 6, "--exp", "x")
    assert f"--conv 6: {NETWORK} has conv layers 1 to 5" in line
    line = error_line(
        eval_semisup, "--data", data, "--model", model, "--exp", "x", "--sobel2rgb", *CPU
    )
    assert f"--sobel2rgb: {NETWORK} has no Sobel filters here; leave it out" in line
    line = error_line(activ_retrieval, "--data", data, "--model", model, "--exp", "x", *CPU)
    assert "finds images for the filters of checkpoints only" in line
    with pytest.raises(InputError, match="cannot read"):
        read_checkpoint(Path(model))
    assert not (tmp_path / "out").exists()

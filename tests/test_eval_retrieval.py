"""The retrieval protocol from files to mAP, against brute force; its stages; its command line."""

import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import read_file, tiny
from retrieval_layout import (
    BOX,
    BUILDINGS,
    revisited_truth,
    write_data_sets,
    write_revisited,
    write_views,
)
from sklearn.decomposition import PCA

import eval_retrieval
from checkpoints.checkpoint import save_checkpoint
from data.decode import read_pixels
from data.resized import resize_long_side
from data.retrieval import find_retrieval
from eval_retrieval import average_precision, evaluate
from evaluation import retrieval
from evaluation.rmac import get_rmac_region_coordinates
from models import MODELS, ConvNet
from system.cores import allowed_cores
from system.device import select_compute
from system.errors import InputError
from system.normalisation import IMAGENET_MEAN, IMAGENET_STD

CPU = select_compute("cpu", "fp32")
SETTINGS: dict[str, Any] = {"S": 64, "L": 2, "n_pca": 6, "compute": CPU, "workers": 0}
ROOT = Path(__file__).parent.parent


@pytest.fixture
def both(tmp_path: Path) -> Path:
    return write_data_sets(tmp_path / "sets")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ConvNet:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    torch.manual_seed(0)
    return tiny(sobel=True)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images in each pass of the network so far."""
    counts: list[int] = []
    original = retrieval.forward_pass

    def counting(loader: Any, *args: Any, **options: Any) -> Any:
        counts.append(len(loader))
        return original(loader, *args, **options)

    monkeypatch.setattr(retrieval, "forward_pass", counting)
    return counts


def regions_of(
    model: ConvNet, path: Path, size: int, box: tuple[float, ...] | None = None
) -> np.ndarray:
    """Regional vectors `(R, C)` of an image or of a box in it, one region at a time."""
    pixels = read_file(read_pixels, path)
    scale = size / max(pixels.shape[1:])
    pixels = resize_long_side(pixels, size)
    if box is not None:
        x1, y1, x2, y2 = (round(edge * scale) for edge in box)
        pixels = pixels[:, y1:y2, x1:x2]
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (IMAGENET_MEAN, IMAGENET_STD))
    assert model.sobel is not None
    with torch.no_grad():
        maps = model.eval().features[:-1](model.sobel(((pixels / 255 - mean) / std)[None]))[0]
    rows = []
    for x, y, w, h in get_rmac_region_coordinates(maps.shape[1], maps.shape[2], 2):
        row = maps[:, y : y + h, x : x + w].flatten(1).max(dim=1).values.numpy()
        rows.append(row / np.linalg.norm(row))
    return np.array(rows)


def scores_by_hand(model: ConvNet, both: Path, sizes: list[int]) -> np.ndarray:
    """Scores `(Q, N)` on Oxford, with scikit-learn's whitening of Paris."""
    paris = [path for path in sorted((both / "Paris").rglob("*.jpg")) if "louvre" not in path.name]
    other = np.concatenate([regions_of(model, path, s) for s in sizes for path in paris])
    pca = PCA(6, whiten=True).fit(other)

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)

    def vector(path: Path, box: tuple[float, ...] | None = None) -> np.ndarray:
        found = (pca.transform(regions_of(model, path, s, box)) for s in sizes)
        return unit(np.mean([unit(unit(white).sum(axis=0)) for white in found], axis=0))

    jpg = both / "Oxford" / "jpg"
    database = np.array([vector(path) for path in sorted(jpg.iterdir())])
    queries = np.array([vector(jpg / f"{name}_000000.jpg", BOX) for name in BUILDINGS])
    return queries @ database.T


def stored(folder: Path, stage: str) -> dict[str, np.ndarray]:
    with np.load(folder / f"{stage}.npz") as file:
        return dict(file)


@pytest.mark.parametrize("multires", [False, True])
def test_scores_equal_brute_force(
    both: Path, tmp_path: Path, model: ConvNet, monkeypatch: pytest.MonkeyPatch, multires: bool
) -> None:
    assert eval_retrieval.MULTIRES == (550, 800, 1050)
    monkeypatch.setattr(eval_retrieval, "MULTIRES", (48, 64, 80))
    expected = scores_by_hand(model, both, [48, 64, 80] if multires else [64])
    evaluate(model, find_retrieval(both, "Oxford"), tmp_path / "out", multires=multires, **SETTINGS)
    queries, database = (
        stored(tmp_path / "out", s)["vectors"] for s in ("q_features", "db_features")
    )
    assert queries.dtype == database.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(database, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(queries @ database.T, expected, atol=0.01)
    assert np.ptp(expected) > 0.5, "else the test proves little"


def test_aps_follow_from_the_scores(both: Path, tmp_path: Path, model: ConvNet) -> None:
    data = find_retrieval(both, "Oxford")
    result = evaluate(model, data, tmp_path / "out", **SETTINGS)["Oxford5k"]
    queries, database = (
        stored(tmp_path / "out", s)["vectors"] for s in ("q_features", "db_features")
    )
    names = sorted(path.stem for path in (both / "Oxford" / "jpg").iterdir())
    for building, scores in zip(BUILDINGS, queries @ database.T, strict=True):
        ranked = [names[i] for i in sorted(range(14), key=lambda i: -scores[i])]
        good = [f"{building}_{view:06d}" for view in (0, 1)]
        expected = average_precision(ranked, good, [f"{building}_000002"])
        assert result["AP"][f"{building}_1"] == pytest.approx(expected, abs=1e-12)
    assert result["mAP"] == pytest.approx(np.mean(list(result["AP"].values())))
    assert 0.2 < result["mAP"] < 1
    assert result["images"] == 14


def test_the_whitening_is_fitted_on_the_other_data_set(
    both: Path, tmp_path: Path, model: ConvNet
) -> None:
    evaluate(model, find_retrieval(both, "Oxford"), tmp_path / "out", **SETTINGS)
    paths = [path for path in sorted((both / "Paris").rglob("*.jpg")) if "louvre" not in path.name]
    expected = np.concatenate([regions_of(model, path, 64) for path in paths])
    regions = stored(tmp_path / "out", "extract_train")["regions"]
    assert regions.dtype == np.float16
    np.testing.assert_allclose(regions, expected, atol=1e-3)
    pca = stored(tmp_path / "out", "train_pca")
    reference = PCA(6, whiten=True).fit(regions.astype(np.float64))
    white = (regions.astype(np.float64) - pca["mean"]) @ pca["matrix"]
    theirs = reference.transform(regions.astype(np.float64))
    theirs *= np.sqrt(len(regions) / (len(regions) - 1))  # they divide by n − 1, we by n
    theirs *= np.sign((white * theirs).sum(axis=0))
    np.testing.assert_allclose(white, theirs, atol=1e-3)


def test_expansions_follow_from_the_vectors(both: Path, tmp_path: Path, model: ConvNet) -> None:
    data, out = find_retrieval(both, "Oxford"), tmp_path / "out"
    plain, expanded = (
        evaluate(model, data, out, **SETTINGS, aqe=aqe, dbe=dbe)["Oxford5k"]["AP"]
        for aqe, dbe in ((0, 0), (2, 3))
    )
    queries, database = (stored(out, s)["vectors"] for s in ("q_features", "db_features"))

    def mean_with_the_best(rows: np.ndarray, others: np.ndarray, count: int) -> np.ndarray:
        best = np.argsort(-(rows @ others.T), axis=1)[:, :count]
        summed = others[best].sum(axis=1)
        return summed / np.linalg.norm(summed, axis=1, keepdims=True)

    images = mean_with_the_best(database, database, 4)  # itself comes first, then three
    best = np.argsort(-(queries @ images.T), axis=1)[:, :2]
    order = np.argsort(-((queries + images[best].sum(axis=1)) @ images.T), axis=1)
    benchmark = data.benchmarks[0]
    for number, query in enumerate(benchmark.queries):
        ranked = [benchmark.database[i] for i in order[number]]
        expected = average_precision(ranked, benchmark.good[number], benchmark.junk[number])
        assert expanded[query.name] == pytest.approx(expected)
    assert expanded != plain


def test_the_revisited_benchmarks_use_the_same_features(
    both: Path, tmp_path: Path, model: ConvNet, passes: list[int]
) -> None:
    write_revisited(both / "Oxford")
    results = evaluate(model, find_retrieval(both, "Oxford"), tmp_path / "out", **SETTINGS)
    assert passes == [10, 14, 3], "training images, images, and the queries of both once"
    easy, medium, hard = (results[f"ROxford5k {setup}"] for setup in ("Easy", "Medium", "Hard"))
    assert set(easy) == {"mAP", "mP@1", "mP@5", "mP@10", "images", "AP"}
    assert "mP@1" not in results["Oxford5k"]
    assert list(easy["AP"]) == ["all_souls_000000"]
    assert list(hard["AP"]) == ["all_souls_000000", "ashmolean_000000"]
    assert easy["images"] == 9

    queries, database = (
        stored(tmp_path / "out", s)["vectors"] for s in ("q_features", "db_features")
    )
    names = sorted(path.stem for path in (both / "Oxford" / "jpg").iterdir())
    scores = (queries @ database.T)[0]
    order = sorted(range(14), key=lambda i: -scores[i])
    ranked = [names[i] for i in order if names[i][-1] != "0" and "radcliffe" not in names[i]]
    first, second, third = (f"all_souls_{view:06d}" for view in (1, 2, 3))
    assert len(ranked) == 9
    for result, good, junk in (
        (easy, {first}, {second, third}),
        (medium, {first, second}, {third}),
        (hard, {second}, {first, third}),
    ):
        expected = average_precision(ranked, good, junk)
        assert result["AP"]["all_souls_000000"] == pytest.approx(expected, abs=1e-12)
    assert hard["mAP"] == pytest.approx(np.mean(list(hard["AP"].values())))

    truth = revisited_truth()
    write_revisited(
        both / "Oxford", {**truth, "qimlist": truth["qimlist"][1:], "gnd": truth["gnd"][1:]}
    )
    results = evaluate(model, find_retrieval(both, "Oxford"), tmp_path / "out", **SETTINGS)
    assert results["ROxford5k Hard"]["AP"] == {"ashmolean_000000": hard["AP"]["ashmolean_000000"]}


def test_a_stage_runs_again_only_if_its_settings_change(
    both: Path,
    tmp_path: Path,
    model: ConvNet,
    passes: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(**changed: Any) -> list[int]:
        passes.clear()
        capsys.readouterr()
        data = find_retrieval(both, "Oxford")
        evaluate(model, data, tmp_path / "out", **{**SETTINGS, **changed})
        return passes

    everything, vectors = [10, 14, 3], [14, 3]
    assert run() == everything
    said = capsys.readouterr().err.splitlines()
    lines = [line for line in said if not line.startswith("note: ")]  # on lab/*.txt
    assert [line.split(":")[0] for line in lines] == list(eval_retrieval.STAGES[:-1])
    assert lines[0].endswith("extract_train.npz written, as it was missing")
    assert run() == []
    assert "q_features.npz, stored before" in capsys.readouterr().err
    assert run(aqe=1, dbe=2) == []
    assert run(n_pca=5) == vectors
    assert (
        "db_features.npz written, as it was made with other settings (n_pca 6 → 5)"
        in capsys.readouterr().err
    )
    assert run(n_pca=5, L=1) == everything
    assert run(n_pca=5, S=56) == everything
    assert run(compute=select_compute("cpu", "bf16")) == everything
    assert run() == everything

    box = both / "Oxford" / "lab" / "keble_1_query.txt"
    box.write_text(box.read_text().replace("4.0", "5.0"))
    assert run() == [3], "a query's box"
    write_views(both / "Oxford" / "jpg", "trinity", 99, 1)
    assert run() == [15, 3], "an image"
    (both / "Paris" / "eiffel" / "paris_eiffel_000004.jpg").unlink()
    assert run() == [9, 15, 3], "a training image"
    with torch.no_grad():
        next(model.features.parameters()).mul_(1.01)
    assert run() == [9, 15, 3], "the weights"
    path = tmp_path / "out" / "q_features.npz"
    path.write_bytes(b"PK\3\4 cut off")
    assert run() == [3]
    assert "q_features.npz written, as it was damaged" in capsys.readouterr().err
    for foreign in ({"settings": "5"}, {"settings": "none"}, {"vectors": np.zeros(3)}):
        np.savez(path, **foreign)
        assert run() == [3]
    (tmp_path / "out" / "extract_train.npz").unlink()
    assert run() == [], "nothing needs it any more"


def test_a_single_stage_uses_the_stages_before_it(
    both: Path, tmp_path: Path, model: ConvNet, passes: list[int]
) -> None:
    data, out = find_retrieval(both, "Oxford"), tmp_path / "out"

    def run(stage: str, **changed: Any) -> dict[str, Any]:
        return evaluate(model, data, out, **{**SETTINGS, **changed}, stage=stage)

    for stage, before in (
        ("train_pca", "extract_train"),
        ("db_features", "train_pca"),
        ("eval", "db_features"),
    ):
        with pytest.raises(InputError, match=rf"{before}.npz: missing; first run --stage {before}"):
            run(stage)
    assert list(out.iterdir()) == [], "nothing half-written"
    for count, stage in enumerate(eval_retrieval.STAGES[:-1], 1):
        assert run(stage) == {}
        assert len(list(out.iterdir())) == count
    assert passes == [10, 14, 3]
    whole = evaluate(model, data, tmp_path / "other", **SETTINGS)
    assert run("eval") == whole
    with pytest.raises(
        InputError, match=r"extract_train.npz: made with other settings \(L 2 → 1\); first run"
    ):
        run("train_pca", L=1)


def test_fewer_components_than_n_pca_are_reported(
    both: Path, tmp_path: Path, model: ConvNet, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(model, find_retrieval(both, "Oxford"), tmp_path, **{**SETTINGS, "n_pca": 512})
    assert "16 components instead of --n_pca 512" in capsys.readouterr().err
    assert stored(tmp_path, "db_features")["vectors"].shape == (14, 16)


def test_an_interrupted_stage_stores_nothing(
    both: Path, tmp_path: Path, model: ConvNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = both / "Oxford" / "jpg" / "radcliffe_000001.jpg"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=rf"{path}: cannot read this image: the file is empty"):
        evaluate(model, find_retrieval(both, "Oxford"), tmp_path / "out", **SETTINGS)
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["extract_train.npz", "train_pca.npz"]


def test_nan_features_are_an_error(both: Path, tmp_path: Path, model: ConvNet) -> None:
    with torch.no_grad():
        next(model.features.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="its features are NaN or infinite"):
        evaluate(model, find_retrieval(both, "Oxford"), tmp_path, **SETTINGS)


def test_the_smallest_input_still_gives_a_map() -> None:
    for arch in MODELS:
        side = retrieval.smallest_input(arch)
        with torch.device("meta"):
            network = MODELS[arch]().eval()
            assert network.conv_features(torch.empty(1, 3, side, side), network.conv_layers).numel()
            with pytest.raises(RuntimeError):
                network.conv_features(torch.empty(1, 3, side - 1, side), network.conv_layers)


@pytest.fixture
def command(both: Path, tmp_path: Path, model: ConvNet) -> Callable[..., None]:
    """Runs the script, on Oxford by default."""
    checkpoint = tmp_path / "checkpoint.pth.tar"
    save_checkpoint(checkpoint, {"epoch": 1, "arch": "tiny", "state_dict": model.state_dict()})

    def run(*flags: str, name: str = "Oxford") -> None:
        base = f"--model {checkpoint} --dataset {both} --dataset_name {name} --S 64 --n_pca 6"
        rest = f"--temp_dir {tmp_path}/out --workers 0 --device cpu --precision fp32"
        argv = [*base.split(), *rest.split(), *flags]
        eval_retrieval.main(eval_retrieval.parse_args(argv))

    return run


def test_the_table_and_the_result_file(
    both: Path, tmp_path: Path, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    write_revisited(both / "Oxford")
    command("--aqe", "2")
    report = json.loads((tmp_path / "out" / "retrieval.json").read_text())
    assert set(report) == {"protocol", "settings", "versions", "results"}
    assert "trapezoid" in report["protocol"]
    settings = report["settings"]
    assert (settings["aqe"], settings["L"], settings["dataset_name"]) == (2, 3, "Oxford")
    classic = report["results"]["Oxford5k"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Oxford5k, 14 images (the whole of it has 5,063)"
    assert lines[1].split() == ["query", "AP"]
    assert lines[2].split() == ["all_souls_1", f"{classic['AP']['all_souls_1']:.4f}"]
    assert lines[5].split() == ["mAP", f"{classic['mAP']:.4f}"]
    assert lines[8].split() == ["query", "Easy", "Medium", "Hard"]
    assert lines[10].split()[:2] == ["ashmolean_000000", "–"]
    assert lines[12].split()[0] == "mP@1"
    assert lines[-1] == f"written to {tmp_path}/out/retrieval.json"


def test_every_flag_reaches_the_protocol(
    command: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(eval_retrieval, "evaluate", lambda *args, **options: given.update(options))
    flags = "--S 65 --L 4 --n_pca 7 --multires --aqe 5 --dbe 6 --stage eval --eval_binary /bin/sh"
    command(*flags.split(), "--workers", "3")
    expected = {"S": 65, "L": 4, "n_pca": 7, "multires": True, "aqe": 5, "dbe": 6, "stage": "eval"}
    rest = {"compute": CPU, "workers": 3, "eval_binary": Path("/bin/sh")}
    assert given == {**expected, **rest}


def test_a_single_stage_writes_no_result(command: Callable[..., None], tmp_path: Path) -> None:
    command("--stage", "extract_train")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["extract_train.npz"]


def test_paris_is_whitened_on_oxford(
    command: Callable[..., None], tmp_path: Path, passes: list[int]
) -> None:
    command(name="Paris")
    assert passes == [14, 10, 2]
    report = json.loads((tmp_path / "out" / "retrieval.json").read_text())
    assert list(report["results"]) == ["Paris6k"]


COMPUTE_AP = """#!{python}
import sys
prefix, ranked = sys.argv[1:]
read = lambda kind: open(f"{{prefix}}_{{kind}}.txt").read().split()
good, junk = {{*read("good"), *read("ok")}}, set(read("junk"))
area, recall, precision, seen, hits = 0.0, 0.0, 1.0, 0, 0
for name in open(ranked).read().split():
    if name not in junk:
        seen, hits = seen + 1, hits + (name in good)
        area += (hits / len(good) - recall) * (precision + hits / seen) / 2
        recall, precision = hits / len(good), hits / seen
print(area {error})
"""


def write_binary(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_binary_has_to_agree(command: Callable[..., None], tmp_path: Path) -> None:
    log = tmp_path / "asked"
    agreeing = COMPUTE_AP.format(python=sys.executable, error="")
    agreeing += f"print(prefix, file=open('{log}', 'a'))\n"
    agreeing = agreeing.replace("print(area )", "print('AP:', area)")
    command("--eval_binary", str(write_binary(tmp_path / "agreeing", agreeing)))
    assert [Path(line).name for line in log.read_text().split()] == [f"{b}_1" for b in BUILDINGS]
    (tmp_path / "out" / "retrieval.json").unlink()

    off = COMPUTE_AP.format(python=sys.executable, error="+ 0.002")
    for binary, message in (
        (write_binary(tmp_path / "off", off), "its AP of all_souls_1 is "),
        (
            write_binary(tmp_path / "mute", f"#!{sys.executable}\n"),
            "no AP of all_souls_1: status 0",
        ),
        (write_binary(tmp_path / "talks", "#!/bin/sh\necho done\n"), "status 0, 'done'"),
        (write_binary(tmp_path / "fails", "#!/bin/sh\necho 0.5; exit 3\n"), "status 3, '0.5'"),
        (tmp_path / "none", "not an executable file"),
    ):
        with pytest.raises(InputError, match=f"^--eval_binary .*{message}"):
            command("--eval_binary", str(binary))
    assert not (tmp_path / "out" / "retrieval.json").exists()


def test_the_binary_needs_the_classic_ground_truth(
    both: Path, command: Callable[..., None]
) -> None:
    shutil.rmtree(both / "Oxford" / "lab")
    write_revisited(both / "Oxford")
    with pytest.raises(InputError, match=f"^--eval_binary: needs lab/ in {both}/Oxford"):
        command("--eval_binary", "x")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--dataset none", "none: no ground truth of Oxford: neither lab/"),
        ("--train_dataset none", "none: no such folder or file"),
        ("--model none", "none: cannot read this checkpoint"),
        ("--temp_dir {}/file/out", "file/out: cannot write there: Not a directory"),
        ("--aqe 14", "--aqe 14: give fewer than the database's 14 images"),
        ("--dbe 14", "--dbe 14: give fewer than the database's 14 images"),
        (
            "--S 4",
            "000.jpg: at a long side of 4, it is 4 × 3 pixels, and the network takes 5 or more",
        ),
        ("--S 8", "000.jpg: at a long side of 8, the query's box is 4 × 4 pixels"),
        ("--stage eval", "db_features.npz: missing; first run --stage db_features"),
    ],
)
def test_bad_input_is_named(
    command: Callable[..., None], tmp_path: Path, flags: str, message: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=message):
        command(*flags.format(tmp_path).split())


def test_pretrained_loads_torchvisions_network(
    command: Callable[..., None], monkeypatch: pytest.MonkeyPatch, model: ConvNet, tmp_path: Path
) -> None:
    monkeypatch.setattr(eval_retrieval, "pretrained_vgg16", lambda: model)
    command("--model", "pretrained")
    assert (tmp_path / "out" / "retrieval.json").exists()


def run_script(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the shell script with a Python program that prints its arguments."""
    (tmp_path / "recipes").mkdir(exist_ok=True)
    for name in ("recipes/env.sh", "eval_retrieval.sh"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "eval_retrieval.py").write_text("import sys; print(*sys.argv[1:])")
    (tmp_path / "elsewhere").mkdir(exist_ok=True)
    return subprocess.run(
        ["bash", "../eval_retrieval.sh", "--aqe", "10"],
        cwd=tmp_path / "elsewhere", capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, **variables},
    )  # fmt: skip


def test_the_script_passes_its_variables_on(tmp_path: Path) -> None:
    done = run_script(tmp_path, DATASET="sets", MODEL="net.pth.tar", DATASET_NAME="Paris")
    assert done.returncode == 0, done.stderr
    here = tmp_path / "elsewhere"
    assert (
        done.stdout.split()
        == (
            f"--model {here}/net.pth.tar --dataset {here}/sets --dataset_name Paris --S 1024 --L 3 "
            "--n_pca 512 --temp_dir exp/retrieval/Paris "
            f"--workers {min(4, allowed_cores())} --aqe 10"
        ).split()
    )
    done = run_script(tmp_path, DATASET="/sets", TEMP_DIR="t", MODEL="pretrained", WORKERS="2")
    assert (
        done.stdout.split()
        == (
            "--model pretrained --dataset /sets --dataset_name Oxford --S 1024 --L 3 --n_pca 512 "
            f"--temp_dir {here}/t --workers 2 --aqe 10"
        ).split()
    )
    done = run_script(tmp_path, MODEL="pretrained")
    assert (done.returncode, done.stdout) == (2, "")
    assert "DATASET: name the folder" in done.stderr
    assert "MODEL: name" in run_script(tmp_path, DATASET="x").stderr

"""extract_features.py: the rows and their names, and extractions that are cut and continue."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import safetensors.numpy
import torch
from conftest import tiny, write_images
from packed_files import write_as
from PIL import Image
from runs import Server
from sklearn.decomposition import PCA
from torchvision import transforms

import extract_features
from checkpoints.checkpoint import load_model, save_checkpoint
from cluster.clusters import Clusters
from features import extraction
from features import rows as shard_files
from features.rows import Shards
from models import MODELS
from models.convnet import ConvNet
from system.errors import InputError

ROOT = Path(__file__).parents[1]
FIXED = "--size 32 --batch 8 --workers 0 --device cpu --precision fp32 --decode pil"

Extract = Callable[..., Path]


class CutError(Exception):
    """Ends an extraction in these tests."""


def cut_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut extractions after `count` shards; the next one is half written."""
    write, written = Shards.write, list[int]()

    def cut(shards: Shards, number: int, rows: np.ndarray, bad: dict[int, str]) -> None:
        if len(written) == count:
            (shards.folder / f".features_{number:05d}.npy.abcd_123.tmp").write_bytes(b"half")
            (shards.folder / f"bad_{number:05d}.json").write_text('{"0": "once"}')
            raise CutError
        write(shards, number, rows, bad)
        written.append(number)

    monkeypatch.setattr(Shards, "write", cut)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(MODELS, "tiny", tiny)
    torch.manual_seed(0)
    model = tiny(sobel=True).train()
    for _ in range(3):  # for batch norm's statistics
        model(torch.randn(8, 3, 32, 32))
    path = tmp_path / "checkpoint.pth.tar"
    save_checkpoint(path, {"epoch": 1, "arch": "tiny", "state_dict": model.state_dict()})
    return path


@pytest.fixture
def extract(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Extract:
    """Run the script on CPU in float32, perhaps cut after some shards; returns the folder."""
    monkeypatch.setattr(shard_files, "LENGTH", 8)  # images of a shard

    def run(
        data: Path, *flags: str, out: str = "out", model: Path = checkpoint, cut: int | None = None
    ) -> Path:
        folder = tmp_path / out
        command = [str(model), str(data), "--out", str(folder), *FIXED.split(), *flags]
        args = extract_features.parse_args(command)
        if cut is None:
            extract_features.main(args)
            return folder
        with monkeypatch.context() as patch:
            cut_after(cut, patch)
            with pytest.raises(CutError):
                extract_features.main(args)
        return folder

    return run


def rows_of(folder: Path) -> np.ndarray:
    return np.load(folder / "features.npy", mmap_mode="r")


def named(folder: Path) -> list[str]:
    return (folder / "images.txt").read_text().splitlines()


CHAIN = transforms.Compose(
    [
        transforms.Resize(37),  # 32 · 256 / 224
        transforms.CenterCrop(32),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


@torch.no_grad()
def by_hand(paths: list[str], forward: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    """Float32 features, one image at a time through torchvision's usual chain."""
    images = (CHAIN(Image.open(path).convert("RGB"))[None] for path in paths)
    return torch.cat([forward(image).flatten(1) for image in images]).numpy()


@pytest.mark.parametrize("flags", ["", "--dtype float32", "--format safetensors"])
def test_rows_are_the_embeddings_of_the_named_images(
    tree: Path, extract: Extract, checkpoint: Path, flags: str
) -> None:
    folder = extract(tree, *flags.split())
    if "safetensors" in flags:
        (rows,) = safetensors.numpy.load_file(folder / "features.safetensors").values()
    else:
        rows = rows_of(folder)
    expected = np.float32 if "float32" in flags else np.float16
    assert (rows.shape, rows.dtype) == ((40, 32), expected)
    assert sorted(named(folder)) == sorted(map(str, tree.rglob("*.png")))
    truth = by_hand(named(folder), load_model(checkpoint).eval().embedding)
    tolerance = 1e-5 if expected == np.float32 else 2e-3
    np.testing.assert_allclose(rows, truth, rtol=tolerance, atol=tolerance / 10)
    assert not list(folder.glob("*.part"))


def test_conv_layers_are_pooled_as_for_the_linear_probe_or_averaged(
    tree: Path, extract: Extract, checkpoint: Path
) -> None:
    model = load_model(checkpoint).eval()
    sobel = model.sobel
    assert sobel is not None
    folder = extract(tree, "--conv", "1", "--pool", "average", "--dtype", "float32")
    average, paths = rows_of(folder), named(folder)
    truth = by_hand(paths, lambda x: model.features[:3](sobel(x)).mean(dim=(2, 3)))
    np.testing.assert_allclose(average, truth, rtol=1e-5, atol=1e-6)
    probe = rows_of(extract(tree, "--conv", "2", "--dtype", "float32", out="probe"))
    grid = torch.nn.AdaptiveAvgPool2d(24)  # 16 channels · 24² = 9216
    truth = by_hand(paths, lambda x: grid(model.features[:7](sobel(x))))
    np.testing.assert_allclose(probe, truth, rtol=1e-5, atol=1e-6)


def test_alexnets_conv_layers_have_the_linear_probes_dimensions() -> None:
    with torch.device("meta"):
        model = MODELS["alexnet"]().eval()
    layers = [extraction.features_of(model, conv, "probe") for conv in range(1, 6)]
    dims = [extraction.dimensions(layer, 224, torch.device("meta")) for layer in layers]
    assert dims == [9600, 9216, 9600, 9600, 9216]


@pytest.mark.parametrize("count", [20, 40])
def test_whitening_is_scikit_learns_up_to_sign(
    tmp_path: Path, extract: Extract, checkpoint: Path, count: int
) -> None:
    """There are fewer images than dimensions in one case, and more in the other."""
    data = tmp_path / "some"
    write_images(data, count)
    folder = extract(data, "--whiten", "6", "--dtype", "float32")
    truth = by_hand(named(folder), load_model(checkpoint).eval().embedding)
    white = PCA(6, whiten=True, svd_solver="full").fit_transform(truth.astype(np.float64))
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    rows = rows_of(folder)
    assert rows.shape == (count, 6)
    signs = np.sign((rows * white).sum(axis=0))
    np.testing.assert_allclose(rows * signs, white, atol=1e-3)

    with np.load(folder / "whitening.npz") as found:  # for other images
        again = (truth - found["mean"]) @ found["matrix"]
    again /= np.linalg.norm(again, axis=1, keepdims=True)
    np.testing.assert_allclose(again, rows, atol=1e-4)


def results_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "features.json").read_text()))


def test_whitening_to_as_many_dimensions_as_suit_the_images(
    tree: Path, extract: Extract, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = extract(tree, "--whiten")
    assert rows_of(folder).shape == (40, 3)
    assert "note: whitened to 3 dimensions: 40 rows are too few" in capsys.readouterr().out
    found = results_of(folder)
    assert found["settings"]["key"]["whiten"] == "auto"
    assert found["results"]["whitened to"] == 3


def test_whitening_to_0_dimensions_only_normalises(tree: Path, extract: Extract) -> None:
    raw = rows_of(extract(tree, "--dtype", "float32", out="raw"))
    folder = extract(tree, "--whiten", "0", "--dtype", "float32")
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(rows_of(folder), expected, atol=1e-5)
    assert not (folder / "whitening.npz").exists()


def test_a_folder_of_as_many_dimensions_by_number_counts_as_done(
    tree: Path, extract: Extract, capsys: pytest.CaptureFixture[str]
) -> None:
    extract(tree, "--whiten", "3")
    extract(tree, "--whiten")
    assert "features.npy: is there already" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"made with other settings .whiten 3 → 4.; give another"):
        extract(tree, "--whiten", "4")
    extract(tree, "--whiten", "2", out="other")
    with pytest.raises(
        InputError, match=r"made with other settings .whiten 2 → auto.; give another"
    ):
        extract(tree, "--whiten", out="other")


def test_whitening_has_no_more_dimensions_than_the_rows_have_directions(
    tmp_path: Path, extract: Extract, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "few", 5)
    rows = rows_of(extract(tmp_path / "few", "--whiten", "32"))
    assert rows.shape == (5, 4)
    assert np.abs(rows).max(axis=0).all()
    assert "--whiten 32: the rows have only 4 directions\n" in capsys.readouterr().out


def test_the_checkpoints_own_whitening(tree: Path, train: Callable[..., Path]) -> None:
    """Each row's nearest centroid is its cluster."""
    exp = train(tree)
    out, model = exp / "features", exp / "checkpoint.pth.tar"
    command = f"{model} {tree} --out {out} --whiten checkpoint --device cpu --precision fp32"
    extract_features.main(extract_features.parse_args(f"{command} --workers 0".split()))
    plain = torch.load(model, weights_only=True)
    centroids = Clusters.from_plain(plain["clusters"]).centroids
    assigned = ((rows_of(out)[:, None].astype(np.float32) - centroids) ** 2).sum(2).argmin(1)
    np.testing.assert_array_equal(assigned, np.load(exp / "assignments" / "epoch_0001.npy"))


@pytest.mark.parametrize("flags", ["", "--whiten 4", "--format safetensors"])
def test_unreadable_images_are_listed_as_bad_and_have_no_row(
    tree: Path, extract: Extract, flags: str, capfd: pytest.CaptureFixture[str]
) -> None:
    flag = ["--dtype", "float32", *flags.split()]
    whole = extract(tree, *flag)
    bad = [named(whole)[i] for i in (0, 7, 8, 9, 39)]
    for path in bad:
        Path(path).write_bytes(b"no image")
    folder = extract(tree, *flag, out="others")
    assert named(folder) == [path for path in named(whole) if path not in bad]
    lines = (folder / "bad_images.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == bad
    assert all(line.split("\t")[1] for line in lines)
    assert f"left out, unreadable: {bad[1]}: " in capfd.readouterr().err
    if not flags:
        kept = np.delete(rows_of(whole), [0, 7, 8, 9, 39], axis=0)
        np.testing.assert_allclose(rows_of(folder), kept, rtol=1e-5, atol=1e-6)
    results = json.loads((folder / "features.json").read_text())["results"]
    assert (results["images"], results["unreadable"], results["shape"][0]) == (40, 5, 35)


def test_an_image_whose_features_are_not_finite_has_no_row(
    tree: Path, extract: Extract, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding, calls = ConvNet.embedding, []

    def spoil(model: ConvNet, x: torch.Tensor) -> torch.Tensor:
        calls.append(len(x))
        result = embedding(model, x)
        if len(calls) == 3:  # the first call asks for the dimensions
            result[2, 1] = float("nan")
        return result

    monkeypatch.setattr(ConvNet, "embedding", spoil)
    folder = extract(tree)
    assert len(rows_of(folder)) == 39
    (line,) = (folder / "bad_images.txt").read_text().splitlines()
    assert line.endswith("b/000.png\tits features are NaN or infinite; try --precision fp32")
    assert np.isfinite(rows_of(folder)).all()


@pytest.mark.parametrize("flags", ["", "--whiten 5", "--format safetensors"])
def test_an_interrupted_extraction_ends_with_the_same_bytes(
    tree: Path, extract: Extract, flags: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad images are at the edges of batches of eight, before and after the cut."""
    flag = ["--dtype", "float32", *flags.split()]
    paths = sorted(map(str, tree.rglob("*.png")))
    for index in (7, 15, 16, 23, 30):
        Path(paths[index]).write_bytes(b"no image")
    whole = extract(tree, *flag, out="whole")
    for shards in (1, 2, 0, 1):  # four cuts of the same extraction
        extract(tree, *flag, cut=shards)
        names = sorted(path.name for path in (whole.parent / "out").iterdir())
        assert names == ["features.part"], "nothing has its final name yet"
    capsys.readouterr()
    folder = extract(tree, *flag)
    assert capsys.readouterr().out.startswith("continuing after 32 of 40 images\n")
    features = "features.safetensors" if "safetensors" in flags else "features.npy"
    for name in ("images.txt", "bad_images.txt", features):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize(
    "step", ["join", "write_names", "save_results", "the last name", "shutil.rmtree"]
)
def test_extraction_killed_during_the_final_renames_continues(
    tree: Path, extract: Extract, step: str
) -> None:
    flags = ["--whiten", "5", "--dtype", "float32"]
    whole = extract(tree, *flags, out="whole")

    def cut(*args: object, **kwargs: object) -> NoReturn:
        raise CutError

    replace = Path.replace

    def cut_the_last(path: Path, target: Path) -> Path:
        return cut() if target.name == "features.npy" else replace(path, target)

    with pytest.MonkeyPatch.context() as patch:
        if step == "the last name":
            patch.setattr(Path, "replace", cut_the_last)
        else:
            patch.setattr(f"extract_features.{step}", cut)
        with pytest.raises(CutError):
            extract(tree, *flags)
    there = (whole.parent / "out" / "features.npy").exists()
    assert there == (step == "shutil.rmtree"), "the features get their name last"
    folder = extract(tree, *flags)
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    assert (folder / "features.npy").read_bytes() == (whole / "features.npy").read_bytes()


def test_finished_features_are_not_computed_again(
    tree: Path, extract: Extract, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (extract(tree) / "features.npy").stat()
    capsys.readouterr()
    folder = extract(tree)
    assert (folder / "features.npy").stat().st_mtime_ns == before.st_mtime_ns
    assert "features.npy: is there already" in capsys.readouterr().out


@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_networks_or_images_are_bad_input(
    tree: Path, tmp_path: Path, extract: Extract, finished: bool
) -> None:
    extract(tree, cut=None if finished else 2)
    other = tmp_path / "other.pth.tar"
    save_checkpoint(other, {"arch": "tiny", "state_dict": tiny(sobel=True).state_dict()})
    if finished:  # the shards are not whitened
        with pytest.raises(
            InputError, match=r"was made with other settings .whiten None → 3.; give"
        ):
            extract(tree, "--whiten", "3")
    for flags, message in [
        (["--size", "40"], r"size 32 → 40"),
        (["--conv", "2"], r"pool None → probe, conv None → 2"),
        (["--dtype", "float32"], r"dtype float16 → float32"),
        (["--format", "safetensors"], r"format npy → safetensors"),
        (["--precision", "bf16"], r"precision fp32 → bf16"),
    ]:
        with pytest.raises(
            InputError, match=f"was made with other settings .{message}.; give another"
        ):
            extract(tree, *flags)
    with pytest.raises(InputError, match=r"settings \(network "):
        extract(tree, model=other)
    write_images(tree / "d", 1)
    with pytest.raises(InputError, match=r"settings \(images "):
        extract(tree)


def test_an_extraction_continues_with_another_batch_that_divides_its_shards(
    tree: Path, extract: Extract, capsys: pytest.CaptureFixture[str]
) -> None:
    extract(tree, cut=2)
    with pytest.raises(InputError, match=r"images in a shard \(by --batch\) 8 → 6\)"):
        extract(tree, "--batch", "6")
    capsys.readouterr()
    folder = extract(tree, "--batch", "4")
    assert capsys.readouterr().out.startswith("continuing after 16 of 40 images\n")
    np.testing.assert_allclose(rows_of(folder), rows_of(extract(tree, out="whole")), rtol=2e-3)


def test_a_damaged_shard_is_one_line(tree: Path, extract: Extract) -> None:
    extract(tree, cut=2)
    shard = tree.parent / "out" / "features.part" / "features_00001.npy"
    shard.write_bytes(b"nothing")
    with pytest.raises(
        InputError, match=r"features_00001\.npy: is damaged; remove .*: the same command"
    ):
        extract(tree)
    shard.unlink()
    assert len(rows_of(extract(tree))) == 40


def test_shards_whose_images_are_all_bad(tree: Path, extract: Extract) -> None:
    paths = sorted(map(str, tree.rglob("*.png")))
    whole = rows_of(extract(tree, "--dtype", "float32", out="whole"))
    for path in [*paths[:8], *paths[16:32]]:
        Path(path).write_bytes(b"no image")
    folder = extract(tree, "--dtype", "float32")
    assert named(folder) == [*paths[8:16], *paths[32:]]
    np.testing.assert_allclose(rows_of(folder), whole[[*range(8, 16), *range(32, 40)]], rtol=1e-5)


def test_another_programs_files_are_not_overwritten(tree: Path, train: Callable[..., Path]) -> None:
    exp = train(tree)
    before = (exp / "images.txt").read_bytes()
    command = [str(exp / "checkpoint.pth.tar"), str(tree), "--out", str(exp), *FIXED.split()]
    with pytest.raises(InputError, match=r"has another program's images\.txt; give another folder"):
        extract_features.main(extract_features.parse_args(command))
    assert (exp / "images.txt").read_bytes() == before
    assert not (exp / "features.part").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--conv 3", r"--conv 3: tiny has conv layers 1 to 2"),
        ("--pool average", r"--pool average: applies to conv layers; name one with --conv"),
        ("--whiten 33", r"--whiten 33: more than the features' 32 dimensions"),
        ("--whiten checkpoint", r"checkpoint.pth.tar has no PCA; give a number"),
        ("--conv 1 --whiten checkpoint", r"--whiten checkpoint: whitens the embedding, not"),
        ("--size 4", r"--size 4: too small for tiny"),
    ],
)
def test_bad_flags_are_one_line_before_anything_is_written(
    tree: Path, tmp_path: Path, extract: Extract, flags: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        extract(tree, *flags.split())
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_disk_that_is_too_small_is_noticed_first(
    tree: Path, tmp_path: Path, extract: Extract, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 2 * 40 * 32 * 2 - 1})  # a byte less than two copies
    monkeypatch.setattr("features.rows.shutil.disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"40 rows need 0\.0 GB, and 0\.0 GB are free"):
        extract(tree)
    assert not list((tmp_path / "out").iterdir())


def test_a_disk_that_fills_up_is_one_line_and_the_extraction_can_continue(
    tree: Path, extract: Extract, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = extract(tree, out="whole")
    synced: list[int] = []

    def fill_up(handle: int) -> None:
        synced.append(handle)
        if len(synced) > 12:  # two per file: the settings, the bad images and rows of two shards
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", fill_up)
        with pytest.raises(InputError, match=r"part: cannot write there: No space left on device"):
            extract(tree)
    capsys.readouterr()
    folder = extract(tree)
    assert "continuing after " in capsys.readouterr().out
    assert (folder / "features.npy").read_bytes() == (whole / "features.npy").read_bytes()


def test_rows_that_are_all_the_same_have_no_whitening(tmp_path: Path, extract: Extract) -> None:
    path, *others = write_images(tmp_path / "images", 4)
    for other in others:
        other.write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="--whiten 3: all rows are the same"):
        extract(tmp_path / "images", "--whiten", "3", "--batch", "4")


def test_no_readable_image_is_bad_input(tmp_path: Path, extract: Extract) -> None:
    for path in write_images(tmp_path / "images", 3):
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="images: none of the images can be read"):
        extract(tmp_path / "images")


@pytest.mark.parametrize("text", ["-1", "all", "2.5"])
def test_bad_values_of_whiten(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as status:
        extract_features.parse_args(["m", "d", "--out", "o", "--whiten", text])
    assert status.value.code == 2
    error = capsys.readouterr().err
    assert "give auto, 0 or a number of dimensions, or checkpoint (without a value" in error


def test_many_processes_write_the_same_file_as_one(
    server: Server, tree: Path, tmp_path: Path, checkpoint: Path, extract: Extract
) -> None:
    """One process begins and is interrupted, two finish; each part has bad images. Then both fit a
    whitening."""
    write_images(tree / "d", 30)
    paths = sorted(map(str, tree.rglob("*.png")))
    for path in paths[3::6]:
        Path(path).write_bytes(b"no image")
    flags = ["--dtype", "float32"]
    whole = extract(tree, *flags, out="whole")
    extract(tree, *flags, cut=1)
    script = ROOT / "tests" / "sharded_extraction.py"
    command = [checkpoint, tree, *FIXED.split(), *flags, "--out", tmp_path / "out"]
    threads = torch.get_num_threads()  # more threads may sum in another order
    output = server.run_script(script, command, tmp_path / "two", threads=threads)
    assert output.count("features.npy: 58 rows of") == 2
    for name in ("features.npy", "images.txt", "bad_images.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes(), name
    white = rows_of(tmp_path / "out" / "white")
    alone = rows_of(extract(tree, *flags, "--whiten", out="white"))
    assert white.shape == alone.shape == (58, 4), "not by all 70 images, nor by one process's rows"
    np.testing.assert_allclose(white @ white.T, alone @ alone.T, atol=1e-4)


def test_two_processes_over_a_zip_give_the_rows_of_one(
    server: Server, tree: Path, tmp_path: Path, checkpoint: Path, extract: Extract
) -> None:
    """One of them makes the index, and the other waits for it."""
    data, flags = write_as("deflated zip", tree, tmp_path / "data"), ["--dtype", "float32"]
    script = ROOT / "tests" / "sharded_extraction.py"
    command = [checkpoint, data, *FIXED.split(), *flags, "--out", tmp_path / "out"]
    server.run_script(script, command, tmp_path / "two", threads=torch.get_num_threads())
    one, files = (extract(each, *flags, out=f"{each.name} whole") for each in (data, tree))
    for name in ("features.npy", "images.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (one / name).read_bytes(), name
    np.testing.assert_array_equal(rows_of(one), rows_of(files))

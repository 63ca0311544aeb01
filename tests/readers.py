"""Every reader of files from elsewhere with valid sample files, for the tests that damage them."""

import contextlib
import hashlib
import io
import pickle
import random
import shutil
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from caffe_files import layers_of, randomised, write_caffe, write_caffe_v1
from conftest import write_images
from mutations import OPCODES, WORDS, damaged, damaged_member
from old_numpy import array_pickle, rows_pickle
from old_torch import save_as_2018
from packed_files import GENERATIONS, write_table, write_tar, write_zip
from retrieval_layout import revisited_truth, write_oxford, write_paris, write_revisited
from run_folder import make_run
from safetensors.numpy import save
from torch import nn
from voc_tree import write_voc

import main
from checkpoints.checkpoint import load_model, model_of, read_checkpoint
from checkpoints.clusters import clusters_of, load_clusters, save_clusters
from checkpoints.safetensors_file import save_weights
from cluster.clusters import Clusters
from cluster.pickles import read_assignment, read_clusters, write_assignment
from cluster.whitening import Whitening
from data.decode import UnreadableImageError
from data.images import ImageList, find_images
from data.labelled import find_train_and_val
from data.packed.entries import Entries
from data.packed.index import load_index, write_index
from data.packed.packed import Packed
from data.packed.parquet import read_parquet
from data.packed.reading import descriptor_of
from data.packed.tars import read_tar
from data.packed.zips import read_zip
from data.retrieval import find_retrieval
from data.voc import CLASSES, find_voc
from features.row_file import check_finite, read_rows
from methods.deepcluster import DeepCluster
from models import MODELS
from models.convnet import ConvNet, conv_layers
from parallel.signals import Stopping
from system.device import select_compute
from system.errors import InputError
from system.kept import load_arrays, save_arrays
from system.safe_pickle import read_plain
from tools.caffe.import_model import load_caffe
from tools.cluster_features import read_names
from tools.inspect_checkpoint import card_of, in_words
from tools.make_tiny_imagenet import lay_out
from training.finished_run import clusters_at, read_run
from training.resume import read_resume, set_up, to_checkpoint
from training.run import Run
from visu.report_page import write_report

LONGEST_LINE = 2000  # characters in a message


@dataclass(frozen=True)
class Reader:
    """A reader and its sample files.

    Attributes:
        file: the file that is damaged.
        read: reads it.
        samples: the contents of valid files.
        pieces: bytes to insert as damage.
        zipped: damage members inside the archives among the samples, too.
    """

    file: Path
    read: Callable[[], object]
    samples: Sequence[bytes]
    pieces: Sequence[bytes] = WORDS
    zipped: bool = False

    def damage(self, rng: random.Random) -> bytes:
        archives = [sample for sample in self.samples if sample[:4] == b"PK\3\4"]
        if self.zipped and archives and rng.random() < 0.6:
            return damaged_member(rng, rng.choice(archives), self.pieces)
        return damaged(rng, self.samples, self.pieces)

    def error_of(self, data: bytes) -> str | None:
        """The message if these bytes are bad input, or None if they can be read.

        Raises:
            AssertionError: the message has several lines, is too long, or doesn't name the file
                or one beside it.
            Exception: any other error, which fails the test.
        """
        self.file.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.read()
        except InputError as error:
            message = str(error)
            assert len(message.splitlines()) == 1, f"not one line: {message!r}"
            assert str(self.file.parent) in message, f"does not name the file: {message!r}"
            assert len(message) < LONGEST_LINE, f"too long: {message[:300]!r}"
            return message
        return None


def small(sobel: bool = False, out: int = 1000) -> ConvNet:
    """A network built like AlexNet with as few weights as possible."""
    features = conv_layers(2 if sobel else 3, [(4, 3, 2, 1), "pool 3/2"])
    hidden = [nn.Dropout(0.5), nn.Linear(4 * 4, 3), nn.ReLU(inplace=True)]
    return ConvNet("small", features, 2, nn.Sequential(*hidden), 3, out, sobel)


@contextmanager
def small_networks() -> Iterator[None]:
    """Register only the smallest network: building those of the papers takes seconds."""
    known = dict(MODELS)
    MODELS.clear()
    MODELS["small"] = small
    try:
        yield
    finally:
        MODELS.clear()
        MODELS.update(known)


def saved(contents: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(contents, file, **options)
    return file.getvalue()


def some_clusters(dim: int = 3) -> Clusters:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((dim,), (dim, 2), (4, 2))]
    return Clusters("Kmeans", 2, Whitening(arrays[0], arrays[1]), arrays[2])


def some_checkpoint(sobel: bool = True) -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = small(sobel, 4)
    return {
        "epoch": 2,
        "arch": "small",
        "state_dict": model.state_dict(),
        "optimizer": torch.optim.SGD(model.body(), 0.1).state_dict(),
        "clusters": some_clusters().to_plain(),
        "settings": {"size": 32, "seed": 1, "lr": 0.05, "resume": None},
    }


def checkpoints(folder: Path) -> Reader:
    whole = some_checkpoint()
    alone = OrderedDict((f"module.{name}", w) for name, w in whole["state_dict"].items())
    path = folder / "c.pth.tar"

    def read() -> None:
        state = read_checkpoint(path)
        model_of(state, path)
        clusters_of(state, path, 3)

    samples = [saved(whole), saved(alone), saved({"arch": "net", "state_dict": alone})]
    return Reader(path, read, samples, OPCODES, zipped=True)


def resumed(folder: Path) -> Reader:
    """A checkpoint from which a run resumes."""
    write_images(folder / "images", 7)
    images = find_images(folder / "images")
    path = folder / "c.pth.tar"
    flags = f"{images.root} --arch small --sobel --k 4 --size 32 --batch 4 --resume {path}".split()
    compute = select_compute("cpu", "fp32")

    def read() -> None:
        args = main.parse_args(flags)
        checkpoint = read_resume(args, images, DeepCluster)
        set_up(args, DeepCluster(args, compute), compute, checkpoint)

    args = main.parse_args([*flags[:-2], "--exp", str(folder / "exp")])
    method = DeepCluster(args, compute)
    run = Run(args, images, method, compute, Stopping())
    labels = torch.arange(7) % 4
    clusters = some_clusters().to_plain()
    state = {"assignment": labels, "previous": labels, "clusters": clusters, "clustering_loss": 1.5}
    method.load_state_dict(state, with_heads=True)
    method.network(torch.ones(2, 3, 32, 32)).sum().backward()
    run.optimizer.step()
    samples = []
    for run.state.step in (0, 1):
        parts = run.state, run.optimizer, method
        samples.append(saved(to_checkpoint(args, images, *parts)))
    return Reader(path, read, samples, OPCODES, zipped=True)


def old_checkpoints(folder: Path) -> Reader:
    path = folder / "c.pth.tar"
    whole = some_checkpoint(sobel=False)
    del whole["clusters"]
    samples = [saved(whole, _use_new_zipfile_serialization=False)]
    for rebuild in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        save_as_2018(whole, path, rebuild)
        samples.append(path.read_bytes())
    return Reader(path, lambda: load_model(path), samples, OPCODES)


def safetensors(folder: Path) -> Reader:
    path = folder / "c.safetensors"
    save_weights(path, small(True, 4), {"arch": "small", "epoch": "3", "size": "32"})
    return Reader(path, lambda: in_words(card_of(path)) and load_model(path), [path.read_bytes()])


def fitted_clusters(folder: Path) -> Reader:
    path = folder / "clusters.pth"
    save_clusters(path, some_clusters(), "abc", 32)
    samples = [path.read_bytes(), saved(some_checkpoint())]
    return Reader(path, lambda: load_clusters(path, 3, "abc", 32), samples, OPCODES, zipped=True)


def run_clusters(folder: Path) -> Reader:
    path = folder / "clusters"
    epochs = [[[0, 2, 300], [], [1, 70_000, 4]], [[5], [3], [0, 1, 2, 4]]]
    arrays = [[np.array(cluster) for cluster in clusters] for clusters in epochs]
    samples = [pickle.dumps(each, protocol) for each in (epochs, arrays) for protocol in (0, 2, 4)]
    return Reader(path, lambda: read_clusters(path), samples, OPCODES)


def assignments(folder: Path) -> Reader:
    path = folder / "a.pickle"
    pairs = [("n01440764/a.JPEG", 7), ("b\u00e9.JPEG", 300), ("c" * 300, 0)]
    write_assignment(path, pairs)
    samples = [path.read_bytes()]
    samples += [pickle.dumps(each, p) for each in (pairs, dict(pairs)) for p in (0, 2, 4, 5)]
    return Reader(path, lambda: read_assignment(path), samples, OPCODES)


def arrays_in_pickles(folder: Path) -> Reader:
    path = folder / "a.pickle"
    arrays = [np.arange(6.0).reshape(2, 3), np.array(["a", "bc"]), np.int64(3), b"\xff", {1: "x"}]
    samples = [pickle.dumps(arrays, protocol) for protocol in range(6)]
    return Reader(path, lambda: read_plain(path, "thing"), samples, OPCODES)


def _buildings(folder: Path) -> None:
    write_oxford(folder / "Oxford")
    write_paris(folder / "Paris")
    for image in list((folder / "Paris").rglob("*.jpg"))[1:]:
        image.unlink()


def revisited(folder: Path) -> Reader:
    _buildings(folder)
    shutil.rmtree(folder / "Oxford" / "lab")
    samples = [
        write_revisited(folder / "Oxford", revisited_truth(), protocol).read_bytes()
        for protocol in (0, 2, 4)
    ]
    path = write_revisited(folder / "Oxford")
    return Reader(path, lambda: find_retrieval(folder / "Oxford", "Oxford"), samples, OPCODES)


def oxford(folder: Path, kind: str = "query") -> Reader:
    _buildings(folder)
    lab = folder / "Oxford" / "lab"
    samples = [path.read_bytes() for path in sorted(lab.glob(f"*_{kind}.txt"))]
    path = lab / f"keble_1_{kind}.txt"
    for other in lab.iterdir():
        if not other.name.startswith("keble"):
            other.unlink()
    return Reader(path, lambda: find_retrieval(folder / "Oxford", "Oxford"), samples)


def oxford_lists(folder: Path) -> Reader:
    return oxford(folder, "good")


def voc(folder: Path) -> Reader:
    root = write_voc(folder, train=6)
    path = root / "ImageSets" / "Main" / f"{CLASSES[0]}_train.txt"
    return Reader(path, lambda: find_voc(folder, "train"), [path.read_bytes()])


def _classes(folder: Path) -> None:
    for place in ("train/n01", "train/n02", "val/images"):
        (folder / place).mkdir(parents=True)
        for number in range(2):
            (folder / place / f"val_{number}.JPEG").write_bytes(b"")


def places(folder: Path) -> Reader:
    _classes(folder)
    lines = [b"train/n01/val_0.JPEG 0\ntrain/n02/val_1.JPEG 14\n", b"val/images/val_1.JPEG 14\r\n"]
    (folder / "val.txt").write_bytes(lines[0])
    shutil.move(folder / "train", folder / "images")
    shutil.move(folder / "val", folder / "others")
    lines = [line.replace(b"train/", b"images/").replace(b"val/", b"others/") for line in lines]
    (folder / "val.txt").write_bytes(lines[0])
    path = folder / "train.txt"
    return Reader(path, lambda: find_train_and_val(folder), lines[:1], (*WORDS, *lines))


def tiny_annotations(folder: Path) -> Reader:
    _classes(folder)
    path = folder / "val" / "val_annotations.txt"
    text = b"val_0.JPEG\tn01\t0\t32\t44\t62\nval_1.JPEG\tn02\t52\t55\t57\t59\n"
    return Reader(path, lambda: find_train_and_val(folder), [text])


def tiny_archive(folder: Path) -> Reader:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        top = "tiny-imagenet-200"
        archive.writestr(f"{top}/val/val_annotations.txt", "val_0.JPEG\tn01\t0\t1\n")
        archive.writestr(f"{top}/val/images/val_0.JPEG", b"image" * 100)
        archive.writestr(f"{top}/train/n01/images/n01_0.JPEG", b"image")
        archive.writestr(f"{top}/test/images/test_0.JPEG", b"image")
    path = folder / "in" / "tiny.zip"
    path.parent.mkdir()
    target = folder / "in" / "out" / "tree"

    def read() -> None:
        try:
            lay_out(path, target)
        finally:
            shutil.rmtree(target.parent, ignore_errors=True)
            left = {each.name for each in (*folder.iterdir(), *path.parent.iterdir())}
            assert left == {"in", "tiny.zip"}, f"outside the folder: {left}"

    return Reader(path, read, [file.getvalue()], (*WORDS, b"../", b"/etc/"), zipped=True)


def _caffe(folder: Path) -> list[tuple[bytes, bytes]]:
    """Pairs of prototxt and caffemodel."""
    model = randomised(small(True, 4))
    pairs = []
    for write in (write_caffe, write_caffe_v1):
        norm = "layers" if write is write_caffe else "folded"
        kind = "scale" if write is write_caffe else "grey"
        prototxt, caffemodel = write(folder, layers_of(model, kind, norm), 10)
        pairs.append((prototxt.read_bytes(), caffemodel.read_bytes()))
    return pairs


def prototxt(folder: Path) -> Reader:
    pairs = _caffe(folder)
    paths = folder / "net.prototxt", folder / "net.caffemodel"
    paths[1].write_bytes(pairs[0][1])
    words = (b"layer {", b"}", b"dim: 3", b"kernel_h: 2", b"group: 0", b"#", b"'", b"stride: 0",
             b"num_output: 4294967295", b"pad: 4000000000", b"type: 'Power'",
             b"power: nan")  # fmt: skip
    samples = [pair[0] for pair in pairs]
    return Reader(paths[0], lambda: load_caffe(*paths), samples, (*WORDS, *words))


def caffemodel(folder: Path) -> Reader:
    pairs = _caffe(folder)
    paths = folder / "net.prototxt", folder / "net.caffemodel"
    paths[0].write_bytes(pairs[0][0])
    return Reader(paths[1], lambda: load_caffe(*paths), [pairs[0][1]], (*WORDS, pairs[1][1]))


def list_file(folder: Path) -> Reader:
    _classes(folder)
    text = b"train/n01/val_0.JPEG\ntrain/n02/val_1.JPEG\r\n\n../x/y.jpg\n"
    path = folder / "images.txt"
    return Reader(path, lambda: find_images(path).labels, [text])


def _read_features(path: Path) -> None:
    _, found = read_rows(path)
    check_finite(path, found, 0)


def feature_rows(folder: Path) -> Reader:
    path = folder / "x.npy"
    rows = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    samples = []
    for array in (rows, np.asfortranarray(rows.astype(np.float16))):
        np.save(path, array)
        samples.append(path.read_bytes())

    pieces = (*WORDS, b"'descr': '|O'", b"(7, 99999999)", b"True")
    return Reader(path, lambda: _read_features(path), samples, pieces)


def feature_tensors(folder: Path) -> Reader:
    path = folder / "x.safetensors"
    rows = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    samples = [save({"features": rows}), save({"a": rows, "features": rows})]
    return Reader(path, lambda: _read_features(path), samples)


def feature_pickles(folder: Path) -> Reader:
    path = folder / "x.pkl"
    rows = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
    samples = [array_pickle(rows), rows_pickle(rows)]
    samples += [pickle.dumps(each, p) for each in (rows, tuple(rows)) for p in (0, 2, 4, 5)]
    return Reader(path, lambda: _read_features(path), samples, OPCODES)


def names_of_rows(folder: Path) -> Reader:
    path = folder / "names.txt"
    return Reader(path, lambda: read_names(path, 3), [b"a\nb\nc\n", b"a\r\nb\r\nc"])


def _run(folder: Path) -> Path:
    images = [f"{label}/{number}.png" for label in "ab" for number in range(4)]
    return make_run(folder / "exp", folder, images, epochs=2, planned=2)


def _read_report(exp: Path) -> None:
    run = read_run(exp)
    for epoch in run.epochs:
        clusters_at(run, epoch)
    write_report(exp)


def _file_of_a_run(folder: Path, name: str) -> Reader:
    exp = _run(folder)
    return Reader(exp / name, lambda: _read_report(exp), [(exp / name).read_bytes()])


def stored_stage(folder: Path) -> Reader:
    """A damaged stage is computed again, without an error."""
    path, key = folder / "features.npz", {"size": 32}
    save_arrays(path, key, {"rows": np.arange(6.0).reshape(2, 3)})
    return Reader(path, lambda: load_arrays(path, key), [path.read_bytes()], zipped=True)


def _packed(
    folder: Path, ending: str, read: Callable[[Path], Entries], samples: list[Path]
) -> Reader:
    """A container: its index, then every image in it; damaged ones are unreadable."""
    path, place = folder / f"x{ending}", folder / "index"

    def read_all() -> None:
        entries = read(path)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        version = hashlib.sha256(path.read_bytes()).hexdigest()
        key: dict[str, Any] = {"kind": ending[1:], "containers": version}
        write_index(place, key, [path.name], [path.stat().st_size], [entries])
        index = load_index(place, key)
        assert index is not None
        images = ImageList(Packed(folder, index))
        if len(images) == 0:
            raise InputError(f"{path}: no image in it")
        assert len(set(images.names)) == len(images)
        for image in range(len(images)):
            with contextlib.suppress(UnreadableImageError), images.open(image) as file:
                file.read()
        descriptor_of.cache_clear()

    return Reader(path, read_all, [sample.read_bytes() for sample in samples])


MEMBERS = [(f"{label}/{n}.png", bytes([65 + n]) * 30) for label in "ab" for n in range(3)]


def tars(folder: Path) -> Reader:
    members = [*MEMBERS, ("long/" * 40 + "x.jpg", b"jpg"), ("a/2.cls", b"7")]
    samples = [write_tar(folder / f"{format}.tar", members, format) for format in (1, 2)]
    samples.append(write_tar(folder / "0.tar", MEMBERS, 0))
    return _packed(folder, ".tar", read_tar, samples)


def zips(folder: Path) -> Reader:
    samples = [write_zip(folder / f"{method}.zip", MEMBERS, method) for method in (0, 8)]
    return _packed(folder, ".zip", read_zip, samples)


def tables(folder: Path) -> Reader:
    samples = [write_table(folder / f"{each}.parquet", MEMBERS, each) for each in GENERATIONS]
    options = {"data_page_version": "2.0", "compression": "zstd"}
    samples.append(write_table(folder / "2.parquet", [*MEMBERS, *MEMBERS], "2.13", **options))
    return _packed(folder, ".parquet", read_parquet, samples)


READERS: dict[str, Callable[[Path], Reader]] = {
    each.__name__: each
    for each in (
        checkpoints, resumed, old_checkpoints, safetensors, fitted_clusters, run_clusters,
        assignments, arrays_in_pickles, revisited, oxford, oxford_lists, voc, places,
        tiny_annotations, tiny_archive, prototxt, caffemodel, list_file, feature_rows,
        feature_tensors, feature_pickles, names_of_rows, stored_stage, tars, zips, tables,
    )
}  # fmt: skip
READERS.update(
    metrics=partial(_file_of_a_run, name="metrics.jsonl"),
    configuration=partial(_file_of_a_run, name="config.json"),
    listing=partial(_file_of_a_run, name="images.txt"),
    epoch_assignment=partial(_file_of_a_run, name="assignments/epoch_0001.npy"),
)

"""Oxford5k and Paris6k on disk: images, queries, ground truth, and malformed files."""

import os
import pickletools
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from retrieval_layout import (
    BOX,
    BUILDINGS,
    revisited_truth,
    write_data_sets,
    write_oxford,
    write_paris,
    write_revisited,
)

from data.images import content_digest, find_images
from data.loading import Draw
from data.resized import ResizedImages, load_one_by_one, resize_long_side
from data.retrieval import CORRUPT, find_retrieval, image_names
from data.retrieval_revisited import read_revisited
from system.errors import InputError


@pytest.fixture
def both(tmp_path: Path) -> Path:
    return write_data_sets(tmp_path / "sets")


def test_oxfords_ground_truth(both: Path) -> None:
    data = find_retrieval(both, "Oxford")
    (benchmark,) = data.benchmarks
    assert benchmark.name == "Oxford5k"
    assert benchmark.database == image_names(data.images)
    assert len(benchmark.database) == 14
    assert [query.name for query in benchmark.queries] == [f"{b}_1" for b in BUILDINGS]
    keble = benchmark.queries[2]
    assert (keble.image, keble.box) == ("keble_000000", BOX), "without the prefix oxc1_"
    assert benchmark.good[2] == {"keble_000000", "keble_000001"}, "good and ok"
    assert benchmark.junk[2] == {"keble_000002"}
    assert benchmark.lab == both / "Oxford" / "lab"


def test_paris_images_lie_in_folders_and_the_corrupt_ones_are_left_out(both: Path) -> None:
    data = find_retrieval(both, "Paris")
    assert data.images.names[0] == "defense/paris_defense_000000.jpg"
    assert len(data.images) == 10
    assert "paris_louvre_000136" not in data.benchmarks[0].database
    assert len(find_images(both / "Paris")) == 11
    assert len(find_retrieval(both, "Oxford").train) == 10, "as training images, too"
    assert len(CORRUPT) == 20


def test_a_corrupt_image_in_a_list_counts_as_never_found(both: Path) -> None:
    path = both / "Paris" / "lab" / "defense_1_ok.txt"
    path.write_text("paris_louvre_000136\n")
    benchmark = find_retrieval(both, "Paris").benchmarks[0]
    assert len(benchmark.good[0]) == 4
    assert "paris_louvre_000136" in benchmark.good[0]


def test_the_whitening_is_fitted_on_the_other_data_set(both: Path, tmp_path: Path) -> None:
    for dataset in (both, both / "Oxford"):
        assert find_retrieval(dataset, "Oxford").train.root == both / "Paris"
    assert find_retrieval(both, "Paris").train.root == both / "Oxford"
    write_paris(tmp_path / "elsewhere")
    data = find_retrieval(both, "Oxford", tmp_path / "elsewhere")
    assert data.train.root == tmp_path / "elsewhere"


def test_folders_as_the_revisited_ones_are_called(tmp_path: Path) -> None:
    write_oxford(tmp_path / "roxford5k")
    write_paris(tmp_path / "rparis6k")
    data = find_retrieval(tmp_path, "Oxford")
    assert (data.images.root, data.train.root) == (tmp_path / "roxford5k", tmp_path / "rparis6k")


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_the_revisited_ground_truth(both: Path, protocol: int) -> None:
    write_revisited(both / "Oxford", protocol=protocol)
    _, easy, medium, hard = find_retrieval(both, "Oxford").benchmarks
    assert [b.name for b in (easy, medium, hard)] == [
        f"ROxford5k {setup}" for setup in ("Easy", "Medium", "Hard")
    ]
    first, second, third = (f"all_souls_{view:06d}" for view in (1, 2, 3))
    assert [query.name for query in easy.queries] == ["all_souls_000000"]
    assert (easy.good, easy.junk) == ([{first}], [{second, third}])
    assert [query.name for query in medium.queries] == ["all_souls_000000", "ashmolean_000000"]
    assert medium.good[0] == {first, second}
    assert medium.junk == [{third}, set()]
    assert (hard.good[0], hard.junk[0]) == ({second}, {first, third})
    assert hard.good[1] == {"ashmolean_000001", "ashmolean_000002"}
    assert hard.queries[0].box == BOX
    assert len(hard.database) == 9
    assert "all_souls_000000" not in hard.database


def test_the_revisited_ground_truth_alone(both: Path) -> None:
    shutil.rmtree(both / "Oxford" / "lab")
    write_revisited(both / "Oxford")
    assert len(find_retrieval(both, "Oxford").benchmarks) == 3


def test_the_original_ground_truth_as_a_pickle(both: Path) -> None:
    """It says the same as lab/, so it gives the same benchmark."""
    lab = find_retrieval(both, "Oxford").benchmarks[0]
    numbers = {name: number for number, name in enumerate(lab.database)}
    gnd = [
        {
            "bbx": query.box,
            "ok": [numbers[n] for n in good],
            "junk": np.array([numbers[n] for n in junk]),
        }
        for query, good, junk in zip(lab.queries, lab.good, lab.junk, strict=True)
    ]
    queries = [query.image for query in lab.queries]
    truth = {"imlist": lab.database, "qimlist": queries, "gnd": gnd}
    write_revisited(both / "Oxford", truth).rename(both / "Oxford" / "gnd_oxford5k.pkl")
    write_revisited(both / "Oxford")
    names = [b.name for b in find_retrieval(both, "Oxford").benchmarks]
    assert names == ["Oxford5k", *(f"ROxford5k {s}" for s in ("Easy", "Medium", "Hard"))]
    shutil.rmtree(both / "Oxford" / "lab")
    (found,) = (b for b in find_retrieval(both, "Oxford").benchmarks if b.name == "Oxford5k")
    assert (found.database, found.good, found.junk) == (lab.database, lab.good, lab.junk)
    assert [(q.image, q.box) for q in found.queries] == [(q.image, q.box) for q in lab.queries]


@pytest.mark.parametrize("older", ["empty", "images", "lab", "empty lab"])
def test_a_folder_without_ground_truth_or_images_does_not_end_the_search(
    tmp_path: Path, older: str
) -> None:
    write_oxford(tmp_path / "roxford5k")
    write_paris(tmp_path / "rparis6k")
    for name in ("Oxford", "Paris"):
        (tmp_path / name / "lab").mkdir(parents=True)
        if older == "lab":
            shutil.copy(
                tmp_path / "roxford5k" / "lab" / "keble_1_query.txt", tmp_path / name / "lab"
            )
        elif older != "empty lab":
            (tmp_path / name / "lab").rmdir()
    if older == "images":
        shutil.copytree(tmp_path / "roxford5k" / "jpg", tmp_path / "Oxford" / "jpg")
    data = find_retrieval(tmp_path, "Oxford")
    assert data.images.root == tmp_path / "roxford5k"
    assert data.train.root == tmp_path / "rparis6k"
    assert len(data.benchmarks[0].queries) == 3


def test_the_folders_that_were_looked_at_are_listed(tmp_path: Path) -> None:
    for name in ("Oxford", "oxford5k"):
        (tmp_path / name).mkdir()
    expected = "in a folder Oxford, oxford, oxford5k, roxford5k below it (found: Oxford, oxford5k)"
    with pytest.raises(InputError, match=re.escape(expected)):
        find_retrieval(tmp_path, "Oxford")


def test_a_pickle_of_numpys_scalars_and_texts_of_python_2(tmp_path: Path) -> None:
    truth = revisited_truth()
    truth["gnd"][0]["bbx"] = [np.float32(1), np.float64(2), np.int64(3), 4]
    path = write_revisited(tmp_path, truth)
    data = path.read_bytes().replace(b"numpy._core.", b"numpy.core.")
    found = read_revisited(path)
    assert found.boxes[0] == (1, 2, 3, 4)
    path.write_bytes(data)  # the names that NumPy 1 pickled its functions under
    assert b"numpy.core." in data
    assert read_revisited(path) == found
    text = b"(dS'imlist'\n(lS'a_1'\nasS'qimlist'\n(lsS'gnd'\n(ls."
    path.write_bytes(text)
    assert read_revisited(path).database == ["a_1"]


class Harm:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    "call",
    [
        (os.mkdir, "harm"),
        (eval, "__import__('os').mkdir('harm')"),
        (np.fromfile, "harm"),
        (np.ndarray, (8,), "O", b"\1" * 64),
    ],
)
def test_a_pickle_cannot_run_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: tuple[Any, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_revisited(tmp_path, {"imlist": Harm(*call)})
    assert any(op.name == "REDUCE" for op, _, _ in pickletools.genops(path.read_bytes()))
    with pytest.raises(
        InputError, match=r"gnd_roxford5k.pkl: not a ground truth, or a damaged one: it"
    ):
        read_revisited(path)
    assert not Path("harm").exists()


def with_gnd(**changed: Any) -> dict[str, Any]:
    truth = revisited_truth()
    truth["gnd"][0] |= changed
    return truth


@pytest.mark.parametrize(
    ("truth", "reason"),
    [
        ([1, 2], "TypeError"),
        ({"imlist": []}, "KeyError: 'qimlist'"),
        ({**revisited_truth(), "imlist": [1]}, "1 is not a name"),
        ({**revisited_truth(), "gnd": []}, "ValueError"),
        (with_gnd(bbx=[1, 2, 3]), "not enough values"),
        (with_gnd(bbx=[5, 2, 3, 4]), "is no box"),
        (with_gnd(bbx=[1, 2, np.nan, 4]), "is no box"),
        (with_gnd(easy=[9]), "no image has one of the numbers 9 to 9"),
        (with_gnd(junk=[-1]), "no image has one of the numbers -1 to -1"),
        (with_gnd(hard=[0.5]), "float64 numbers instead of whole ones"),
    ],
)
def test_a_malformed_revisited_ground_truth(tmp_path: Path, truth: Any, reason: str) -> None:
    path = write_revisited(tmp_path, truth)
    with pytest.raises(InputError, match=f"bbx, easy, hard and junk .*{reason}"):
        read_revisited(path)


def test_a_damaged_revisited_ground_truth(tmp_path: Path) -> None:
    path = write_revisited(tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="not a ground truth, or a damaged one"):
        read_revisited(path)
    with pytest.raises(InputError, match="cannot read this ground truth: No such file"):
        read_revisited(tmp_path / "none.pkl")


def test_a_revisited_ground_truth_without_positives(both: Path) -> None:
    shutil.rmtree(both / "Oxford" / "lab")
    truth = revisited_truth()
    truth |= {"qimlist": truth["qimlist"][2:], "gnd": truth["gnd"][2:]}
    write_revisited(both / "Oxford", truth)
    with pytest.raises(InputError, match="no query has a positive"):
        find_retrieval(both, "Oxford")


@pytest.mark.parametrize(
    "line",
    ["", "all_souls_000000", "all_souls_000000 1 2 3", "all_souls_000000 1 2 3 4 5",
     "all_souls_000000 1 2 x 4", "all_souls_000000 9 2 3 4", "all_souls_000000 1 2 nan 4"],
)  # fmt: skip
def test_a_malformed_box(both: Path, line: str) -> None:
    (both / "Oxford" / "lab" / "keble_1_query.txt").write_text(line)
    with pytest.raises(
        InputError, match=rf"keble_1_query.txt: '{line}' is not an image and its box"
    ):
        find_retrieval(both, "Oxford")


def test_missing_ground_truth_is_named(both: Path) -> None:
    lab = both / "Oxford" / "lab"

    def check_error(message: str, dataset: Path = both, name: str = "Oxford") -> None:
        with pytest.raises(InputError, match=message):
            find_retrieval(dataset, name)

    none = both / "none"
    check_error(
        f"{none}: no ground truth of Oxford: neither lab/ nor gnd_roxford5k.pkl nor "
        "gnd_oxford5k.pkl in it, nor in a folder Oxford, oxford, oxford5k, roxford5k below it",
        none,
    )
    check_error("nor in a folder Paris, paris, paris6k, rparis6k below it", none, "Paris")
    (both / "Paris").rename(both / "Rome")
    check_error(
        "no folder of Paris's images, to fit the whitening on .*name one with --train_dataset"
    )
    (both / "Rome").rename(both / "Paris")

    (both / "Oxford" / "jpg" / "keble_000001.jpg").unlink()
    check_error("keble_1_ok.txt: names keble_000001, but there is no such image$")
    (lab / "keble_1_ok.txt").write_text("a b keble_000000")
    check_error(r"keble_1_ok.txt: names a, but there is no such image \(nor 1 others\)")
    (lab / "keble_1_ok.txt").unlink()
    check_error("keble_1_ok.txt: cannot read this ground truth: No such file")
    (lab / "keble_1_query.txt").write_text("keble_000009 1 2 3 4")
    check_error("keble_1_query.txt: names keble_000009, but there is no such image")
    for path in lab.glob("*_query.txt"):
        path.unlink()
    check_error(r"lab: no ground truth: looked for \*_query.txt")


def test_a_query_that_has_no_positive(both: Path) -> None:
    for kind in ("good", "ok"):
        (both / "Oxford" / "lab" / f"keble_1_{kind}.txt").write_text("")
    with pytest.raises(InputError, match=r"keble_1_good.txt, _ok.txt: no image is good or ok"):
        find_retrieval(both, "Oxford")


def test_two_images_of_a_name(both: Path) -> None:
    jpg = both / "Oxford" / "jpg"
    (jpg / "copy").mkdir()
    shutil.copy(jpg / "keble_000003.jpg", jpg / "copy")
    with pytest.raises(InputError, match="two images are called keble_000003"):
        find_retrieval(both, "Oxford")


def test_the_digest_knows_names_sizes_and_times(both: Path) -> None:
    def digest() -> str:
        return content_digest(find_retrieval(both, "Oxford").images)

    before, path = digest(), both / "Oxford" / "jpg" / "radcliffe_000001.jpg"
    assert digest() == before
    path.rename(path.with_name("radcliffe_000002.jpg"))
    found, path = {before, digest()}, path.with_name("radcliffe_000002.jpg")
    time = path.stat().st_mtime_ns
    with path.open("ab") as file:
        file.write(b"\0")
    os.utime(path, ns=(time, time))
    found.add(digest())
    os.utime(path, ns=(time, time + 1_000_000))
    assert len(found | {digest()}) == 4
    (both / "Oxford" / "jpg" / "link.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(InputError, match=r"link.jpg: cannot read this image: No such file"):
        digest()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((100, 50), (64, 32)), ((50, 100), (32, 64)), ((30, 30), (64, 64)), ((640, 2), (64, 1))],
)
def test_the_long_side_is_resized_and_the_aspect_kept(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    width, height = size
    pixels = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    resized = resize_long_side(pixels, 64)
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    reference = np.asarray(image.resize(expected, Image.Resampling.BILINEAR)).astype(int)
    assert resized.shape == (3, expected[1], expected[0])
    assert np.abs(resized.permute(1, 2, 0).numpy() - reference).max() <= 1


def test_a_box_is_cut_out_of_the_resized_image(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        pixels = rng.integers(256, size=(60, 120, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    images = find_images(tmp_path)
    boxes = [(10.0, 21.0, 41.0, 40.0), (-5.0, 30.0, 999.0, 61.0)]
    whole = torch.as_tensor(ResizedImages(images, 60)[Draw(0, 0, 0)][1])
    boxed = [torch.as_tensor(ResizedImages(images, 60, boxes)[Draw(i, 0, i)][1]) for i in (0, 1)]
    assert torch.equal(boxed[0], whole[:, 10:20, 5:20])
    assert boxed[1].shape == (3, 15, 60), "as far as it lies within the image"


def test_too_small_and_unreadable_images_have_a_reason(tmp_path: Path) -> None:
    Image.new("RGB", (80, 40)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    images = find_images(tmp_path)
    boxes = [(90.0, 0.0, 99.0, 9.0)] * 2
    assert ResizedImages(images, 40, None, 21)[Draw(0, 0, 0)] == (
        Draw(0, 0, 0),
        "at a long side of 40, it is 40 × 20 pixels, and the network takes 21 or more",
    )
    outside = ResizedImages(images, 40, boxes)[Draw(0, 0, 0)][1]
    assert str(outside).startswith("at a long side of 40, the query's box is 0 ×")
    assert "cannot read this image: cannot identify" in str(
        ResizedImages(images, 40)[Draw(1, 0, 1)][1]
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_images_come_one_by_one_in_their_order(both: Path, workers: int) -> None:
    images = find_retrieval(both, "Oxford").images
    loader = load_one_by_one(ResizedImages(images, 48), workers, torch.device("cpu"))
    batches = list(loader)
    assert [batch.index.tolist() for batch in batches] == [[i] for i in range(14)]
    assert {max(batch.pixels.shape[2:]) for batch in batches} == {48}
    assert len({batch.pixels.shape for batch in batches}) > 2


def test_the_whitening_comes_from_another_data_set(tmp_path: Path) -> None:
    (tmp_path / "Paris" / "lab").mkdir(parents=True)
    for folder, other in ((tmp_path / "Paris", None), (tmp_path / "Paris", tmp_path / "Paris")):
        with pytest.raises(InputError, match="Paris: is both Oxford and the data set for"):
            find_retrieval(folder, "Oxford", other)

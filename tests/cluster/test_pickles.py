"""Clusters in pickle files: a run's, the original's and the released ones; errors in one line."""

import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from old_torch import Python2Pickler

from cluster.pickles import read_assignment, read_clusters, write_assignment
from cluster.quality import group_by_cluster
from system.errors import InputError

PAIRS = [
    ("train/n01440764/n01440764_18.JPEG", 0),
    ("caf\xe9/\u65e5\u672c.png", 9999),  # UTF-8
    ("latin-1 \udce9.png", 3),  # not UTF-8
    ("x" * 300, 2**31),
    ("tab\tand\nline.png", 70000),
]


def by_python_2(path: Path, content: Any) -> Path:
    with path.open("wb") as file:
        Python2Pickler(file).dump(content)
    return path


def pickled(path: Path, content: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def test_the_clusters_of_a_run(train: Callable[..., Path], tree: Path) -> None:
    exp = train(tree, "--epochs", "2")
    epochs = read_clusters(exp / "clusters")
    assert len(epochs) == 2
    for epoch, clusters in enumerate(epochs):
        assignment = np.load(exp / "assignments" / f"epoch_{epoch:04d}.npy")
        assert clusters == group_by_cluster(assignment, 4)


@pytest.mark.parametrize("protocol", range(6))
def test_clusters_may_be_tuples_and_arrays(tmp_path: Path, protocol: int) -> None:
    epochs = [
        [[0, 2], [], [1]],
        ([np.int64(1)], (0, 2), np.array([], np.int64)),
        [np.array([5, 3], np.uint16)],
        [],
    ]
    found = read_clusters(pickled(tmp_path / "clusters", epochs, protocol))
    assert found == [[[0, 2], [], [1]], [[1], [0, 2], []], [[5, 3]], []]
    assert {type(image) for epoch in found for members in epoch for image in members} == {int}


def test_clusters_of_python_2(tmp_path: Path) -> None:
    epochs = [[[0, 70000], [2**33]]]
    assert read_clusters(by_python_2(tmp_path / "clusters", epochs)) == epochs


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"a": 1}, r"it is \{'a': 1\}"),
        ([1], "epoch 0 is 1"),
        ([[[0]], "ab"], "epoch 1 is 'ab'"),
        ([[[0], 5]], "cluster 1 of epoch 0 is 5"),
        ([[[0], "a"]], "cluster 1 of epoch 0 is 'a'"),
        ([[["a"]]], r"cluster 0 of epoch 0 is \['a'\]"),
        ([[[0.5]]], r"cluster 0 of epoch 0 is \[0\.5\]"),
        ([[[[1], [2, 3]]]], r"cluster 0 of epoch 0 is \[\[1\], \[2, 3\]\]"),
        ([[[2**70]]], "cluster 0 of epoch 0 is"),
        ([[[{}]]], "cluster 0 of epoch 0 is"),
        ([[[-1]]], "epoch 0 has an image -1"),
        ([[], [[3, 1], [4, 3]]], "epoch 1 has image 3 in more than one place"),
        ([[[2**63]]], "epoch 0 has an image|cluster 0 of epoch 0"),
    ],
)
def test_other_contents_are_not_a_list_of_clusters(
    tmp_path: Path, content: Any, reason: str
) -> None:
    path = pickled(tmp_path / "clusters", content)
    with pytest.raises(
        InputError, match=f"clusters: not a list over epochs of lists .* image numbers: ({reason})"
    ):
        read_clusters(path)


def test_an_assignment_comes_back_with_every_name(tmp_path: Path) -> None:
    write_assignment(tmp_path / "a.pickle", iter(PAIRS))
    assert read_assignment(tmp_path / "a.pickle") == PAIRS


def test_python_2_can_read_an_assignment(tmp_path: Path) -> None:
    """Paths are bytes, and no opcode is newer than protocol 2. Python 3's pickle reads it, too."""
    pairs: list[Any] = [(name, np.int64(k)) for name, k in PAIRS]
    write_assignment(tmp_path / "a.pickle", pairs)
    content = (tmp_path / "a.pickle").read_bytes()
    opcodes = list(pickletools.genops(content))
    assert max(opcode.proto for opcode, *_ in opcodes) == 2
    assert "BINUNICODE" not in {opcode.name for opcode, *_ in opcodes}
    raw = [(name.encode("utf-8", "surrogateescape"), k) for name, k in PAIRS]
    assert pickle.loads(content, encoding="bytes") == raw
    latin1 = pickle.loads(content, encoding="latin1")
    assert latin1[0] == PAIRS[0]
    assert latin1[2] == ("latin-1 \xe9.png", 3)


def test_a_released_assignment(tmp_path: Path) -> None:
    """A list of (path, cluster) from Python 2, where paths are bytes in any encoding."""
    raw = [(name.encode("utf-8", "surrogateescape").decode("latin1"), k) for name, k in PAIRS]
    path = by_python_2(tmp_path / "alexnet_cluster_assignment.pickle", raw)
    assert read_assignment(path) == PAIRS


@pytest.mark.parametrize(
    "content",
    [
        [("a", 1), ("b", 0)],
        [["a", 1], ["b", 0]],
        (("a", np.int64(1)), ("b", np.uint8(0))),
        {"a": 1, "b": np.int32(0)},
    ],
)
@pytest.mark.parametrize("protocol", range(6))
def test_assignments_may_be_lists_tuples_or_dicts(
    tmp_path: Path, content: Any, protocol: int
) -> None:
    found = read_assignment(pickled(tmp_path / "a.pickle", content, protocol))
    assert found == [("a", 1), ("b", 0)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (5, "it is 5"),
        ("ab", "it is 'ab'"),
        ([("a", 1), 5], "entry 1 is 5"),
        ([("a", 1, 2)], "entry 0 is "),
        ([(1, "a")], "entry 0 is "),
        ([("a", 1.0)], "entry 0 is "),
        ([("a", True)], "entry 0 is "),
        ([("a", -1)], "entry 0 is "),
        ([("", 1)], "entry 0 is "),
        (["ab"], "entry 0 is 'ab'"),
        ([("a" * 999, None)], r"entry 0 is .{1,60}$"),
    ],
)
def test_other_contents_are_not_an_assignment(tmp_path: Path, content: Any, reason: str) -> None:
    path = pickled(tmp_path / "a.pickle", content)
    with pytest.raises(
        InputError, match=rf"a\.pickle: not a list of pairs of path and cluster: {reason}"
    ):
        read_assignment(path)


@pytest.mark.parametrize("read", [read_clusters, read_assignment])
def test_a_pickle_that_refers_to_code_or_is_missing_raises(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    path = pickled(tmp_path / "x.pickle", [print])
    with pytest.raises(InputError, match=r"x\.pickle: not a .*: it refers to __builtin__\.print$"):
        read(path)
    with pytest.raises(InputError, match=r"gone: cannot read this "):
        read(tmp_path / "gone")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_assignment(tmp_path / "a.pickle", [("a", 1), ("b", 0.5)])  # type: ignore[list-item]
    assert list(tmp_path.iterdir()) == []

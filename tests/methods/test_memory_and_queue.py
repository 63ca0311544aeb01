"""The memory of DeepCluster-v2 and SwAV's queue in one process, and in one of several."""

import numpy as np
import pytest
import torch

from methods import memory, queue
from methods.memory import Memory
from methods.queue import Queue
from system.errors import InputError

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((10, 2, 3)).astype(np.float32)  # of 10 images


def written(index: list[int], dtype: str = "float32") -> Memory:
    found = Memory(10, 2, 3, np.dtype(dtype))
    found.write(torch.tensor(index), torch.from_numpy(ROWS[index]))
    return found


def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be the second of two."""
    monkeypatch.setattr(memory, "shard_of", lambda count: range(count // 2, count))
    monkeypatch.setattr(queue, "rank", lambda: 1)
    monkeypatch.setattr(queue, "world_size", lambda: 2)


def test_rows_are_kept_by_image() -> None:
    bank = written([7, 2, 4]).bank(1)
    np.testing.assert_array_equal(bank, ROWS[[2, 4, 7], 1])


def test_an_image_that_comes_again_replaces_its_row() -> None:
    found = written([7, 2])
    found.write(torch.tensor([2, 5]), torch.from_numpy(ROWS[[8, 5]]))
    found.write(torch.tensor([5, 5]), torch.from_numpy(ROWS[[0, 1]]))
    np.testing.assert_array_equal(found.bank(0), ROWS[[8, 1, 7], 0])


def test_unknown_images_have_no_cluster() -> None:
    found = written([7, 2, 4])
    found.flush()
    assert found.of_all(np.array([5, 6, 8])).tolist() == [-1, -1, 5, -1, 6, -1, -1, 8, -1, -1]


def test_half_precision() -> None:
    found = written([1, 3], "float16")
    assert found.bank(0).dtype == np.float16
    np.testing.assert_array_equal(found.bank(0), ROWS[[1, 3], 0].astype(np.float16))
    drawn = found.draw(2, 0, np.random.default_rng(0))
    assert drawn.dtype == np.float32
    assert sorted(drawn[:, 0]) == sorted(ROWS[[1, 3], 0, 0].astype(np.float16))


def test_known_images_are_drawn_once_each() -> None:
    drawn = written([9, 3, 5]).draw(3, 1, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(drawn[:, 0]), np.sort(ROWS[[3, 5, 9], 1, 0]))


def test_more_clusters_than_known_images() -> None:
    with pytest.raises(
        InputError, match="--nmb_prototypes 4: more clusters than the 3 images that"
    ):
        written([9, 3, 5]).draw(4, 1, np.random.default_rng(0))


def test_rows_wait_until_a_number_of_batches_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "AT_ONCE", 3)
    found = written([0])
    found.write(torch.tensor([1]), torch.from_numpy(ROWS[[1]]))
    assert not found.known.any()
    found.write(torch.tensor([], dtype=torch.int64), torch.zeros(0, 2, 3))  # a blank batch
    assert found.known.tolist() == [True, True] + [False] * 8


def test_a_process_keeps_the_images_of_its_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    second_of_two(monkeypatch)
    found = written([7, 2, 4, 5])
    np.testing.assert_array_equal(found.bank(0), ROWS[[5, 7], 0])
    assert found.rows.shape == (5, 2, 3)


def test_a_memory_can_be_loaded_by_another_number_of_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = written([7, 2, 4, 5]).to_plain()
    again = Memory(10, 2, 3, np.dtype("float32"))
    again.load(plain)
    np.testing.assert_array_equal(again.bank(1), ROWS[[2, 4, 5, 7], 1])
    second_of_two(monkeypatch)
    second = Memory(10, 2, 3, np.dtype("float16"))
    second.load(plain)
    np.testing.assert_array_equal(second.bank(1), ROWS[[5, 7], 1].astype(np.float16))


def filled(length: int, *batches: list[int]) -> Queue:
    found = Queue(length, torch.zeros(0, 2, 3))
    for batch in batches:
        found.push(torch.from_numpy(ROWS[batch]))
    return found


def test_the_newest_rows_come_first_and_the_oldest_go() -> None:
    found = filled(5, [0, 1])
    assert not found.is_full
    found.push(torch.from_numpy(ROWS[[2, 3]]))
    np.testing.assert_array_equal(found.rows.numpy(), ROWS[[2, 3, 0, 1]])
    found.push(torch.from_numpy(ROWS[[4, 5]]))
    assert found.is_full
    np.testing.assert_array_equal(found.rows.numpy(), ROWS[[4, 5, 2, 3, 0]])


def test_a_queue_can_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = filled(4, [0, 1], [2, 3]).to_plain()
    assert Queue(4, plain).is_full
    assert not Queue(6, plain).is_full
    shorter = Queue(3, plain)
    shorter.push(torch.from_numpy(ROWS[[9]]))
    np.testing.assert_array_equal(shorter.rows.numpy(), ROWS[[9, 2, 3]])
    second_of_two(monkeypatch)
    half = Queue(4, plain)
    assert half.is_full
    np.testing.assert_array_equal(half.rows.numpy(), ROWS[[3, 1]])


def test_a_queue_of_an_odd_length_is_shared_as_batches_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 5 rows, the first of two processes has 3, and so it has of a batch of 5."""
    plain = filled(5, [0, 1, 2, 3, 4]).to_plain()
    monkeypatch.setattr(queue, "world_size", lambda: 2)
    for rank, rows in ((0, [0, 2, 4]), (1, [1, 3])):
        monkeypatch.setattr(queue, "rank", lambda rank=rank: rank)
        own = Queue(5, plain)
        assert own.is_full
        np.testing.assert_array_equal(own.rows.numpy(), ROWS[rows])


def test_a_blank_batch_leaves_the_queue_as_it_is() -> None:
    found = filled(4, [0, 1])
    found.push(torch.zeros(0, 2, 3))
    np.testing.assert_array_equal(found.rows.numpy(), ROWS[[0, 1]])

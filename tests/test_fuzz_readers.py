"""Files damaged at random: every reader of files from elsewhere either reads them or raises an
InputError of one line that names the file; no traceback, no hang, no growing memory.

The ordinary tests damage a few files for each reader, always the same; with `--long`, 100,000 in
other processes. Files that once caused an error are kept below.
"""

import copy
import io
import json
import math
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import READERS, Reader, saved, small_networks

INPUTS, CHUNK = 100_000, 10_000  # of the campaign, and of a process
FEW = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def _small_networks() -> Iterator[None]:
    with small_networks():
        yield


@pytest.fixture(scope="module", params=READERS)
def reader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    with small_networks():
        return READERS[request.param](tmp_path_factory.mktemp(request.param))


def test_valid_files_are_read(reader: Reader) -> None:
    for sample in reader.samples:
        assert reader.error_of(sample) is None


@FEW
@given(random=st.randoms(use_true_random=True))
def test_a_damaged_file_is_read_or_one_line(reader: Reader, random) -> None:  # type: ignore[no-untyped-def]
    reader.error_of(reader.damage(random))


@FEW
@given(content=st.binary(max_size=200))
def test_random_bytes_are_read_or_one_line(reader: Reader, content: bytes) -> None:
    reader.error_of(content)


def test_every_truncated_file_is_read_or_one_line(reader: Reader) -> None:
    sample = reader.samples[0]
    for end in range(0, len(sample), max(len(sample) // 12, 1)):
        reader.error_of(sample[:end])


ODD: tuple[Any, ...] = (
    None, -1, 0, True, 1.5, "x", [], {}, {1: 2}, [1, 2], 2**70, math.nan, math.inf, torch.zeros(3),
    torch.zeros(0), torch.zeros(3, dtype=torch.int64), torch.tensor(3),
)  # fmt: skip


def places_in(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each value in dicts and lists, one within the other."""
    keys: Iterable[Any] = content if isinstance(content, dict) else ()
    for key in range(len(content)) if isinstance(content, list) else keys:
        yield (*place, key)
        yield from places_in(content[key], (*place, key))


def test_a_checkpoint_with_an_odd_value_resumes_or_is_one_line(tmp_path: Path) -> None:
    reader = READERS["resumed"](tmp_path)
    rng = random.Random(0)
    bad = 0
    for sample in reader.samples:
        whole = torch.load(io.BytesIO(sample), weights_only=True)
        for *path, last in places_in(whole):
            for odd in rng.sample(ODD, 3):
                damaged = copy.deepcopy(whole)
                within = damaged
                for key in path:
                    within = within[key]
                within[last] = odd
                bad += reader.error_of(saved(damaged)) is not None
    assert bad > 100


def archive_of(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"")
    return file.getvalue()


# A reader, and bytes of one of its valid files with their replacement. These once ended in a
# traceback, an endless message, gigabytes of memory, or minutes of work.
FOUND = {
    "a name without end": ("oxford", b"keble", b"[" * 3000),
    "an image without end": ("oxford_lists", b"keble", b"[" * 3000),
    "a line without end": ("voc", b"000000", b"9" * 5000),
    "a name too long for a file": ("voc", b"000000", b"x9" * 200),
    "a path too long for a file": ("list_file", b"n01", b"9" * 5000),
    "a path too long for an image": ("places", b"n01", b"9" * 5000),
    "a bracket that stays open": ("feature_rows", b"(7, 3)", b"(7, 3 "),
    "a number without end": ("feature_rows", b"(7, 3)", b"(7" + b"0" * 60 + b", 3)"),
    "an image of two lines": ("tiny_archive", b"val_0.JPEG", b"v\nl_0.JPEG"),
    "a name that is not text": ("tiny_archive", b"", archive_of("ü").replace(b"\xbc", b"(")),
    "a tensor of two lines": ("feature_tensors", b'},"features":', b'},"fea\xe2\x80\xa8es":'),
    "bytes that are not text": ("metrics", b'"epoch": 1', b'"epoch\xff": 1'),
    "an epoch that is a text": ("metrics", b'"epoch": 1', b'"epoch": "1"'),
    "an epoch that is a list": ("metrics", b'"epoch": 1', b'"epoch": []'),
    "seconds that are a text": ("metrics", b'"features": 1.25', b'"features": "x"'),
    "a number of clusters that is a text": ("metrics", b'"clusters": 4', b'"clusters": "4"'),
    "lists in lists": ("metrics", b'"epoch"', b'"x": ' + b"[" * 400 + b"]" * 400 + b', "epoch"'),
    "lists in lists without end": ("configuration", b'"epochs"', b"[" * 3000),
    "epochs that are a text": ("configuration", b'"epochs": 2', b'"epochs": "2"'),
    "clusters that are a text": ("configuration", b'"nmb_cluster": 4', b'"nmb_cluster": "4"'),
    "data that is a number": ("configuration", b'"data": "', b'"data": 5, "x": "'),
    "data that is not a file name": ("configuration", b'"data": "', b'"data": "\\u0000'),
    "data whose name is too long": ("configuration", b'"data": "', b'"data": "' + b"9" * 300),
    "cluster 2^40": ("epoch_assignment", b"\x03\0\0\0\0\0\0\0", b"\x03\0\0\0\0\1\0\0"),
    "a layer called without end": ("prototxt", b"'conv0'", b"'" + b"c" * 5000 + b"'"),
}


@pytest.mark.parametrize("case", FOUND)
def test_earlier_findings_stay_fixed(tmp_path: Path, case: str) -> None:
    name, old, new = FOUND[case]
    reader = READERS[name](tmp_path)
    sample = next((sample for sample in reader.samples if old in sample), None)
    assert sample is not None
    damaged = sample.replace(old, new) if old else new
    reader.error_of(damaged)


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_a_hundred_thousand_damaged_files(tmp_path: Path, name: str) -> None:
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here.parent}:{here}", "OMP_NUM_THREADS": "1"}
    for first in range(0, INPUTS, CHUNK):
        folder = tmp_path / str(first)
        folder.mkdir()
        command = [sys.executable, str(here / "fuzz_campaign.py"), name, str(folder)]
        command += [str(first), str(CHUNK)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stderr}; its input is in {folder}"
        result = json.loads(done.stdout)
        assert result["inputs"] == CHUNK
        assert result["findings"] == {}, f"inputs are in {folder / 'findings'}"

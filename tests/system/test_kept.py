"""Work saved under a key, and continued only with the same key."""

import json
from pathlib import Path

import numpy as np
import pytest

from system.errors import InputError
from system.kept import (
    Store,
    begin,
    check_key,
    continuing,
    load_arrays,
    load_result,
    save_arrays,
    save_result,
)

KEY = {"lr": 0.1, "layers": (1, 2), "weights": "ab12"}


def test_tuples_in_a_key_equal_the_lists_that_json_makes_of_them() -> None:
    check_key(Path("x"), json.loads(json.dumps(KEY)), KEY, "--exp")


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ("1,651 (cdcdcdcdcdcd)", "1,650 → 1,651"),
        ("1,650 (cdcdcdcdcdcd)", "names, bytes or times .*"),
    ],
)
def test_files_that_have_changed_are_named_without_their_digest(now: str, said: str) -> None:
    with pytest.raises(InputError, match=rf"other settings \(the images have changed: {said}\); "):
        check_key(Path("x"), {"images": f"1,650 ({'ab' * 6})"}, {"images": now}, "--exp")


@pytest.mark.parametrize(
    ("before", "changed"),
    [
        ({**KEY, "lr": 0.2}, "lr 0.2 → 0.1"),
        ({"lr": 0.1, "layers": [1]}, "layers [1] → [1, 2], weights None → ab12"),
        ({**KEY, "once": 1}, "once 1 → None"),
    ],
)
def test_another_key_is_named_with_its_differences(before: dict[str, object], changed: str) -> None:
    with pytest.raises(InputError) as error:
        check_key(Path("there"), before, KEY, "give another --exp")
    assert (
        str(error.value) == f"there: was made with other settings ({changed}); give another --exp"
    )


def test_work_is_continued_only_with_its_key(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    assert not begin(record, KEY, "give another --out")
    assert begin(record, KEY, "give another --out")
    with pytest.raises(
        InputError, match=r"record\.json: was made with other settings \(lr 0.1 → 5\)"
    ):
        begin(record, {**KEY, "lr": 5}, "give another --out")


@pytest.mark.parametrize("content", ["", "[1]", "5", '{"lr": 0.1', "[" * 100_000, "\udcff"])
def test_a_damaged_record_is_one_line(tmp_path: Path, content: str) -> None:
    record = tmp_path / "record.json"
    record.write_text(content, errors="surrogateescape")
    with pytest.raises(InputError, match=r"record\.json: is damaged; give another --out$"):
        begin(record, KEY, "give another --out")


def test_any_error_of_damaged_content_is_one_line() -> None:
    with (
        pytest.raises(InputError, match=r"there: is damaged; give another --exp$"),
        continuing(Path("there"), "give another --exp"),
    ):
        raise ZeroDivisionError
    with pytest.raises(InputError, match="mine"), continuing(Path("there"), "give another --exp"):
        raise InputError("mine")


def test_a_result_is_found_only_under_its_key(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    assert load_result(path, KEY) == (None, "missing")
    save_result(path, KEY, {"ap": 0.1 + 0.2})
    assert load_result(path, KEY) == ({"ap": 0.1 + 0.2}, "")
    other = "made with other settings (lr 0.1 → 0.2)"
    assert load_result(path, {**KEY, "lr": 0.2}) == (None, other)
    path.write_bytes(b"\xff")
    assert load_result(path, KEY) == (None, "damaged")


def test_arrays_are_found_only_under_their_key(tmp_path: Path) -> None:
    path, rows = tmp_path / "rows.npz", np.arange(6, dtype=np.float16).reshape(2, 3)
    assert load_arrays(path, KEY) == ({}, "missing")
    save_arrays(path, KEY, {"rows": rows})
    found, why = load_arrays(path, KEY)
    assert (list(found), why) == (["rows"], "")
    assert found["rows"].dtype == np.float16
    np.testing.assert_array_equal(found["rows"], rows)
    other = "made with other settings (weights ab12 → cd34)"
    assert load_arrays(path, {**KEY, "weights": "cd34"}) == ({}, other)


def test_arrays_that_are_compressed_pickled_or_damaged_are_not_loaded(tmp_path: Path) -> None:
    path, key = tmp_path / "rows.npz", np.array(json.dumps(KEY))
    np.savez_compressed(path, rows=np.zeros(1000), settings=key)
    assert load_arrays(path, KEY) == ({}, "compressed")
    np.savez(path, rows=np.array([print], dtype=object), settings=key)
    assert load_arrays(path, KEY) == ({}, "damaged")
    save_arrays(path, KEY, {"rows": np.zeros(1000)})
    damaged = bytearray(path.read_bytes())
    damaged[500] ^= 1
    path.write_bytes(damaged)
    assert load_arrays(path, KEY) == ({}, "damaged")


def test_a_store_has_the_arrays_of_each_key_side_by_side(tmp_path: Path) -> None:
    store, other = Store(tmp_path / "new"), {**KEY, "lr": 0.2}
    assert store.find("rows", KEY) == {}
    store.keep("rows", KEY, {"rows": np.arange(3)})
    store.keep("rows", other, {"rows": np.arange(5)})
    assert [len(store.find("rows", key)["rows"]) for key in (KEY, other)] == [3, 5]
    assert store.find("others", KEY) == {}
    shuffled = {"weights": "ab12", "layers": [1, 2], "lr": 0.1}
    assert len(store.find("rows", shuffled)["rows"]) == 3, "the same key"


def test_a_damaged_file_of_a_store_is_named_and_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    store.keep("rows", KEY, {"rows": np.arange(3)})
    path = store.path("rows", KEY)
    assert path is not None
    path.write_bytes(path.read_bytes()[:-30])
    assert store.find("rows", KEY) == {}
    assert capsys.readouterr().err == f"warning: {path}: damaged; it is computed again\n"


def test_a_store_that_cannot_be_written_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    Store(tmp_path / "file" / "below").keep("rows", KEY, {"rows": np.arange(3)})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: not kept for the next time: ")
    assert "Not a directory" in line


def test_a_store_without_a_folder_keeps_nothing() -> None:
    Store(None).keep("rows", KEY, {"rows": np.arange(3)})
    assert Store(None).find("rows", KEY) == {}

"""Three of any number of bands as RGB: NumPy arrays, and TIFF with --channels."""

import argparse
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ErrorLine
from image_zoo import HEIGHT, WIDTH, grey, tiff
from PIL import Image

import main
from data.decode import (
    UnreadableImageError,
    count_pixels,
    limit_pixels,
    read_grey,
    read_image,
    read_pixels,
)
from data.images import find_images
from data.reading import AS_STORED, Reading, chosen_reading
from system.errors import InputError

RNG = np.random.default_rng(0)
SIX8 = RNG.integers(256, size=(HEIGHT, WIDTH, 6), dtype=np.uint8)
SIX16 = RNG.integers(2**16, size=(HEIGHT, WIDTH, 6), dtype=np.uint16)
PICKED = Reading(channels=(0, 3, 5))


def pixels(content: bytes, reading: Reading = AS_STORED) -> np.ndarray:
    """The pixels `(H, W, 3)` of both decoders."""
    quick = read_pixels(io.BytesIO(content), reading).permute(1, 2, 0)
    slow = np.asarray(read_image(io.BytesIO(content), reading))
    assert torch.equal(quick, torch.from_numpy(slow.copy()))
    assert count_pixels(io.BytesIO(content), reading) == quick[..., 0].numel()
    return slow


def reason(content: bytes, reading: Reading = AS_STORED) -> str:
    """Why both decoders, and `read_grey`, don't read it."""
    said = set()
    for read in (read_pixels, read_image, read_grey):
        with pytest.raises(UnreadableImageError) as caught:
            read(io.BytesIO(content), reading)
        said.add(str(caught.value))
    (only,) = said
    return only


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def bands_tiff(
    values: np.ndarray,
    order: str = "<",
    big: bool = False,
    apart: bool = False,
    packed: bool = False,
    predictor: int = 1,
    tile: int = 0,
) -> bytes:
    """`(H, W, C)` numbers as a TIFF.

    Args:
        big: with 64-bit offsets.
        apart: each band has strips of its own, two of them.
        packed: deflated.
        predictor: 2 for differences between neighbours.
        tile: side of square tiles; 0 for strips.
    """
    height, width, count = values.shape
    stored = values.astype(order + values.dtype.str[1:])
    layers = np.moveaxis(stored, 2, 0)[..., None] if apart else stored[None]
    blocks = []
    for layer in layers:
        if tile:
            rows, columns = -(-height // tile) * tile, -(-width // tile) * tile
            whole = np.pad(layer, ((0, rows - height), (0, columns - width), (0, 0)))
            blocks += [
                whole[top : top + tile, left : left + tile]
                for top in range(0, rows, tile)
                for left in range(0, columns, tile)
            ]
        else:
            blocks += [layer[: height // 2], layer[height // 2 :]]
    if predictor == 2:
        blocks = [np.diff(each, axis=1, prepend=each[:, :1] * 0) for each in blocks]
    data = [each.astype(stored.dtype).tobytes() for each in blocks]
    data = [zlib.compress(each) for each in data] if packed else data
    word, size, many = ("Q", 8, "Q") if big else ("I", 4, "H")
    content = bytearray(struct.pack(order + "4s", b"II+\0" if order == "<" else b"MM\0+") if big
                        else (b"II*\0" if order == "<" else b"MM\0*"))  # fmt: skip
    content += struct.pack(order + "HHQ", 8, 0, 0) if big else bytes(4)
    offsets = []
    for each in data:
        offsets.append(len(content))
        content += each
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]), 257: ("I", [height]), 259: ("H", [8 if packed else 1]),
        258: ("H", [values.dtype.itemsize * 8] * count), 262: ("H", [1]), 277: ("H", [count]),
        284: ("H", [2 if apart else 1]), 317: ("H", [predictor]), 339: ("H", [kind] * count),
        700: ("B", [7] * 99),
    }  # fmt: skip
    lengths = [len(each) for each in data]
    if tile:
        tags |= {322: ("I", [tile]), 323: ("I", [tile]), 324: (word, offsets), 325: ("I", lengths)}
    else:
        tags |= {278: ("I", [height // 2]), 273: (word, offsets), 279: ("I", lengths)}
    places = {}
    for tag, (code, numbers) in tags.items():
        raw = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        if len(raw) > size:
            places[tag] = struct.pack(order + word, len(content))
            content += raw
        else:
            places[tag] = raw.ljust(size, b"\0")
    content[size : 2 * size] = struct.pack(order + word, len(content))
    content += struct.pack(order + many, len(tags))
    for tag, (code, numbers) in sorted(tags.items()):
        kind = {"B": 1, "H": 3, "I": 4, "Q": 16}[code]
        content += struct.pack(f"{order}HH{word}", tag, kind, len(numbers)) + places[tag]
    return bytes(content + bytes(size))


LAYOUTS = {
    "strips": {}, "bands apart": {"apart": True}, "big-endian": {"order": ">"},
    "big-endian, apart": {"order": ">", "apart": True}, "BigTIFF": {"big": True},
    "BigTIFF, apart": {"big": True, "apart": True}, "deflated": {"packed": True},
    "deflated, apart": {"packed": True, "apart": True},
    "differences": {"packed": True, "predictor": 2},
    "differences, big-endian": {"packed": True, "predictor": 2, "order": ">"},
    "differences, apart": {"packed": True, "predictor": 2, "apart": True},
    "tiles": {"tile": 16}, "tiles apart": {"tile": 16, "apart": True},
    "tiles of differences": {"tile": 16, "packed": True, "predictor": 2},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_three_bands_of_a_tiff(layout: str) -> None:
    found = pixels(bands_tiff(SIX8, **LAYOUTS[layout]), PICKED)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, SIX8[:, :, [0, 3, 5]])
    found = pixels(bands_tiff(SIX16, **LAYOUTS[layout]), PICKED)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, SIX16[:, :, [0, 3, 5]] >> 8)


@pytest.mark.parametrize("packing", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "lzma", "zstd"])
def test_packed_bands_of_a_tiff(packing: str) -> None:
    """Pillow packs them as a grey image, whose tags then say that it has six bands."""
    buffer = io.BytesIO()
    wide = Image.fromarray(SIX16.reshape(HEIGHT, 6 * WIDTH))
    wide.save(buffer, "TIFF", compression=packing, tiffinfo={277: 1})
    content = buffer.getvalue()
    for tag, before, after in ((256, 6 * WIDTH, WIDTH), (277, 1, 6)):
        old, new = (struct.pack("<HHII", tag, 3, 1, value) for value in (before, after))
        assert content.count(old) == 1
        content = content.replace(old, new)
    np.testing.assert_array_equal(pixels(content, PICKED), SIX16[:, :, [0, 3, 5]] >> 8)


@pytest.mark.parametrize("form", ["HWC", "CHW", "tiff", "Fortran"])
@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("u2", 0, 4095),
        ("i2", -1024, 3071),
        ("f4", -3.5, 20.0),
        ("u4", 0, 2**32 - 1),
        ("i4", -9, 246),
    ],
)
def test_each_band_is_scaled_by_the_range(form: str, dtype: str, low: float, high: float) -> None:
    values = low + SIX8 * ((high - low) / 255)
    values = (values if dtype == "f4" else np.rint(values)).astype(dtype)
    content = {
        "HWC": npy(values), "CHW": npy(values.transpose(2, 0, 1)), "tiff": bands_tiff(values),
        "Fortran": npy(np.asfortranarray(values.astype(">" + dtype))),
    }[form]  # fmt: skip
    found = pixels(content, Reading(range=(low, high), channels=(5, 0, 0)))
    np.testing.assert_array_equal(found, SIX8[:, :, [5, 0, 0]])
    stored, levels = read_grey(io.BytesIO(content), Reading(range=(low, high), channels=(5, 0, 0)))
    np.testing.assert_array_equal(stored, values[:, :, [5, 0, 0]].ravel())
    np.testing.assert_array_equal(levels, SIX8[:, :, [5, 0, 0]].ravel())
    if dtype != "u2":
        assert "numbers, here from" in reason(content, PICKED)
        assert reason(content, PICKED).endswith("with --range LOW HIGH")


def test_arrays_of_one_or_three_bands_need_no_channels() -> None:
    for values in (SIX8[:, :, 0], SIX8[:, :, :1], SIX8[:, :, :1].transpose(2, 0, 1)):
        np.testing.assert_array_equal(pixels(npy(values)), grey(SIX8[:, :, 0]))
    for values in (SIX8[:, :, :3], SIX8[:, :, :3].transpose(2, 0, 1)):
        np.testing.assert_array_equal(pixels(npy(values)), SIX8[:, :, :3])
    np.testing.assert_array_equal(pixels(npy(SIX16[:, :, 1])), grey(SIX16[:, :, 1] >> 8))


def test_bands_that_are_not_there_are_named() -> None:
    assert reason(npy(SIX8)) == "has 6 bands: choose three with --channels R G B, of 0 to 5"
    outside = Reading(channels=(0, 3, 6))
    for content in (npy(SIX8), bands_tiff(SIX8)):
        assert reason(content, outside) == "has 6 bands, too few for --channels 0 3 6: 0 to 5"
    assert "6 channels (8-bit): choose three with --channels" in reason(tiff(SIX8))


def test_channels_leave_other_files_alone() -> None:
    buffer = io.BytesIO()
    Image.fromarray(SIX8[:, :, :3]).save(buffer, "PNG")
    np.testing.assert_array_equal(pixels(buffer.getvalue(), PICKED), SIX8[:, :, :3])


def test_objects_are_never_loaded() -> None:
    file = io.BytesIO()
    np.save(file, np.array([[{"a": 1}]], object), allow_pickle=True)
    assert reason(file.getvalue()).startswith("holds object of shape (1, 1), which is no image")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy(np.zeros((4, 5, 6, 7), "u1")), "holds uint8 of shape (4, 5, 6, 7), which is no image"),
        (npy(np.zeros((4, 0, 3), "u1")), "which is no image"),
        (npy(np.zeros((4, 5), "c8")), "holds complex64 of shape (4, 5), which is no image"),
        (npy(SIX8[:, :, :3])[:-1], "is cut: it has too few bytes for uint8 of (24, 36, 3)"),
        (b"\x93NUMPY\x07\0" + bytes(50), "is of version 7.0 of the npy format; save it anew"),
        (npy(SIX8)[:40], "EOF"),
        (bands_tiff(SIX8)[:60], "its TIFF directory is damaged"),
        (b"II*\0" + bytes(4), "damaged"),
    ],
)
def test_damaged_files_are_unreadable(content: bytes, words: str) -> None:
    assert words in reason(content, PICKED)


def test_large_arrays_are_named_before_memory_is_taken() -> None:
    header = io.BytesIO()
    shape = 4_000_000, 5_000_000, 3
    form = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, form)
    assert "is cut: it has too few bytes for uint8 of (4000000, 5" in reason(header.getvalue())
    limit_pixels(1000)
    try:
        many = f"{HEIGHT * WIDTH * 6:,} values in 6 bands, more than --max-pixels 1000"
        assert reason(npy(SIX8), PICKED) == many
        assert reason(bands_tiff(SIX8), PICKED) == many
    finally:
        limit_pixels(178_956_970)


def test_unreadable_bands_have_a_reason() -> None:
    mixed = bytearray(bands_tiff(SIX8))
    place = mixed.index(struct.pack("<6H", *[8] * 6))
    mixed[place : place + 2] = struct.pack("<H", 16)
    assert reason(bytes(mixed), PICKED) == "its bands are of different types"
    floats = bands_tiff(SIX8.astype("f4"), packed=True, predictor=3)
    assert "predictor 3; save it without a predictor" in reason(floats, PICKED)
    jpeg = bands_tiff(SIX8).replace(struct.pack("<HHIHH", 259, 3, 1, 1, 0),
                                    struct.pack("<HHIHH", 259, 3, 1, 7, 0))  # fmt: skip
    assert reason(jpeg, PICKED) == "--channels does not read bands of TIFF compression 7"


def test_a_folders_arrays_of_three_axes_are_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.npy").write_bytes(npy(SIX8))
    (tmp_path / "features.npy").write_bytes(npy(np.zeros((40, 8), "f4")))
    (tmp_path / "damaged.npy").write_bytes(b"\x93NUMPY")
    images = find_images(tmp_path, PICKED)
    assert list(images.names) == ["a.npy"]
    np.testing.assert_array_equal(images.read_pixels(0).permute(1, 2, 0), SIX8[:, :, [0, 3, 5]])
    assert "2 files are no images by name or first bytes" in capsys.readouterr().err


def test_the_flag_takes_three_numbers_and_a_checkpoint_keeps_them(
    tree: Path, error_line: ErrorLine
) -> None:
    assert "--channels" in error_line(main, str(tree), "--channels", "0", "1")
    assert "'x' is not a whole number" in error_line(main, str(tree), "--channels", "x", "1", "2")
    settings = {"channels": [0, 3, 5]}
    args = argparse.Namespace(exif=None, range=None, channels=None)
    assert chosen_reading(args, settings, Path("network")) == PICKED
    args.channels = [1, 1, 2]
    assert chosen_reading(args, settings, Path("network")) == Reading(channels=(1, 1, 2))
    args.channels = None
    for kept in ("035", [0, 1], [0, 1, -1], [0, 1, True]):
        with pytest.raises(InputError, match=r"^network: its channels are .*; give --channels R"):
            chosen_reading(args, {"channels": kept}, Path("network"))
    assert Reading(channels=(0, 3, 5)).key == {"channels": [0, 3, 5]}

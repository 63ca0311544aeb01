"""Grey of any depth has the pixels of its 8-bit copy, or is unreadable without --range."""

import io

import numpy as np
import pytest
import torch
from image_zoo import GREY16, HEIGHT, WIDTH, encoded, grey, tiff, tiff12
from PIL import Image

from data.decode import UnreadableImageError, read_image, read_pixels
from data.reading import AS_STORED, Reading

GREY8 = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 256
WHITE_IS_LOW = {("f4", "<"), ("f4", ">"), ("u2", "<")}  # that Pillow reads
NEEDS_RANGE = "give the range of all images with --range LOW HIGH"


def pixels(content: bytes, reading: Reading = AS_STORED) -> np.ndarray:
    """The pixels `(H, W, 3)` of both decoders."""
    quick = read_pixels(io.BytesIO(content), reading).permute(1, 2, 0)
    slow = np.asarray(read_image(io.BytesIO(content), reading))
    assert torch.equal(quick, torch.from_numpy(slow.copy()))
    return slow


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(
    ("dtype", "low", "high", "orders"),
    [
        ("f4", 0.0, 1.0, "<>"), ("f4", -3.5, 20.0, "<>"), ("f4", 1e-3, 1e30, "<>"),
        ("u2", 0, 4095, "<>"), ("u2", 1000, 60000, "<>"),
        ("i1", -128, 127, "<>"), ("i2", -1024, 3071, "<>"), ("i4", -70000, 1 << 30, "<>"),
        ("u4", 0, (1 << 32) - 1, "<"), ("u4", (1 << 32) - 2000, (1 << 32) - 1, "<"),
    ],
)  # fmt: skip
def test_a_range_gives_the_pixels_of_the_8_bit_copy(
    dtype: str, low: float, high: float, orders: str, photometric: int
) -> None:
    values = np.float64(low) + GREY8 * ((high - low) / 255)
    values = values if dtype == "f4" else np.rint(values)
    expected = grey(255 - GREY8 if photometric == 0 else GREY8)
    for order in orders:
        content = tiff(values.astype(dtype), photometric, order)
        if photometric == 0 and (dtype, order) not in WHITE_IS_LOW:
            with pytest.raises(UnreadableImageError, match=r"^Pillow does not read 1 channel of"):
                pixels(content, Reading(range=(low, high)))
        else:
            found = pixels(content, Reading(range=(low, high)))
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.linspace(0, 1, 6, dtype="f4"), "float numbers, here from 0 to 1"),
        (np.full(6, np.nan, "f4"), "float numbers"),
        (np.arange(-3, 3).astype("i1"), "signed 8-bit numbers, here from -3 to 2"),
        (np.arange(-3, 3).astype("i2"), "signed 16-bit numbers, here from -3 to 2"),
        (np.arange(-3, 3).astype("i4"), "signed 32-bit numbers, here from -3 to 2"),
        (np.arange(6).astype("u4") << 29, "32-bit numbers, here from 0 to 2.68435e+09"),
    ],
)  # fmt: skip
def test_without_a_range_it_is_unreadable(values: np.ndarray, kind: str) -> None:
    content = tiff(values.reshape(2, 3))
    for read in (read_image, read_pixels):
        with pytest.raises(UnreadableImageError) as caught:
            read(io.BytesIO(content))
        assert str(caught.value) == f"its grey levels are {kind}: {NEEDS_RANGE}"


def test_values_beyond_the_range_are_clipped_and_nan_counts_as_low() -> None:
    values = np.array([[-np.inf, -1, 0, 0.5], [1, 7, np.inf, np.nan]], "f4")
    found = pixels(tiff(values), Reading(range=(0, 1)))[:, :, 0]
    np.testing.assert_array_equal(found, [[0, 0, 0, 128], [255, 255, 255, 0]])


def fits(bits: int, values: np.ndarray) -> bytes:
    cards = {"SIMPLE": "T", "BITPIX": bits, "NAXIS": 2, "NAXIS1": 3, "NAXIS2": 2}
    head = "".join(f"{name:8}= {value!s:>20}".ljust(80) for name, value in cards.items())
    return (head + "END").ljust(2880).encode() + values.tobytes().ljust(2880, b"\0")


@pytest.mark.parametrize(("bits", "dtype"), [(16, ">i2"), (32, ">i4"), (-32, ">f4")])
def test_fits_is_signed_or_float(bits: int, dtype: str) -> None:
    content = fits(bits, np.array([[-100, 0, 155], [-99, 1, 154]], dtype))
    with pytest.raises(UnreadableImageError, match=f"here from -100 to 155: {NEEDS_RANGE}"):
        pixels(content)
    found = pixels(content, Reading(range=(-100, 155)))[:, :, 0]
    assert sorted(found.ravel().tolist()) == [0, 1, 100, 101, 254, 255]


def test_a_portable_float_map_is_float() -> None:
    content = b"Pf\n3 2\n-1.0\n" + (np.arange(6) / 5).astype("<f4").tobytes()
    with pytest.raises(UnreadableImageError, match=NEEDS_RANGE):
        pixels(content)
    found = pixels(content, Reading(range=(0, 1)))[:, :, 0]
    assert sorted(found.ravel().tolist()) == [0, 51, 102, 153, 204, 255]


WIDE = {
    "16-bit PNG": encoded(GREY16, "PNG"),
    "16-bit TIFF": tiff(GREY16),
    "16-bit big-endian TIFF": tiff(GREY16, order=">"),
    "16-bit PGM": encoded(GREY16, "PPM"),
    "16-bit JPEG 2000": encoded(GREY16, "JPEG2000", irreversible=False),
}


@pytest.mark.parametrize("content", WIDE.values(), ids=list(WIDE))
def test_16_bits_follow_their_type_or_the_range(content: bytes) -> None:
    np.testing.assert_array_equal(pixels(content), grey(GREY16 >> 8))
    scaled = pixels(content, Reading(range=(0, 65535)))
    np.testing.assert_array_equal(scaled, grey(np.rint(GREY16 / 257)))


def test_12_bits_in_16_keep_their_levels_with_a_range() -> None:
    content = encoded(GREY16 >> 4, "PNG")
    assert len(np.unique(pixels(content))) <= 16
    found = pixels(content, Reading(range=(0, 4095)))
    np.testing.assert_array_equal(found, grey(np.rint((GREY16 >> 4) / 4095 * 255)))


def test_a_range_leaves_8_bits_and_colours_alone() -> None:
    colours = np.stack([GREY8, 255 - GREY8, GREY8 // 2], axis=2).astype(np.uint8)
    for values in (GREY8.astype(np.uint8), colours):
        for kind in ("PNG", "TIFF", "JPEG"):
            content = encoded(values, kind)
            np.testing.assert_array_equal(pixels(content, Reading(range=(0, 1))), pixels(content))


@pytest.mark.parametrize("compression", ["raw", "tiff_adobe_deflate", "packbits", "tiff_lzw"])
@pytest.mark.parametrize("depth", [1, 8])
def test_min_is_white_is_followed_whatever_the_compression(depth: int, compression: str) -> None:
    """Pillow's writer inverts 8-bit values for photometric 0."""
    values = Image.fromarray(GREY8.astype(np.uint8)).convert("1" if depth == 1 else "L")
    content = encoded(values, "TIFF", compression=compression, tiffinfo={262: 0})
    stored = np.asarray(values.convert("L"))
    assert Image.open(io.BytesIO(content)).tag_v2[262] == 0  # type: ignore[attr-defined]
    np.testing.assert_array_equal(pixels(content), grey(stored))


def packed(values: np.ndarray, bits: int, photometric: int) -> bytes:
    """Values below 2**bits as a TIFF with several of them in a byte."""
    each = 8 // bits
    rows = values.reshape(-1, each) << np.arange(8 - bits, -1, -bits)
    content = bytearray(
        tiff(rows.sum(axis=1).astype(np.uint8).reshape(len(values), -1), photometric)
    )
    at = int.from_bytes(content[4:8], "little") + 2
    for entry in range(at, at + 120, 12):
        tag = int.from_bytes(content[entry : entry + 2], "little")
        if tag in (256, 258):
            value = values.shape[1] if tag == 256 else bits
            content[entry + 8 : entry + 12] = value.to_bytes(4, "little")
    return bytes(content)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_photometric_tags_are_followed_in_each_depth(bits: int, photometric: int) -> None:
    whole = 2**bits - 1
    values = (np.arange(HEIGHT * 32).reshape(HEIGHT, 32) * 37) % (whole + 1)
    content = (
        tiff(values.astype("u2"), photometric) if bits == 16 else packed(values, bits, photometric)
    )
    shown = values >> 8 if bits == 16 else values * 255 // whole
    np.testing.assert_array_equal(pixels(content), grey(255 - shown if photometric == 0 else shown))


def test_12_bit_tiff_is_scaled_by_its_type_or_the_range() -> None:
    values = np.minimum(GREY16 >> 4, 4095)
    np.testing.assert_array_equal(pixels(tiff12(values)), grey(values >> 4))
    found = pixels(tiff12(values), Reading(range=(0, 4095)))
    np.testing.assert_array_equal(found, grey(np.rint(values / 4095 * 255)))

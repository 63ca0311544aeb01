"""Contact sheets: where pictures lie, and titles of all kinds."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from conftest import image_list, write_images
from PIL import Image

from system.errors import InputError
from visu.contact_sheet import GROUND, MISSING, Strip, Thumbnails, contact_sheet, thumbnail

RED, GREEN, BLUE, GREY = (200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 90)


def square(colour: tuple[int, int, int], side: int = 30) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def boxes(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, upper, right and lower end of the pixels with a colour."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def ink(sheet: Image.Image) -> np.ndarray:
    """The columns with text of a sheet without pictures."""
    return np.flatnonzero((np.asarray(sheet) != GROUND).any(axis=(0, 2)))


def test_pictures_lie_in_rows_and_do_not_touch() -> None:
    strips = [
        Strip("one", [square(RED), square(GREEN), square(BLUE)]),
        Strip("two", [square(GREY)]),
    ]
    sheet = contact_sheet(strips, columns=2, side=30)
    red, green, blue, grey = (boxes(sheet, colour) for colour in (RED, GREEN, BLUE, GREY))
    for left, up, right, low in (red, green, blue, grey):
        assert (right - left, low - up) == (30, 30)
    assert (red[0], red[1]) == (blue[0], green[1]) == (grey[0], green[1])
    assert red[2] < green[0] < green[2] < sheet.width  # beside each other
    assert red[3] < blue[1]  # the next row
    assert blue[3] + 14 < grey[1] < grey[3] < sheet.height  # below the second title


def test_a_picture_that_is_too_large_stays_in_its_square() -> None:
    large = Image.new("RGB", (300, 150), RED)
    sheet = contact_sheet([Strip("", [large, square(GREEN)])], columns=2, side=30)
    left, up, right, low = boxes(sheet, RED)
    assert (right - left, low - up) == (30, 15)


def test_a_long_title_is_cut_with_an_ellipsis_within_the_sheet() -> None:
    whole, cut, longer = (
        contact_sheet([Strip(title, [])], columns=3, side=40)
        for title in ("a short title", "a very long title " * 20, "a very long title " * 30)
    )
    assert ink(whole).max() < whole.width - 20
    assert whole.width - 20 < ink(cut).max() < cut.width - 4
    assert cut == longer  # nothing is drawn beyond the sheet's edge
    ends = np.asarray(cut)[:, ink(cut).max() - 10 :]
    rows = np.flatnonzero(ends.min(axis=(1, 2)) < 120)
    assert rows.min() > 10  # dots on the line


@pytest.mark.parametrize(
    "title",
    ["кошка Ωμέγα عربى", "日本語 🐱", "not\udcff UTF-8", "two\nlines\tand \0 \x1b[31m", "", "\n"],
)
def test_any_title_can_be_drawn(title: str) -> None:
    sheet = contact_sheet([Strip(title, [square(RED)])])
    assert sheet.height == contact_sheet([Strip("plain", [square(RED)])]).height
    assert len(ink(contact_sheet([Strip(title, [])]))) > 0 or not title.strip()


def test_cyrillic_letters_are_drawn() -> None:
    drawn = {contact_sheet([Strip(title, [])]).tobytes() for title in ("кот", "дом", "сыр")}
    assert len(drawn) == 3  # not the same box for each letter


def test_a_sheet_that_is_too_large_is_an_error_before_a_picture_is_read() -> None:
    class Unread(Thumbnails):
        def __getitem__(self, index):  # type: ignore[no-untyped-def]
            raise AssertionError("read")

    for columns in (10, 400):
        with pytest.raises(InputError, match=r"pixels is too large"):
            contact_sheet([Strip("", Unread(image_list("x"), [0] * 100_000, 96))], columns)


def test_thumbnails_are_made_one_at_a_time(tmp_path: Path) -> None:
    images = image_list(*write_images(tmp_path, 6))
    lazy = Thumbnails(images, [5, 0, 2, 3], 24)
    assert len(lazy) == 4
    assert [picture.size for picture in itertools.islice(lazy, 4)] == [(24, 24)] * 4
    assert lazy[2] == thumbnail(images, 2, 24)
    eager = [thumbnail(images, index, 24) for index in (5, 0, 2, 3)]
    assert contact_sheet([Strip("", lazy)]) == contact_sheet([Strip("", eager)])


def test_a_thumbnail_is_the_central_square(tmp_path: Path) -> None:
    wide = Image.new("RGB", (90, 30), RED)
    wide.paste(square(BLUE), (30, 0))
    wide.save(tmp_path / "wide.png")
    found = np.asarray(thumbnail(image_list(tmp_path / "wide.png"), 0, 15))
    assert found.shape == (15, 15, 3)
    assert np.abs(found.astype(int) - BLUE).max() < 20  # but for the interpolation at the edge


def test_an_unreadable_image_is_grey(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    for name in ("bad.png", "missing.png"):
        assert thumbnail(image_list(tmp_path / name), 0, 8).getcolors() == [(64, MISSING)]

"""Contact sheets: many small pictures in rows, with a line of text above each strip of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

from data.decode import UnreadableImageError, read_image
from data.images import ImageList
from system.errors import InputError

SPACE = 4  # pixels between pictures
TEXT = 20  # height of a line of text in pixels
FONT_SIZE = 14
GROUND, INK, MISSING = (250, 250, 250), (20, 20, 20), (200, 200, 200)
LARGEST_SIDE = 65_500  # pixels; the most that a JPEG can have
MOST_PIXELS = 2**27  # 400 MB


@dataclass(frozen=True)
class Strip:
    """A line of text and the pictures below it."""

    title: str
    pictures: Sequence[Image.Image]


@dataclass(frozen=True)
class Thumbnails(Sequence[Image.Image]):
    """Thumbnails of some images, each made when it is asked for, so that only the sheet takes
    memory."""

    images: ImageList
    chosen: Sequence[int]
    side: int

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return thumbnail(self.images, self.chosen[index], self.side)


def thumbnail(images: ImageList, index: int, side: int) -> Image.Image:
    """The central square of an image, `side` × `side` pixels, RGB; grey where it cannot be read."""
    try:
        with images.open(index) as file:
            return ImageOps.fit(read_image(file), (side, side))
    except UnreadableImageError:
        return Image.new("RGB", (side, side), MISSING)


def contact_sheet(strips: Sequence[Strip], columns: int = 10, side: int = 96) -> Image.Image:
    """Draw strips below each other; one with more than `columns` pictures goes over several rows.
    A title that is too long is cut; a picture that is too large is made smaller.

    Args:
        side: of the square that each picture is drawn in, in pixels.

    Raises:
        InputError: the sheet would be too large; no picture has been asked for yet.
    """
    step = side + SPACE
    width, heights = check_sheet([len(strip.pictures) for strip in strips], columns, side)
    sheet = Image.new("RGB", (width, SPACE + sum(heights)), GROUND)
    draw, font = ImageDraw.Draw(sheet), _font()
    top = SPACE
    for strip, height in zip(strips, heights, strict=True):
        title = _shortened(_printable(strip.title), font, width - 2 * SPACE)
        draw.text((SPACE, top), title, INK, font)
        for number, picture in enumerate(strip.pictures):
            row, column = divmod(number, columns)
            left, upper = SPACE + column * step, top + TEXT + SPACE + row * step
            fitting = (
                picture if max(picture.size) <= side else ImageOps.contain(picture, (side,) * 2)
            )
            sheet.paste(fitting, (left, upper))
        top += height
    return sheet


def check_sheet(counts: Sequence[int], columns: int = 10, side: int = 96) -> tuple[int, list[int]]:
    """The width of a sheet and the height of each strip, in pixels, of strips with so many
    pictures.

    Raises:
        InputError: the sheet would be too large.
    """
    step = side + SPACE
    heights = [TEXT + 2 * SPACE + -(-count // columns) * step for count in counts]
    width, height = SPACE + columns * step, SPACE + sum(heights)
    if max(width, height) > LARGEST_SIDE or width * height > MOST_PIXELS:
        raise InputError(
            f"a contact sheet of {width:,} × {height:,} pixels is too large; ask for fewer pictures"
        )
    return width, heights


def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has most alphabets; Pillow's has the Latin one
    only."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(path, FONT_SIZE)


def _printable(text: str) -> str:
    """One line that can be drawn: a line break is a space, and what is no text (the bytes of a file
    name that is not UTF-8, control characters) the sign for a character
    that is missing."""
    spaced = " ".join(text.split())
    return "".join(c if c.isprintable() else "\ufffd" for c in spaced)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, or as much of its beginning as fits into so many pixels, with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:  # halve what lies between
        middle = (fits + too_long) // 2
        if font.getlength(f"{text[:middle]}…") <= width:
            fits = middle
        else:
            too_long = middle
    return f"{text[:fits].rstrip()}…"

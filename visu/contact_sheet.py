"""Contact sheets: many small pictures in rows, in strips with a line of text above each."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont, ImageOps

from data.decode import UnreadableImageError
from data.images import ImageList
from system.errors import InputError

SPACE = 4  # pixels between pictures
TEXT = 20  # height of a line of text in pixels
FONT_SIZE = 14
GROUND, INK, MISSING = (250, 250, 250), (20, 20, 20), (200, 200, 200)
LARGEST_SIDE = 65_500  # pixels, the limit of JPEG
MOST_PIXELS = 2**27  # 400 MB


@dataclass(frozen=True)
class Strip:
    """A line of text and the pictures below it."""

    title: str
    pictures: Sequence[Image.Image]


@dataclass(frozen=True)
class Thumbnails(Sequence[Image.Image]):
    """Thumbnails of some images. Each is made when it is used: only the sheet takes memory, and a
    sheet that is too large is noticed before any image is read."""

    images: ImageList
    chosen: Sequence[int]
    side: int

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return thumbnail(self.images, self.chosen[index], self.side)


def thumbnail(images: ImageList, index: int, side: int) -> Image.Image:
    """The central square of an image, `side` × `side` pixels, RGB; grey if it can't be read."""
    try:
        return ImageOps.fit(images.read_image(index), (side, side))
    except UnreadableImageError:
        return Image.new("RGB", (side, side), MISSING)


def contact_sheet(strips: Sequence[Strip], columns: int = 10, side: int = 96) -> Image.Image:
    """Draw strips below each other; a strip with more than `columns` pictures takes several rows.
    A title that is too long is cut; a picture that is too large is made smaller.

    Args:
        side: of each picture's square, in pixels.

    Raises:
        InputError: the sheet would be too large.
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
            if max(picture.size) > side:
                picture = ImageOps.contain(picture, (side, side))
            sheet.paste(picture, (left, upper))
        top += height
    return sheet


def check_sheet(counts: Sequence[int], columns: int = 10, side: int = 96) -> tuple[int, list[int]]:
    """The width of a sheet and the heights of its strips, in pixels.

    Args:
        counts: the number of pictures of each strip.

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
    """DejaVu Sans, which comes with matplotlib and has most alphabets; Pillow's own font has only
    the Latin one."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(path, FONT_SIZE)


def _printable(text: str) -> str:
    """One line of text: line breaks become spaces; control characters, and bytes of a file name
    that are not UTF-8, become the replacement character."""
    spaced = " ".join(text.split())
    return "".join(c if c.isprintable() else "\ufffd" for c in spaced)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, cut to a width in pixels, with an ellipsis if it is cut."""
    if font.getlength(text) <= width:
        return text
    lengths = range(1, len(text))
    fits = bisect.bisect(
        lengths, float(width), key=lambda length: font.getlength(f"{text[:length]}…")
    )
    return f"{text[:fits].rstrip()}…"

"""Contact sheets: many small pictures in rows, with a line of text above each row."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

from data.decode import UnreadableImageError, read_image

SPACE = 4  # pixels between pictures
TEXT = 14  # height of a line of text in pixels
GROUND, INK, MISSING = (250, 250, 250), (30, 30, 30), (200, 200, 200)


@dataclass(frozen=True)
class Strip:
    """A line of text and the pictures below it."""

    title: str
    pictures: Sequence[Image.Image]


def thumbnail(path: str, side: int) -> Image.Image:
    """The central square of an image file, `side` × `side` pixels, RGB; grey where the file cannot
    be read."""
    try:
        return ImageOps.fit(read_image(path), (side, side))
    except UnreadableImageError:
        return Image.new("RGB", (side, side), MISSING)


def contact_sheet(strips: Sequence[Strip], columns: int = 10, side: int = 96) -> Image.Image:
    """Draw strips below each other; one with more than `columns` pictures goes over several rows.

    Args:
        side: of the square that each picture is drawn in, in pixels.
    """
    step = side + SPACE
    rows = [-(-len(strip.pictures) // columns) for strip in strips]
    heights = [TEXT + 2 * SPACE + count * step for count in rows]
    sheet = Image.new("RGB", (SPACE + columns * step, sum(heights) + SPACE), GROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT - 2)
    top = SPACE
    for strip, height in zip(strips, heights, strict=True):
        draw.text((SPACE, top), strip.title, INK, font)
        for number, picture in enumerate(strip.pictures):
            row, column = divmod(number, columns)
            sheet.paste(picture, (SPACE + column * step, top + TEXT + SPACE + row * step))
        top += height
    return sheet

"""HTML pages that need no other file, from templates and small pictures."""

import base64
import io
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from system.files import atomic_write

OPTIONS = {"quality": 95, "subsampling": 0}  # lower values blur fine textures and their colours
_SURROGATES = re.compile("[\ud800-\udfff]")  # bytes of file names that are not UTF-8


def fill_template(name: str, content: dict[str, Any]) -> str:
    """Render a template of this folder. Any HTML in the content is escaped and shows as text."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    templates.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    templates.filters |= {"count": _count, "percent": percent, "png": to_png}
    page = templates.get_template(name).render(content)
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", page)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def to_webp(picture: Image.Image) -> str:
    """A picture as WebP in base64."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=60)
    return base64.b64encode(file.getvalue()).decode()


def to_png(picture: Image.Image) -> str:
    """A picture as PNG in base64."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def save_jpeg(picture: Image.Image, path: Path) -> None:
    """Write a picture whole or not at all."""
    with atomic_write(path, durable=False) as file:
        picture.save(file, "JPEG", **OPTIONS)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

"""What HTML pages that need no other file are made of: a template, data in JSON, small pictures."""

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from system.files import atomic_write


def fill_template(name: str, content: Any) -> str:
    """A template of this folder with the data that its script reads in the place of `{{content}}`.
    The script is to show texts as text (`textContent`): they may be anything."""
    template = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return template.replace("{{content}}", to_json(content))


def to_json(content: Any) -> str:
    """JSON that may stand in a `<script>`: nothing in it can end that."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def to_webp(picture: Image.Image, quality: int = 60) -> str:
    """A picture as WebP in base64."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=quality)
    return base64.b64encode(file.getvalue()).decode()


def to_png(picture: Image.Image) -> str:
    """A picture as PNG in base64."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


OPTIONS = {"quality": 95, "subsampling": 0}  # fine textures and their colours suffer below


def save_jpeg(picture: Image.Image, path: Path) -> None:
    """Write a picture whole or not at all."""
    with atomic_write(path, durable=False) as file:
        picture.save(file, "JPEG", **OPTIONS)

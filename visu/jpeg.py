"""Pictures as files."""

from pathlib import Path

from PIL import Image

from system.files import atomic_write

OPTIONS = {"quality": 95, "subsampling": 0}  # fine textures and their colours suffer below


def save_jpeg(picture: Image.Image, path: Path) -> None:
    """Write a picture whole or not at all."""
    with atomic_write(path, durable=False) as file:
        picture.save(file, "JPEG", **OPTIONS)

"""The images of a Parquet file: which column has them, its labels and names; and one image."""

import json
from pathlib import Path
from typing import Any

from data.decode import UnreadableImageError
from data.folder import UNLABELLED
from data.lists import LABELS
from data.packed.entries import Entries, Found, pack
from data.packed.page_headers import read_page
from data.packed.pages import CODECS, Column, Values, places, read_values
from system.errors import InputError, shorten

IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp")  # columns of bytes, the first ones first
TEXTS = ("url", "image_url", "path", "image_path", "file_name", "filename")
NAMES = ("key", "__key__")  # img2dataset's, WebDataset's
MOST_ROWS = 2_000_000  # of a row group


def read_parquet(path: Path) -> Entries:
    """The images of a Parquet file, a row each.

    Raises:
        InputError: it is damaged, or has no column of images, or one in an unknown form.
        OSError: it can't be read.
    """
    import pyarrow.parquet

    with path.open("rb") as file:
        try:
            table = pyarrow.parquet.ParquetFile(file)
            schema = table.schema_arrow
        except Exception as error:  # damaged footers make pyarrow raise almost anything
            raise InputError(f"{path}: not a Parquet file: {shorten(error)}") from error
        column = _image_column(path, schema)
        try:
            parts = _pages(table, column)
            found = [place for part in parts for place in places(file.fileno(), part)]
            labels = _labels(table, schema)
            names = _names(table, schema, column)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{path}: can't be read: {shorten(error)}") from error
    if not len(found) == len(labels) == len(names):
        raise InputError(f"{path}: can't be read: its columns have different numbers of rows")
    codecs = {part.codec for part in parts} - {""}
    if len(codecs) > 1:
        several = ", ".join(sorted(codecs))
        raise InputError(f"{path}: its images are compressed with {several}; only one can be read")
    codec = f"{codecs.pop()} {parts[0].levels}" if codecs else ""
    rows = zip(names, labels, found, strict=True)
    return pack([Found(name, label, *place) for name, label, place in rows], codec=codec)


def read_page_values(descriptor: int, offset: int, codec: str) -> Values:
    """The values of a compressed page.

    Args:
        codec: as `Entries` has it.

    Raises:
        UnreadableImageError: it is damaged.
    """
    name, _, levels = codec.partition(" ")
    page = read_page(descriptor, offset, name)
    if page.count > MOST_ROWS:
        raise UnreadableImageError("its page is damaged")
    return read_values(descriptor, page, Column(0, 0, page.count, name, int(levels)))


def _image_column(path: Path, schema: Any) -> str:
    """The path of the column with the bytes, such as `image.bytes`.

    Raises:
        InputError: there is none, or there are several.
    """
    import pyarrow

    def is_bytes(kind: Any) -> bool:
        return any(
            getattr(pyarrow.types, f"is_{each}", lambda kind: False)(kind)
            for each in ("binary", "large_binary", "binary_view")
        )

    declared = {name for name, about in _features(schema).items() if about.get("_type") == "Image"}
    structs, plain = [], []
    for field in schema:
        if pyarrow.types.is_struct(field.type):
            inner = {each.name: each.type for each in field.type}
            if "bytes" in inner and is_bytes(inner["bytes"]):
                structs.append(field.name)
        elif is_bytes(field.type) and (field.name.lower() in IMAGES or field.name in declared):
            plain.append(field.name)
    candidates = [name for name in structs if name in declared] or structs or plain
    if not candidates:
        raise InputError(f"{path}: {_why_none(schema)}")
    usual = [name for name in candidates if name.lower() in IMAGES]
    chosen = min(usual, key=lambda name: IMAGES.index(name.lower()), default=candidates[0])
    if len(candidates) > 1 and not usual:
        raise InputError(
            f"{path}: has several columns of images ({', '.join(candidates)}), none called image"
        )
    return f"{chosen}.bytes" if chosen in structs else chosen


def _why_none(schema: Any) -> str:
    import pyarrow

    for field in schema:
        if field.name.lower() in (*IMAGES, *TEXTS) and pyarrow.types.is_string(field.type):
            return (
                f"has no column of images: {field.name!r} holds text; download the images that it "
                "names, or list their files"
            )
    names = ", ".join(map(repr, schema.names[:8])) or "none"
    return (
        "has no column of images: needs bytes in a column called image, img, jpg, jpeg, png or "
        f"webp, and has the columns {shorten(names)}"
    )


def _features(schema: Any) -> dict[str, Any]:
    """What a Hugging Face data set says about its columns."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = about["info"]["features"]
        return {name: each for name, each in features.items() if isinstance(each, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _pages(table: Any, column: str) -> list[Column]:
    metadata = table.metadata
    (number,) = (j for j in range(metadata.num_columns) if table.schema.column(j).path == column)
    form = table.schema.column(number)
    if form.max_repetition_level or form.physical_type != "BYTE_ARRAY":
        raise ValueError(f"its column {column} is not one image a row")
    return [
        _chunk(metadata.row_group(group).column(number), form.max_definition_level)
        for group in range(metadata.num_row_groups)
    ]


def _chunk(chunk: Any, levels: int) -> Column:
    codec = "" if chunk.compression == "UNCOMPRESSED" else chunk.compression.lower()
    if codec and codec not in CODECS:
        raise ValueError(f"its images are compressed with {codec}, not {', '.join(sorted(CODECS))}")
    starts = [chunk.data_page_offset]
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        starts.append(chunk.dictionary_page_offset)
    if chunk.num_values > MOST_ROWS:
        raise ValueError(f"a row group has {chunk.num_values:,} rows, more than {MOST_ROWS:,}")
    start = min(starts)
    return Column(start, start + chunk.total_compressed_size, chunk.num_values, codec, levels)


def _labels(table: Any, schema: Any) -> list[str]:
    features = _features(schema)
    classes = [name for name, about in features.items() if about.get("_type") == "ClassLabel"]
    usual = [name for name in schema.names if name.lower() in LABELS | {"cls"}]
    candidates = [name for name in (*classes, *usual) if name in schema.names]
    if not candidates:
        return [UNLABELLED] * table.metadata.num_rows
    chosen = "label" if "label" in candidates else candidates[0]
    names = features.get(chosen, {}).get("names")
    values = table.read(columns=[chosen], use_threads=False).column(0).to_pylist()
    return [_label(value, names if isinstance(names, list) else []) for value in values]


def _label(value: Any, names: list[Any]) -> str:
    if value is None or value == -1:  # Hugging Face's for a test set
        return UNLABELLED
    if type(value) is int and 0 <= value < len(names):
        return str(names[value])
    return str(value)


def _names(table: Any, schema: Any, column: str) -> list[str]:
    """The row's number, with the image's old name or key behind it."""
    import pyarrow

    struct, _, inner = column.rpartition(".")
    parts = {each.name for each in schema.field(struct).type} if inner == "bytes" and struct else ()
    texts = [
        name
        for name in NAMES
        if name in schema.names and pyarrow.types.is_string(schema.field(name).type)
    ]
    if "path" in parts:
        source = f"{struct}.path"
    elif texts:
        source = texts[0]
    else:
        return [str(row) for row in range(table.metadata.num_rows)]
    values = table.read(columns=[source], use_threads=False).column(0)
    if pyarrow.types.is_struct(values.type):
        values = values.combine_chunks().field("path")
    old = (text.rpartition("/")[2] if isinstance(text, str) else "" for text in values.to_pylist())
    return [f"{row} ({name})" if name else str(row) for row, name in enumerate(old)]

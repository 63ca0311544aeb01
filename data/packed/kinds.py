"""Which files are containers, by their names; and where their index is."""

import os
from pathlib import Path

INDEX_FOLDER = ".deepcluster_index"  # beside the containers
KINDS = {".tar": "tar", ".parquet": "parquet", ".zip": "zip"}
# The program that unpacks a compressed tar: its file's first bytes, and endings
COMPRESSED = {
    "gzip": (b"\x1f\x8b", (".tar.gz", ".tgz")),
    "bzip2": (b"BZh", (".tar.bz2", ".tbz2", ".tbz")),
    "xz": (b"\xfd7zXZ\0", (".tar.xz", ".txz")),
    "zstd": (b"\x28\xb5\x2f\xfd", (".tar.zst", ".tzst")),
}
ENDINGS = tuple(ending for _, endings in COMPRESSED.values() for ending in endings)


def kind_of(path: str | Path) -> str | None:
    """The kind of a container by its name, or None. A compressed tar counts as a tar, whose reader
    says how to unpack it."""
    name = os.fspath(path).lower()
    if name.endswith(ENDINGS):
        return "tar"
    return KINDS.get(os.path.splitext(name)[1])  # noqa: PTH122 (hot)

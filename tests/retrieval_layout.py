"""Small data sets in the layout of Oxford5k and Paris6k, with their ground truths."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BUILDINGS = ("all_souls", "ashmolean", "keble")
VIEWS = 4
BOX = (10.5, 4.0, 55.0, 40.2)


def write_data_sets(folder: Path) -> Path:
    """`Oxford/` and `Paris/` side by side, both with images and `lab/`."""
    write_oxford(folder / "Oxford")
    write_paris(folder / "Paris")
    return folder


def write_oxford(root: Path) -> None:
    """Three buildings, four views each, and two distractors. Of each building, view 0 is the query
    and good, view 1 is ok, view 2 is junk, and view 3 is in no list."""
    (root / "lab").mkdir(parents=True)
    for number, building in enumerate(BUILDINGS):
        write_views(root / "jpg", building, number, VIEWS)
        prefix = root / "lab" / f"{building}_1"
        names = [f"{building}_{view:06d}" for view in range(VIEWS)]
        box = " ".join(map(str, BOX))
        Path(f"{prefix}_query.txt").write_text(f"oxc1_{names[0]} {box}\n")
        for kind, name in zip(("good", "ok", "junk"), names[:3], strict=True):
            Path(f"{prefix}_{kind}.txt").write_text(f"{name}\n")
    write_views(root / "jpg", "radcliffe", 7, 2)


def write_paris(root: Path) -> None:
    """Two buildings, each in its folder, and one of the corrupt images."""
    (root / "lab").mkdir(parents=True)
    for number, building in enumerate(("defense", "eiffel")):
        write_views(root / building, f"paris_{building}", 20 + number, 5)
        names = [f"paris_{building}_{view:06d}" for view in range(5)]
        prefix = root / "lab" / f"{building}_1"
        Path(f"{prefix}_query.txt").write_text(f"{names[0]} 0 0 60 40\n")
        Path(f"{prefix}_good.txt").write_text("\n".join(names[:3]) + "\n")
        for kind in ("ok", "junk"):
            Path(f"{prefix}_{kind}.txt").write_text("")
    (root / "louvre").mkdir()
    (root / "louvre" / "paris_louvre_000136.jpg").write_text("not an image")


def write_views(folder: Path, building: str, seed: int, count: int) -> None:
    """Write crops of one picture of squares, in different sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    picture = np.full((100, 100, 3), rng.integers(256, size=3), np.uint8)
    for top, left in rng.integers(80, size=(40, 2)):
        picture[top : top + 15, left : left + 15] = rng.integers(256, size=3)
    for view in range(count):
        height, width = ((70, 90), (90, 60), (64, 64), (60, 88))[view % 4]
        top, left = rng.integers(10, size=2)
        cut = picture[top : top + height, left : left + width]
        Image.fromarray(cut).save(folder / f"{building}_{view:06d}.jpg", quality=95)


def revisited_truth() -> dict[str, Any]:
    """ROxford5k's ground truth for `write_oxford`: the database is all images but the queries'. The
    first query has easy, hard and junk images, the second only hard ones, the third only junk."""
    database = [f"{b}_{view:06d}" for b in BUILDINGS for view in range(1, VIEWS)]
    none = np.array([], np.int64)
    grades: list[dict[str, Any]] = [
        {"easy": np.array([0]), "hard": np.array([1]), "junk": np.array([2])},
        {"easy": none, "hard": np.array([3, 4]), "junk": none},
        {"easy": [], "hard": [], "junk": [6]},
    ]
    gnd = [{"bbx": np.array(BOX), **grade} for grade in grades]
    return {"imlist": database, "qimlist": [f"{b}_000000" for b in BUILDINGS], "gnd": gnd}


def write_revisited(root: Path, truth: dict[str, Any] | None = None, protocol: int = 2) -> Path:
    path = root / "gnd_roxford5k.pkl"
    with path.open("wb") as file:
        pickle.dump(revisited_truth() if truth is None else truth, file, protocol)
    return path

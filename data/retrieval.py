"""Oxford5k and Paris6k: images, queries, and which images show the same building.

A data set's folder has the images, nested or flat, and the ground truth: `lab/` with the files of
2007 and 2008, or the same as `gnd_oxford5k.pkl` or `gnd_paris6k.pkl`, and `gnd_roxford5k.pkl` or
`gnd_rparis6k.pkl` of the revisited benchmarks. An image is named by its file name without the
extension.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data.folder import has_images
from data.images import ImageList, find_images
from data.reading import AS_STORED, Reading
from data.resized import Box
from data.retrieval_revisited import read_revisited
from system.errors import InputError, shorten

FOLDERS = {  # names that a data set's folder may have
    "Oxford": ("Oxford", "oxford", "oxford5k", "roxford5k"),
    "Paris": ("Paris", "paris", "paris6k", "rparis6k"),
}
OTHER = {"Oxford": "Paris", "Paris": "Oxford"}
CLASSIC = {"Oxford": "Oxford5k", "Paris": "Paris6k"}
REVISITED = {"Oxford": "ROxford5k", "Paris": "RParis6k"}
SETUPS = {  # of the revisited benchmarks: the positive grades and the ignored ones
    "Easy": (("easy",), ("hard", "junk")),
    "Medium": (("easy", "hard"), ("junk",)),
    "Hard": (("hard",), ("easy", "junk")),
}
ORIGINAL = (("ok",), ("junk",))  # the same of the original benchmark
CORRUPT = frozenset(  # of Paris, as its page lists them
    f"paris_{building}_{number}"
    for building, numbers in {
        "louvre": ("000136", "000146"),
        "moulinrouge": ("000422",),
        "museedorsay": ("001059",),
        "notredame": ("000188",),
        "pantheon": ("000284", "000960", "000974"),
        "pompidou": ("000195", "000196", "000201", "000467", "000640"),
        "sacrecoeur": ("000299", "000330", "000353"),
        "triomphe": ("000662", "000833", "000863", "000867"),
    }.items()
    for number in numbers
)


@dataclass(frozen=True)
class Query:
    """A box x1, y1, x2, y2 in pixels of the image called `image`."""

    name: str
    image: str
    box: Box


@dataclass(frozen=True)
class Benchmark:
    """Queries and the images that are ranked for them.

    Attributes:
        name: "Oxford5k", or "ROxford5k Easy" and so on.
        database: names of the ranked images.
        queries: those with positives.
        good, junk: for each query the names of its positives and of the ignored images.
        lab: the folder of the ground-truth files, if there is one.
    """

    name: str
    database: list[str]
    queries: list[Query]
    good: list[frozenset[str]]
    junk: list[frozenset[str]]
    lab: Path | None = None


@dataclass(frozen=True)
class RetrievalData:
    """A data set to rank, and the images of the other one, which the whitening is fitted on."""

    images: ImageList
    train: ImageList
    benchmarks: list[Benchmark]


def find_retrieval(
    dataset: Path,
    name: str,
    train_dataset: Path | None = None,
    reading: Reading = AS_STORED,
) -> RetrievalData:
    """Read a data set's images and ground truth.

    Args:
        dataset: its folder, or the parent folder, where it has one of the names in `FOLDERS`.
        name: "Oxford" or "Paris".
        train_dataset: the folder of the other data set's images; None looks beside the first.

    Raises:
        InputError: something is missing or malformed.
    """
    root = _root(dataset, name)
    other = train_dataset or _beside(root, OTHER[name])
    if other.resolve() == root.resolve():
        raise InputError(
            f"{root}: is both {name} and the data set for the whitening; give the right "
            f"--dataset_name, or {OTHER[name]}'s folder in --train_dataset"
        )
    train = find_readable(other, reading)
    images = find_readable(root, reading)
    names = image_names(images)
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise InputError(f"{root}: two images are called {twice}")
    benchmarks = []
    if (root / "lab").is_dir():
        benchmarks.append(_read_classic(root / "lab", CLASSIC[name], names))
    for pickled in filter(Path.exists, (root / each for each in _pickle_names(name))):
        known = {benchmark.name for benchmark in benchmarks}
        found = _read_pickle(pickled, name, names)
        benchmarks += [benchmark for benchmark in found if benchmark.name not in known]
    if not benchmarks:
        raise InputError(f"{root}: no query has a positive")
    return RetrievalData(images, train, benchmarks)


def find_readable(root: Path, reading: Reading = AS_STORED) -> ImageList:
    """The images below a folder, without the corrupt ones of Paris.

    Raises:
        InputError: there is none.
    """
    found = find_images(root, reading)
    return found.take([i for i, name in enumerate(image_names(found)) if name not in CORRUPT])


def image_names(images: ImageList) -> list[str]:
    """The names of images, by index."""
    return [Path(path).stem for path in images.names]


def _root(dataset: Path, name: str) -> Path:
    """The first folder with a ground truth and images, or else with a ground truth."""
    places = [dataset, *(dataset / folder for folder in FOLDERS[name])]
    pickles = _pickle_names(name)

    def has_truth(folder: Path) -> bool:
        return (folder / "lab").is_dir() or any((folder / pickle).exists() for pickle in pickles)

    def is_whole(folder: Path) -> bool:
        queries = any((folder / "lab").glob("*_query.txt"))
        return (queries or any((folder / each).exists() for each in pickles)) and has_images(folder)

    if found := [place for place in places if has_truth(place)]:
        return next(filter(is_whole, found), found[0])
    there = [place.name for place in places[1:] if place.is_dir()]
    said = f" (found: {', '.join(there)})" if there else ""
    raise InputError(
        f"{dataset}: no ground truth of {name}: neither lab/ nor {' nor '.join(pickles)} in it, "
        f"nor in a folder {', '.join(FOLDERS[name])} below it{said}"
    )


def _beside(root: Path, name: str) -> Path:
    """The first folder of a data set beside `root` that has images, or else the first."""
    parent = root.absolute().parent
    there = [parent / folder for folder in FOLDERS[name] if (parent / folder).is_dir()]
    if there:
        return next(filter(has_images, there), there[0])
    raise InputError(
        f"{parent}: no folder of {name}'s images, to fit the whitening on (looked for "
        f"{', '.join(FOLDERS[name])}); name one with --train_dataset"
    )


def _pickle_names(name: str) -> list[str]:
    return [f"gnd_{each.lower()}.pkl" for each in (REVISITED[name], CLASSIC[name])]


def _read_classic(lab: Path, name: str, names: list[str]) -> Benchmark:
    """Positives are the good and the ok images; the query's own image stays in the database."""
    paths = sorted(lab.glob("*_query.txt"))
    if not paths:
        raise InputError(f"{lab}: no ground truth: looked for *_query.txt")
    queries, good, junk = [], [], []
    for path in paths:
        stem = path.name.removesuffix("_query.txt")
        queries.append(_read_query(path, stem))
        _check_names(path, [queries[-1].image], names)
        listed = {}
        for kind in ("good", "ok", "junk"):
            file = lab / f"{stem}_{kind}.txt"
            listed[kind] = frozenset(_read_text(file).split())
            _check_names(file, listed[kind], names)
        if not listed["good"] | listed["ok"]:
            raise InputError(f"{lab / stem}_good.txt, _ok.txt: no image is good or ok")
        good.append(listed["good"] | listed["ok"])
        junk.append(listed["junk"])
    return Benchmark(name, names, queries, good, junk, lab)


def _read_query(path: Path, name: str) -> Query:
    words = _read_text(path).split()
    try:
        image, (x1, y1, x2, y2) = words[0], map(float, words[1:])
        if not (x1 < x2 and y1 < y2 and all(map(math.isfinite, (x1, y1, x2, y2)))):
            raise ValueError
    except (ValueError, IndexError) as error:
        raise InputError(
            f"{path}: {' '.join(words)[:100]!r} is not an image and its box x1 y1 x2 y2"
        ) from error
    return Query(name, image.removeprefix("oxc1_"), (x1, y1, x2, y2))


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise InputError(f"{path}: cannot read this ground truth: {reason}") from error


def _check_names(path: Path, wanted: Iterable[str], names: list[str]) -> None:
    missing = sorted(set(wanted).difference(names, CORRUPT))
    if missing:
        more = f" (nor {len(missing) - 1} others)" if len(missing) > 1 else ""
        raise InputError(f"{path}: names {shorten(missing[0])}, but there is no such image{more}")


def _read_pickle(path: Path, name: str, names: list[str]) -> list[Benchmark]:
    """One for each setup in which a query has a positive, with those queries."""
    truth = read_revisited(path)
    _check_names(path, [*truth.database, *truth.queries], names)
    queries = [
        Query(image, image, box) for image, box in zip(truth.queries, truth.boxes, strict=True)
    ]
    setups = {f"{REVISITED[name]} {setup}": grades for setup, grades in SETUPS.items()}
    if truth.original:
        setups = {CLASSIC[name]: ORIGINAL}
    benchmarks = []
    for title, (positive, ignored) in setups.items():
        pairs = zip(queries, truth.grades, strict=True)
        kept = [(query, grades) for query, grades in pairs if _union(grades, positive)]
        if kept:
            good, junk = ([_union(grades, g) for _, grades in kept] for g in (positive, ignored))
            asked = [query for query, _ in kept]
            benchmarks.append(Benchmark(title, truth.database, asked, good, junk))
    return benchmarks


def _union(grades: dict[str, frozenset[str]], some: Iterable[str]) -> frozenset[str]:
    return frozenset[str]().union(*(grades[grade] for grade in some))

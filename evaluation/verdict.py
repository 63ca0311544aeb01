"""Two networks side by side: better, worse or no clear change, measure by measure, and in words."""

from collections.abc import Mapping

import numpy as np
from scipy.stats import binomtest

from evaluation.learned import SEEDS, VIEWS, Samples

BETTER, WORSE, UNCLEAR = "better", "worse", "no clear change"
SIGNIFICANT = 0.01  # p of McNemar's test
CLEAR = 0.01  # least difference of a measure of clusters that counts

# The measures that count, beside which the others are detail, and their names
COUNT = {"linear": "linear probe", "20nn": "20 nearest neighbours", "nmi": "NMI"}
NAMES = {
    **COUNT,
    "1nn": "nearest neighbour",
    "nmi": "NMI, k = {labels} labels",
    "acc": "ACC, k = {labels} labels",
    "ari": "ARI, k = {labels} labels",
    "ami": "AMI, k = {labels} labels",
    "purity": "purity, k = {labels} labels",
    "nmi_k": "NMI, k = {k} as in the run",
}  # of the lines of a table, in this order

Measures = Mapping[str, Samples]


def verdict(before: Samples, after: Samples) -> str:
    """Whether `after` is better than `before`, worse, or neither clearly.

    Accuracies, `(M,) bool` on the same val images: McNemar's exact test, p < 0.01. NMI, ACC, ARI,
    AMI and purity, `(5,) float64`: a difference above 0.01 and above twice its standard error.
    """
    if before.dtype == bool:
        gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
        clear = gained != lost and binomtest(gained, gained + lost).pvalue < SIGNIFICANT
        difference = float(gained - lost)
    else:
        difference = float(after.mean() - before.mean())
        error = np.sqrt((before.var(ddof=1) + after.var(ddof=1)) / SEEDS)
        clear = abs(difference) > max(CLEAR, 2 * error)
    if not clear:
        return UNCLEAR
    return BETTER if difference > 0 else WORSE


def over_seeds(differences: np.ndarray) -> str:
    """The verdict on a measure's differences `(S,)` between two settings, seed by seed: its mean is
    above twice its standard error, and at least four fifths of the differences have its sign."""
    mean = differences.mean()
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    alike = np.count_nonzero(np.sign(differences) == np.sign(mean))
    if abs(mean) <= 2 * error or 5 * alike < 4 * len(differences):
        return UNCLEAR
    return BETTER if mean > 0 else WORSE


def keys_of(name: str) -> list[str]:
    """A measure's keys among the results of `measures`: one for each view, plain and whitened; the
    linear probe has no views."""
    return [name] if name == "linear" else [f"{view}_{name}" for view in VIEWS]


def best_view(found: Measures, name: str) -> Samples:
    """The samples of a measure, in the view in which its mean is higher."""
    return max((found[key] for key in keys_of(name)), key=np.mean)


def table(results: Mapping[str, Measures], k: int, labels: int, components: int) -> list[list[str]]:
    """All measures as rows of words: the measure, its figure for each network, and the verdict on
    `trained` against `untrained`. The first row has the networks' names.

    Args:
        results: measures of `pixels`, `untrained` and `trained`.
        k: clusters in the run.
        labels: number of labels.
        components: that rows were whitened to.
    """
    rows = [["", *results, ""]]
    for name, words in NAMES.items():
        titles = words.format(k=k, labels=labels), f"  whitened to {components} dimensions"
        for title, key in zip(titles, keys_of(name), strict=False):
            change = verdict(results["untrained"][key], results["trained"][key])
            rows.append([title, *(_figure(found[key]) for found in results.values()), change])
    return rows


def spread(figures: np.ndarray) -> str:
    """Figures `(S,)` as text: their mean and, if there are several, their standard deviation."""
    mean = f"{figures.mean():.3f}"
    return f"{mean} ± {figures.std(ddof=1):.3f}" if len(figures) > 1 else mean


def to_markdown(rows: list[list[str]]) -> str:
    """A table's rows of words as Markdown; the first row has the heads."""
    escaped = [[word.replace("|", r"\|") for word in row] for row in rows]
    lines = ["".join(f"| {word} " if word else "| " for word in row) + "|" for row in escaped]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def to_text(rows: list[list[str]]) -> str:
    """A table's rows as aligned lines of text."""
    lines = [f"{row[0]:30}" + "".join(f"{word:>16}" for word in row[1:-1]) for row in rows]
    return "\n".join(f"{line}   {row[-1]}".rstrip() for line, row in zip(lines, rows, strict=True))


def to_plain(found: Measures) -> dict[str, dict[str, float]]:
    """Measures as JSON holds them: the mean, and where there are seeds the standard deviation."""
    return {
        name: {"mean": float(samples.mean())}
        if samples.dtype == bool
        else {"mean": float(samples.mean()), "std": float(samples.std(ddof=1))}
        for name, samples in found.items()
    }


def summary(results: Mapping[str, Measures]) -> list[str]:
    """Sentences: which of the measures that count got better and which worse, against the untrained
    network and against raw pixels; and that this is one run.

    Args:
        results: measures of `pixels`, `untrained` and `trained`.
    """
    best = {
        network: {name: best_view(found, name) for name in COUNT}
        for network, found in results.items()
    }
    return [
        "Trained against untrained, each in its better view: "
        + _in_words(best["untrained"], best["trained"]),
        "Trained against raw pixels, each in its better view: "
        + _in_words(best["pixels"], best["trained"]),
        "This is one run: another seed may give another result.",
    ]


def _in_words(before: Measures, after: Measures) -> str:
    said: dict[str, list[str]] = {}
    for name, words in COUNT.items():
        change = f"{words} ({before[name].mean():.3f} → {after[name].mean():.3f})"
        said.setdefault(verdict(before[name], after[name]), []).append(change)
    order = (BETTER, WORSE, UNCLEAR)
    return "; ".join(f"{each}: {', '.join(said[each])}" for each in order if each in said) + "."


def _figure(samples: Samples) -> str:
    return f"{samples.mean():.3f}" if samples.dtype == bool else spread(samples)

"""To how many dimensions features are whitened: `--dim_pca`.

The paper whitens 1.28 million rows to 256 dimensions. As the number of rows comes near that of the
dimensions, whitened rows become orthogonal to each other, each as far from every other, and
their clusters are noise. `auto_dim` is the number of dimensions that so many rows carry.
"""

import argparse
import numbers
import warnings
from typing import Any, Literal

from system import cli

PCA = 256  # components, the paper's
AUTO: Literal["auto"] = "auto"
ENOUGH = 20  # rows for each component; with fewer, clusters tend to noise

# Components that are wanted: a number, as many as `auto_dim` gives, or 0: L2 normalisation only
Components = int | Literal["auto"]
Container = argparse.ArgumentParser | argparse._ArgumentGroup


class _Unchosen(int):
    """The paper's number of components, where the caller gives none."""


PAPER = _Unchosen(PCA)


def auto_dim(rows: int, dim: int) -> int:
    """The number of components that so many rows carry: one for 50 rows. Below 800 rows it is 16,
    or one for 12 rows where that is fewer. It is at least 2, and at most 256, the paper's number.

    Args:
        rows: N, those that the PCA is fitted on, over all processes.
        dim: D, dimensions of a row.
    """
    return min(PCA, dim, max(rows // 50, min(16, rows // 12), 2))


def check_components(pca: Components, least: int = 0) -> None:
    """Raises ValueError if `pca` is neither "auto" nor a whole number from `least` on."""
    whole = isinstance(pca, numbers.Integral) and not isinstance(pca, bool)
    if pca != AUTO and not (whole and pca >= least):
        raise ValueError(f'pca is {pca!r}; give {least} or more components, or "auto"')


def resolve(pca: Components, rows: int, dim: int) -> int:
    """The number of components for so many rows of D dimensions. Warns if nobody chose it and there
    are too few rows.

    Raises:
        ValueError: fewer than 2 rows.
    """
    if rows < 2:
        raise ValueError(f"PCA needs at least 2 rows, not {rows}")
    fitting = auto_dim(rows, dim)
    if pca == AUTO:
        return fitting
    given = min(int(pca), dim)
    if isinstance(pca, _Unchosen) and is_noisy(rows, given) and given > fitting:
        warnings.warn(noise(rows, given, dim), stacklevel=2)
    return int(pca)


def is_noisy(rows: int, components: int) -> bool:
    """Whether clusters of so many rows, whitened to so many components, tend to noise."""
    return rows < ENOUGH * components


def noise(rows: int, components: int, dim: int) -> str:
    """The warning for such rows of D dimensions."""
    return (
        f"clusters of {rows:,} rows whitened to {min(components, dim)} dimensions tend to noise; "
        f"auto takes {auto_dim(rows, dim)}"
    )


def remark(pca: Components, components: int, rows: int, dim: int) -> str | None:
    """A sentence on the components of a whitening, if "auto" took others than the paper's, or a
    given number is too large; None otherwise.

    Args:
        pca: what was asked for.
        components: what the whitening has.
        rows, dim: N and D of the features that it was fitted on.
    """
    if pca != AUTO:
        return noise(rows, components, dim) if is_noisy(rows, components) else None
    if components == PCA:
        return None
    if components == dim:
        return f"whitened to all {components} dimensions that the features have"
    return f"whitened to {components} dimensions: {rows:,} rows are too few for {PCA}"


def add_flag(
    parser: Container, default: Components | None, help: str, *names: str, **options: Any
) -> None:
    """`--dim_pca`, or a flag like it.

    Args:
        names: of the flag, if others than `--dim_pca`.
        options: further ones, as argparse takes them.
    """
    names = names or ("--dim_pca",)
    add = parser.add_argument
    add(*names, metavar="{auto,D,0}", type=components, default=default, help=help, **options)


def components(text: str) -> Components:
    """The type of `--dim_pca`."""
    if text == AUTO:
        return AUTO
    try:
        return cli.whole_number(0)(text)
    except argparse.ArgumentTypeError as error:
        message = f"{text!r}: give auto, 0 or a number of dimensions"
        raise argparse.ArgumentTypeError(message) from error

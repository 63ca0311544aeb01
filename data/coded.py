"""Texts of which there are few different ones, such as the labels of many images."""

from collections.abc import Sequence
from typing import overload

import numpy as np


class Coded(Sequence[str]):
    """Texts as numbers: no Python object for each.

    Args:
        texts: the different ones, in any order; not all need to occur.
        numbers: `(N,)` of any integer type, the place of each text in `texts`.
    """

    def __init__(self, texts: Sequence[str], numbers: np.ndarray) -> None:
        self.texts, self.numbers = texts, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> "Coded": ...
    def __getitem__(self, at: int | slice) -> "str | Coded":
        if isinstance(at, slice):
            return Coded(self.texts, self.numbers[at])
        return self.texts[self.numbers[at]]

    def take(self, indices: Sequence[int] | np.ndarray) -> "Coded":
        """Some of the texts, in that order."""
        return Coded(self.texts, self.numbers[indices])


def coded(texts: Sequence[str]) -> Coded:
    """The same texts, with the different ones sorted and each one occurring."""
    if not isinstance(texts, Coded):
        different, numbers = np.unique(np.array(texts, np.str_), return_inverse=True)
        return Coded(different.tolist(), numbers)
    occurring = np.flatnonzero(np.bincount(texts.numbers, minlength=len(texts.texts)))
    different = np.array([texts.texts[each] for each in occurring.tolist()], np.str_)
    names, merged = np.unique(different, return_inverse=True)  # two numbers may have one text
    table = np.zeros(len(texts.texts), np.int32)
    table[occurring] = merged
    return Coded(names.tolist(), table[texts.numbers])

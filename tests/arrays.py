"""Artificial features for the tests of clustering."""

import numpy as np


def correlated(n: int, dim: int, rank: int | None = None, seed: int = 0) -> np.ndarray:
    """Features with a mean and a falling spectrum, like a network's."""
    rng = np.random.default_rng(seed)
    rank = rank or dim
    latent = rng.standard_normal((n, rank)) / np.sqrt(np.arange(1, rank + 1))
    return (latent @ rng.standard_normal((rank, dim)) + rng.standard_normal(dim)).astype(np.float32)


def sphere(n: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    """Points in all directions, which are hard for k-means."""
    x = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)

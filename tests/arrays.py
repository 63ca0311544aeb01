"""Made-up features that several tests cluster."""

import numpy as np


def correlated(n: int, dim: int, rank: int | None = None, seed: int = 0) -> np.ndarray:
    """Features with a mean and a falling spectrum, as a network's are."""
    rng = np.random.default_rng(seed)
    rank = rank or dim
    latent = rng.standard_normal((n, rank)) / np.sqrt(np.arange(1, rank + 1))
    return (latent @ rng.standard_normal((rank, dim)) + rng.standard_normal(dim)).astype(np.float32)


def sphere(n: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    """Points in all directions, where k-means has no easy answer."""
    x = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)

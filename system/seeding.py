"""All randomness of a run: each seed is a function of the run's seed, a purpose, the epoch and the
step. So results depend neither on the number of workers nor on restarts.
"""

import zlib

import numpy as np


def derive_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed.

    Args:
        seed: the run's, `--seed`, ≥ 0.
        purpose: different purposes get different seeds.
        counters: epoch, step, position in the epoch …, each ≥ 0.
    """
    parts = [seed, zlib.crc32(purpose.encode()), *counters]
    state = np.random.SeedSequence(parts).generate_state(1, np.uint64)
    return int(state[0]) >> 1

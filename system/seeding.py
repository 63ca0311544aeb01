"""All randomness of a run comes from here: a seed is a function of what it is for.

A generator that is carried through a run would tie every draw to all the draws before it. Seeds
derived from (run seed, purpose, epoch, step) make a draw the same whatever the number of workers,
and the same after a restart.
"""

import zlib

import numpy as np


def derive_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed for one use of randomness.

    Args:
        seed: the run's seed, `--seed`, 0 or more.
        purpose: what the randomness is for; different purposes never share a seed.
        counters: epoch, step, position in the epoch …, each 0 or more.
    """
    parts = [seed, zlib.crc32(purpose.encode()), *counters]
    state = np.random.SeedSequence(parts).generate_state(1, np.uint64)
    return int(state[0]) >> 1

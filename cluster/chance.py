"""The mutual information that chance gives two clusterings, which AMI subtracts."""

import numpy as np
from scipy.special import gammaln


def expected_information(a: np.ndarray, b: np.ndarray) -> float:
    """The mean mutual information, in nats, of two random clusterings with these cluster sizes
    (Vinh, Epps and Bailey, 2010).

    scikit-learn goes through all pairs of clusters, which takes minutes for ImageNet. Only the
    sizes matter, so this goes through the pairs of different sizes: seconds.

    Args:
        a, b: `(A,)` and `(B,) int64`, above 0, with the same sum N.
    """
    n = int(a.sum())
    log_factorial = gammaln(np.arange(n + 1) + 1.0)
    expected = 0.0
    for size_a, times_a in zip(*np.unique(a, return_counts=True), strict=True):
        for size_b, times_b in zip(*np.unique(b, return_counts=True), strict=True):
            shared = np.arange(max(1, size_a + size_b - n), min(size_a, size_b) + 1)
            log_probability = (
                log_factorial[[size_a, size_b, n - size_a, n - size_b]].sum()
                - log_factorial[n]
                - log_factorial[shared]
                - log_factorial[size_a - shared]
                - log_factorial[size_b - shared]
                - log_factorial[n - size_a - size_b + shared]
            )
            information = shared / n * np.log(n * shared / (float(size_a) * size_b))
            expected += times_a * times_b * float(information @ np.exp(log_probability))
    return expected

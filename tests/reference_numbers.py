"""The numbers of the released programs, in tests/reference."""

from pathlib import Path

import numpy as np

SWAV = np.load(Path(__file__).parent / "reference" / "swav.npz")

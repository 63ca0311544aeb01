"""The numbers of the released programs, in tests/reference."""

from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).parent / "reference"
SWAV = np.load(REFERENCE / "swav.npz")
SOBEL = np.load(REFERENCE / "sobel.npz")
DEEPER = np.load(REFERENCE / "deeper.npz")

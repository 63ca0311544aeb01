# ruff: noqa: N999 (the original's name)
"""Runs `activ_retrieval.py` under the name that the original code uses."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    script = Path(__file__).resolve().with_name("activ_retrieval.py")
    runpy.run_path(str(script), run_name="__main__")

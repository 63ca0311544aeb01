# ruff: noqa: N999 (users know it by this name)
"""`activ_retrieval.py`, under the name that the paper's code has for it."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    script = Path(__file__).resolve().with_name("activ_retrieval.py")
    runpy.run_path(str(script), run_name="__main__")

"""How long each stage takes; `benchmark.py` runs these."""

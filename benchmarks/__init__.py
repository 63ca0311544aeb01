"""How long each stage takes; `python -m benchmarks` runs these."""

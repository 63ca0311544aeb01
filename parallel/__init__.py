"""Several processes: launching them, collectives, signs of life, signals."""

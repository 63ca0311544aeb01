"""Files, names, flags, errors, devices, seeds, progress: what every other room stands above."""

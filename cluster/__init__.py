"""Arrays in, labels out: whitening, k-means, PIC, samplers, assignment files."""

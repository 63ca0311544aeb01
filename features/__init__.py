"""A frozen network over a data set: one pass, and its rows in memory or in a file.

In: a network and a loader. Out: features `(M, D) float16` in data-set order, and which of the N
images have them. Imports data/, models/, cluster/, checkpoints/, parallel/ and system/.

    forward.py      the pass itself; features of a process's share of the images, for clustering
    projected.py    the same of very many images: whitened on the device, by a sample of them
    kept.py         embeddings for evaluations, which find those of an earlier one
    extraction.py   features written to disk in shards, and their whitening
    rows.py         the shards of many processes, kept after an interruption, joined in one file
    row_file.py     rows in a file of this or another program
    duplicates.py   exact and near duplicates: the best of each group, and a table
    continued.py    embeddings in shards, continued by the same command
    network.py      MODEL and DIR of a script: a trained network and images to apply it to
"""

"""All that is to be measured on a GPU, in one command of a few minutes: `python -m benchmarks gpu`.

In: a machine with a GPU, or with `--tiny` any. Out: `gpu.json` and `gpu.md`, a Markdown table.
docs/gpu.md says what is measured and how to read it.

    command.py    the command: each part in a process of its own, with a time limit
    setting.py    the settings of the parts, and the functions that they share
    machine.py    part: the GPU, the versions, the speed of matrix products
    own_tests.py  part: the tests marked `gpu`
    rates.py      part: images per second of features and training
    clusters.py   part: PCA and k-means at ImageNet's size, with Faiss and with torch
    steps.py      part: steps of each method, with the host's waits; DeepCluster-v2's clustering
    epoch.py      part: an epoch of ImageNet, projected from the other parts
    in_memory.py  a run whose training batches are in memory
    waits.py      where the host waits for the device
    table.py      the results in Markdown
"""

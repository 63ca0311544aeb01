"""The speed of each stage: `python -m benchmarks`; docs/performance.md has the results.

In: random features, scikit-learn's photographs. Out: tables and JSON, in which each stage is
compared with a well-known library and with the hardware's limit. Imports any room.

    __main__.py     the command: which benchmark, and its flags
    gpu/            all that is to be measured on a GPU, in one command
    training.py     images per second of the feature pass and of training
    multicrop.py    images per second of multi-crop, decoded once and for each crop
    containers.py   images at random from tars, zips and Parquet; the start with many images
    decoding.py     images per second of a core that reads; the cores that a GPU wants
    pictures.py     the stages of cluster_images.py, beside decoding and network alone
    first_run.py    the run of ./main.sh without DIR: AVX2 and bf16, shares of the cores
    scaling.py      whole epochs of main.py, by images, workers and processes
    clustering.py   whitening, k-means, PIC, step by step
    deepercluster.py       DeeperCluster at its published size: rates, and a share in part
    deepercluster_size.py  its memory, traffic and hours on paper
    spherical.py    DeepCluster-v2's k-means, beside the plain way
    probe.py        linear probes, each layer alone and all at once
    learned.py      what settings of main.py learn, over seeds
    whitening.py    clusters of few images, by the dimensions of their whitening
    visu.py         gradient ascent on filters
    photos.py       the photographs
    json_lines.py   the finished parts of a long benchmark
    timing.py       time, memory, the speed of a matrix product
"""

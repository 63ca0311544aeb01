"""A method turns clusters of images into a loss.

In: the features of the frozen network, and batches of images. Out: the loss of each image.
A method knows its network, its pseudo-labels and its heads. It knows nothing of files, signals,
checkpoints or the training loop, which is in `main.py`.

    method.py               two protocols: a method that a run trains, and the run that it sees
    deepcluster.py          DeepCluster (ECCV 2018): k-means or PIC, a new top layer, cross-entropy
    deepclusterv2.py        DeepCluster-v2 (2020): spherical k-means of a memory; its centroids are
                            prototypes
    swav.py                 SwAV (NeurIPS 2020): codes of a batch, predicted from other crops
    clustered.py            what all share: the clusters of an epoch and of the finished network
    multicrop.py            of the last two: network and heads, crops, LARS, signs of health
    deepercluster.py        DeeperCluster (ICCV 2019): rotations × clusters on two levels; RotNet
    two_level.py            its heads and its loss
    sharded.py              its heads, spread over the processes
    two_level_settings.py   its flags, numbers of classes, and their checks
    window.py               their signs of health in an epoch's last steps, over all processes
    memory.py               DeepCluster-v2's memory: the last embeddings of each image
    queue.py                SwAV's queue: embeddings of earlier batches
    fitting.py              settings of SwAV and DeepCluster-v2 that fit the data set, if not given
    frozen.py               features of all images from the frozen network, also whitened
    fitted.py               a clustering fitted to them
    health.py               warnings: nothing is learned, a collapse, labels that are memorised

A new method is one file here and a row in `METHODS` of `main.py`.
"""

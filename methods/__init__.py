"""A method turns clusters of images into a loss.

In: the features of the frozen network, and batches of images. Out: the loss of each image.
A method knows its network, its pseudo-labels and its heads. It knows nothing of files, signals,
checkpoints or the training loop, which is in `main.py`.

    method.py          two protocols: the method that a run trains, and the run that a method sees
    deepcluster.py     DeepCluster (ECCV 2018): k-means or PIC, a new top layer, cross-entropy
    deepclusterv2.py   DeepCluster-v2 (2020): spherical k-means of a memory, centroids as prototypes
    swav.py            SwAV (NeurIPS 2020): codes of a batch, predicted from other crops
    clustered.py       what all share: the clusters of the epoch and of the finished network
    multicrop.py       what the last two share: network and heads, crops, LARS, signs of health
    memory.py          DeepCluster-v2's memory: the last embeddings of each image
    queue.py           SwAV's queue: embeddings of earlier batches
    fitting.py         settings of both that fit the data set, where they are not given
    frozen.py          features of all images from the frozen network
    fitted.py          a clustering fitted to them
    health.py          warnings: a loss that stays at ln k, a collapse, labels that are memorised

A new method is one file here and a row in `METHODS` of `main.py`.
"""

"""A method turns clusters of images into a loss.

In: the features of the frozen network, and batches of images. Out: the loss of each image.
A method knows its network, its pseudo-labels and its heads. It knows nothing of files, signals,
checkpoints or the training loop, which is in `main.py`.

    method.py        two protocols: the method that a run trains, and the run that a method sees
    frozen.py        features of all images from the frozen network
    deepcluster.py   DeepCluster (ECCV 2018): k-means or PIC, a new top layer, cross-entropy

A new method is one file here and a row in `METHODS` of `main.py`.
"""

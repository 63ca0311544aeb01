"""Images: where they come from, how they are decoded, how they become batches.

In: a folder, a list, containers, or a benchmark's data set. Out: uint8 pixels `(B, 3, H, W)`, each
image with its data-set index, and a reason for each image that is unreadable; on the device,
normalised network input. Imports system/ and parallel/.

    images.py                ImageList: images by index, and their labels; from `DIR` to a source
    source.py                Source, which opens images by index; several of them as one
    folder.py                the source for files; those of a folder, nested or flat
    sieve.py                 which files of a folder are images, and a line on the others
    lists.py                 the files that a text file lists
    packed/                  images in tars, zips and Parquet files
    listing.py               images.txt
    unreadable.py            names the images that can't be read
    labels_csv.py            labels from a table: `--labels`
    moving.py                files moved away, with a note by which they can be moved back
    coded.py                 texts as numbers, for the labels of many images
    decode.py                from bytes to RGB pixels: the one place that decodes
    reading.py               the choices of decoding that a checkpoint keeps, and their flags
    grey.py                  grey of more than 8 bits
    bands.py                 images of any number of bands: .npy, and TIFF with --channels
    tiff_bands.py            a TIFF's bands, decoded as grey images
    headers.py               text in PNG; channels that can't be read
    levels.py                warns of lost grey levels
    transforms.py            every crop, once; pixels to network input
    multicrop.py             several crops of an image, of several sizes, in one row of pixels
    loading.py               workers and their batches
    order.py                 the order of an epoch, in batches or in whole pages of containers
    loader.py                waiting for batches: killed workers, signals, disks that stall
    parcel.py                a batch's way from a worker: shared memory, or the worker's pipe
    batch.py                 Draw: an image and its view; Batch: pixels, indices, unreadable images
    labelled.py              train/ and val/ with labels, for evaluations
    subset.py                some of train/: a share of each class, or the images of a list
    resized.py               images at a given long side, one per batch, for retrieval
    voc.py                   PASCAL VOC 2007: images and their classes
    retrieval.py             Oxford5k and Paris6k: images, queries, ground truth
    retrieval_revisited.py   the ground truth of ROxford5k and RParis6k
"""

"""Arrays in, labels out: whitening, k-means, PIC, samplers, quality, cluster files.

In: features `(N, D)`. Out: an assignment `(N,) int64`, -1 for an image that is left out, and the
PCA and centroids that assign new features. `Kmeans` and `PIC`, made of these parts, are in
clustering.py at the top. Knows no images and no networks. Imports system/ and parallel/.

    base.py        Clustering, the common base of Kmeans and PIC
    whitening.py   PCA-whitening and L2 normalisation, over all processes
    kmeans.py      k-means: Faiss's loop over the rows of all processes
    nearest.py     the nearest centroid of each row, by Faiss or torch, on CPU or GPU
    pic.py         Power Iteration Clustering on a nearest-neighbour graph
    sampler.py     which images an epoch trains on, in which order; weights of clusters
    quality.py     NMI, purity, sizes, the members of each cluster
    clusters.py    Clusters: PCA and centroids as a checkpoint keeps them
    pickles.py     the original's `clusters` file, and the released assignments
    tables.py      which image is in which cluster: CSV, Parquet, pickle, folders of links
"""

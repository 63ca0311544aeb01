"""Arrays in, labels out: whitening, k-means, PIC, Sinkhorn, samplers, quality, cluster files.

In: features `(N, D)`. Out: an assignment `(N,) int64`, -1 for an image that is left out, and the
PCA and centroids that assign new features. clustering.py at the top builds `Kmeans` and `PIC` from
these parts. Works on arrays only. Imports system/ and parallel/.

    base.py        Clustering, the base class of Kmeans and PIC
    components.py  to how many dimensions: `--dim_pca`, and the rule for few rows
    whitening.py   PCA-whitening and L2 normalisation, over all processes
    moments.py     the mean and covariance of rows that arrive in blocks
    kmeans.py      k-means: Faiss's loop over the rows of all processes
    hierarchy.py   two-level k-means: super-clusters, and clusters in each of them
    spherical.py   spherical k-means of unit rows, without a matrix of rows × clusters
    sinkhorn.py    scores of a batch → soft codes that use all clusters equally
    nearest.py     the nearest centroid of each row, by Faiss or torch, on CPU or GPU
    pic.py         Power Iteration Clustering on a nearest-neighbour graph
    sampler.py     which images an epoch trains on, in which order; weights of clusters
    quality.py     NMI, ACC, ARI, AMI, purity, silhouette, stability, sizes; members of each cluster
    silhouette.py  how much nearer rows are to their own cluster than to the next one
    chance.py      the mutual information that chance gives, for AMI
    choosing.py    how many clusters: several k and seeds, and a suggestion
    joined.py      joined clusters, as clusters on two levels
    merging.py     clusters joined to fewer groups, by Ward's method
    duplicates.py  groups of rows that are nearly the same
    outliers.py    rows far from their centroid, or from their neighbours
    clusters.py    Clusters: the PCA and centroids that a checkpoint keeps
    pickles.py     the original's `clusters` file, and the released assignments
    tables.py      the cluster of each image as CSV, Parquet, pickle or folders of links
"""

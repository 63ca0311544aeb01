"""Save runs to checkpoints, and load runs and released networks.

In: a dict of tensors, numbers and texts, or a file. Out: the file, whole or not at all; or the dict,
or the network. Loading never runs code from a file.

    checkpoint.py         save, read, `load_model`
    networks.py           a network by its name: a checkpoint's file, or `timm:NAME`
    folder.py             the checkpoints of an experiment folder: when each was saved, which are sound
    released.py           the content of a file as a checkpoint, and in words
    search.py             the network among all that a file holds
    deepercluster.py      files of DeeperCluster's release, recognised by their names
    swav.py               files of SwAV and DeepCluster-v2: the heads beside the network
    weights.py            names of weights, translated to ours and compared with a network's
    torch_file.py         torch's files, read safely; the kind of a file that is no checkpoint
    zip_torch_file.py     files since torch 1.6, checked for flipped bits
    old_torch_file.py     files from before torch 1.6
    torch_pickle.py       the pickles in both, by an unpickler that runs nothing
    safetensors_file.py   weights as safetensors
    detection.py          a ResNet's weights for torchvision, detectron2 and mmdet
    clusters.py           the clusters in a checkpoint or in a file of --save-clusters
    prototypes.py         the prototypes in a checkpoint, as clusters

The layout of a checkpoint, a dict that `torch.save` writes:

| key | type | |
|---|---|---|
| `epoch` | int | the next epoch, or the current one if `step` > 0; the original's key |
| `arch` | str | name in `models.MODELS`; the original's key |
| `state_dict` | dict of tensors | weights of the network: `sobel.*`, `features.*`, `classifier.*`, `top_layer.*`; the original's key |
| `heads` | dict of tensors | heads beside the network: `projection_head.*`, `prototypes.*`, for `models.heads.heads_for`; of DeeperCluster `super.*` and `sub.*`, for `methods.two_level.TwoLevelHeads` |
| `momentum` | dict of tensors | with `--shard_heads`, the momentum of `sub.*` |
| `slices` | list of str | only if `sub.*` and their momentum are too large for this file: the SHA-256 of each process's file in `heads/`, which has its rows |
| `std` | [float, float, float] | the network's `std`, if it isn't ImageNet's |
| `margin` | int | the network's `margin`, if it isn't 0 |
| `optimizer` | dict | state of the body's SGD, or of SGD or LARS on body and heads; the original's key |
| `method` | str | name in `main.METHODS`; without it `deepcluster` |
| `step` | int | batches done in the current epoch |
| `iteration` | int | batches done in all epochs |
| `convnet_loss` | [float, int] | sum and count of the losses of the epoch so far |
| `knn_top1` | dict or None | result of `--probe`: accuracy by number of neighbours |
| `grad_scaler` | dict | the loss scale in fp16; else empty |
| `assignment` | (N,) int64 | pseudo-labels of the epoch, −1 for an image left out |
| `previous` | (N,) int64 | pseudo-labels of the epoch before; empty in the first |
| `clusters` | dict or None | the last clustering: `algorithm`, `epoch`, `pca_mean` (D,), `pca_matrix` (D, d) (both None without a PCA: then d is D), `centroids` (k, d), all float32; on two levels `super_centroids` (m, d) and `counts` (m,) int64, as in `cluster.clusters.Clusters` |
| `clustering_loss` | float | the k-means loss of `assignment` |
| `auto_dim` | int or None | the dimensions that `--dim_pca auto` became; None with a number |
| `memory` | dict | `rows` (N, c, d), float32 or float16: the last embeddings of each image, one of each of c crops; `known` (N,) bool: whether it has any |
| `targets` | (h, N) int64 | the labels that each head trains on, −1 without one |
| `queue` | (q, c, d) float32 or None | embeddings of earlier batches, the newest first; None before the queue starts |
| `steps` | int | training steps so far, by which prototypes are frozen |
| `window` | list of lists of floats | signs of health of the last 100 steps of the epoch, over all processes: loss, cosine, and entropy of the codes |
| `tally` | list of floats | sums over the images of the epoch so far: 1, rotations recognised, losses of super- and sub-classes |
| `best_probe` | float or None | the best accuracy of `--probe` so far |
| `images_digest` | str | SHA-256 of the image names, in order |
| `settings` | dict | the flags of `main.py` |

`training/resume.py` writes the keys, checks and reads them. All methods have
`assignment`, `previous` and `clusters`. DeepCluster adds
`clustering_loss` and `auto_dim`; SwAV and DeepCluster-v2
`heads`, `window` and `best_probe`; SwAV `queue` and `steps`; DeepCluster-v2 `memory` and `targets`;
DeeperCluster `heads` and `tally`, with `--shard_heads` also `momentum` (`state_dict` in methods/). A
released checkpoint has the original's keys only; `heads` and `std` are added to files that hold the
heads of SwAV or DeepCluster-v2 beside the network, and `margin` to those of DeeperCluster's release.
"""  # noqa: E501

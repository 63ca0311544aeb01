"""A run or a released network in a file, and back.

In: a dict of tensors, numbers and texts, or a file. Out: the file, whole or not at all; or a network
and what the file says of it, without running anything that may be in the file.

    checkpoint.py         save, read, `load_model`
    folder.py             the checkpoints of an experiment folder: where each was saved, which are sound
    released.py           the layouts of released checkpoints, translated to ours
    torch_file.py         torch's files, read safely and checked for flipped bits
    old_torch_file.py     those of before torch 1.6, by a restricted unpickler
    safetensors_file.py   weights as safetensors
    clusters.py           the clusters in a checkpoint or a file of their own

The layout of a checkpoint, a dict that `torch.save` writes:

| key | type | |
|---|---|---|
| `epoch` | int | the epoch that comes next, or is under way; the original's key |
| `arch` | str | name in `models.MODELS`; the original's key |
| `state_dict` | dict of tensors | weights of the network: `sobel.*`, `features.*`, `classifier.*`, `top_layer.*`; the original's key |
| `optimizer` | dict | state of the body's SGD; the original's key |
| `method` | str | name in `main.METHODS`; without it `deepcluster` |
| `step` | int | batches of the epoch that are trained on already |
| `iteration` | int | batches trained on in all epochs |
| `convnet_loss` | [float, int] | sum and count of the losses of the epoch so far |
| `knn_top1` | dict or None | what `--probe` found, accuracy by number of neighbours |
| `grad_scaler` | dict | the loss scale in fp16; else empty |
| `assignment` | (N,) int64 | pseudo-labels of the epoch, −1 for an image left out |
| `previous` | (N,) int64 | those of the epoch before; empty in the first |
| `clusters` | dict or None | the last clustering: `algorithm`, `epoch`, `pca_mean` (D,), `pca_matrix` (D, d), `centroids` (k, d), all float32 |
| `clustering_loss` | float | the k-means loss of `assignment` |
| `images_digest` | str | SHA-256 of the image names, in order |
| `settings` | dict | the flags of `main.py` |

`training/run.py` writes the keys, `training/resume.py` checks and reads them. `assignment`,
`previous`, `clusters` and `clustering_loss` are DeepCluster's state (`methods/deepcluster.py`).
A released checkpoint has the original's keys only.
"""  # noqa: E501

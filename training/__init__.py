"""A run: its place, its folder, its logs, its resume.

In: a method, which gives the losses. Out: the experiment folder `--exp`: checkpoints, clusters,
metrics, curves, logs. Imports checkpoints/, cluster/, data/, models/, parallel/ and system/; of
methods/ only the two protocols.

    run.py            Run: batches, a step, an epoch, a save; stops after the step on a signal
    state.py          the run's place: epoch, step, losses so far
    loaders.py        its batches: of central crops, and of training images
    updates.py        backward and step: several processes, loss scale, learning rate
    optimizers.py     SGD and LARS for a method's groups of parameters
    schedules.py      warm-up and cosine: the learning rate of an iteration
    experiment.py     the experiment folder: every file that a run writes, and when
    unreadable.py     names and counts the images that can't be read
    resume.py         the content of a checkpoint; `--resume` reads it and checks that it fits
    slices.py         heads too large for one checkpoint: a file of each process beside it
    initial.py        `--init`, the weights that a run starts from, and `--freeze`
    rewind.py         cuts a folder's logs at the checkpoint; later results are removed
    assignments.py    the clusters of each epoch by image, in files
    logs.py           metrics.jsonl, log.txt, the console, TensorBoard's curves
    summary.py        an epoch in numbers and in words, and the summary at the end
    health.py         warnings: equal features, one huge cluster
    finite.py         NaN and infinity stop the run at their step, and are never saved
    finished_run.py   a run's clusters read back from its folder, for pictures and exports
"""

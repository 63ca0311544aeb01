"""A run: where it stands, its folder, its logs, how it resumes.

In: a method, which gives the losses. Out: the experiment folder `--exp`: checkpoints, clusters,
metrics, curves, logs. Imports checkpoints/, cluster/, data/, models/, parallel/ and system/; of
methods/ only the two protocols.

    run.py            Run: batches, a step, an epoch, a save; stops after the step on a signal
    state.py          the run's place: epoch, step, losses so far
    optimizers.py     SGD for a method's groups of parameters
    experiment.py     the experiment folder: every file that a run writes, and when
    unreadable.py     the images that cannot be read, named and counted
    resume.py         `--resume`: the checkpoint to go on from, and whether it fits
    rewind.py         a folder taken back to its checkpoint; later results are removed
    assignments.py    the clusters of each epoch by image, in files
    logs.py           metrics.jsonl, log.txt, the console, TensorBoard's curves
    summary.py        an epoch in numbers and in words; the summary at the end
    health.py         warnings: equal features, one huge cluster, a loss that stays at ln k
    finite.py         NaN and infinity: found at their step, named with their images, never saved
    finished_run.py   a run's clusters read back from its folder, for pictures and exports
"""

"""A run: where it stands, its folder, its logs, how it resumes.

In: a network, pseudo-labels, losses. Out: the experiment folder `--exp`: checkpoints, clusters,
metrics, curves, logs. Imports checkpoints/, cluster/, data/, models/, parallel/ and system/.

state.py          the run's place, to a checkpoint and back; the settings that a resume keeps
experiment.py     the experiment folder: every file that a run writes, and when
resume.py         a folder taken back to its checkpoint; later results are set aside
logs.py           metrics.jsonl, log.txt, the console, TensorBoard's curves
summary.py        an epoch in numbers and in words; the summary at the end
health.py         warnings: equal features, one huge cluster, a loss that stays at ln k
finite.py         NaN and infinity: found at their step, named with their images, never saved
finished_run.py   a run's clusters read back from its folder, for pictures and exports
"""

"""Several processes as one: starting them, sharing work, noticing deaths, signals.

In: arrays and tensors of each process. Out: sums, rows and objects of all processes, in the order
of the ranks. In a single process every collective is a no-op. Imports system/.

    collectives.py   the process group, shares of the data, all-reduce, gather, DDP
    heartbeat.py     when a process dies, the others end within a minute, on every machine
    launch.py        `python -m parallel.launch`: torchrun with one-line errors, passes signals on
    script.py        starts a script that torchrun may have started
    signals.py       SIGTERM and others: the first stops a run after its step, the second at once
"""

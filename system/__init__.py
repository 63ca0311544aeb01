"""The ground floor: files, names, flags, errors, devices, seeds, progress.

In: paths, bytes, flags, a seed. Out: files that are whole or absent, parsed arguments, one-line
errors, the device and the precision. Knows no images and no networks. Imports no other room;
every other room imports it.

    cli.py           command lines: types of flags, the help, one-line errors, exit status 2
    device.py        `--device` and `--precision`: what computes, and in which numbers
    extras.py        packages that few people need, and the line that says how to install them
    errors.py        InputError (bad input, in one line) and Stopped (a signal came)
    flags.py         `--workers`, `--seed`, `--exp` and others that many scripts take
    files.py         atomic writes, fsync, new folders; messages about full disks
    kept.py          work kept under its settings, so that the same command continues it
    locks.py         one process at a time in a folder
    names.py         any file name on one line of a text file or a terminal
    progress.py      a bar on a terminal, plain lines elsewhere
    results.py       the JSON file of an evaluation, with settings and versions
    safe_pickle.py   pickles, loaded without running anything: only names of an allow list are given
    seeding.py       a seed as a function of its purpose, the epoch and the step
"""

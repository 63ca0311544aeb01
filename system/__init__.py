"""The ground floor: files, names, flags, errors, devices, seeds, progress.

In: paths, bytes, flags, a seed. Out: files that are whole or absent, parsed arguments, one-line
errors, the device and the precision. Knows no images and no networks. Imports no other room;
every other room imports it.

    cli.py             command lines: types of flags, the help, one-line errors, exit status 2
    cores.py           how many cores this process may use
    device.py          `--device` and `--precision`
    errors.py          InputError (bad input, in one line) and Stopped (a signal came)
    extras.py          optional packages, and how to install them
    files.py           atomic writes, fsync, new folders; messages about full disks
    flags.py           `--workers`, `--seed`, `--exp` and others that many scripts take
    interrupt.py       Ctrl-C while packages are imported
    kept.py            work saved with its settings, which the same command continues
    locks.py           one process at a time in a folder
    names.py           any file name on one line of a text file or of a terminal
    normalisation.py   the mean and deviation of the colours that networks take
    progress.py        a bar on a terminal, plain lines elsewhere
    results.py         the JSON file of an evaluation, with settings and versions
    safe_pickle.py     loads pickles without running code, by an allow list of names
    seeding.py         a seed as a function of its purpose, the epoch and the step
"""

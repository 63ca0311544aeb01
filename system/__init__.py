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
    locks.py         one process at a time in a folder
    names.py         any file name on one line of a text file or a terminal
    pickle_scan.py   a look at a pickle before it is loaded: does it hold a bomb?
    progress.py      a bar on a terminal, plain lines elsewhere
    results.py       the JSON file of an evaluation, with settings and versions
    safe_pickle.py   pickles of plain data and arrays, loaded without running anything
    seeding.py       a seed as a function of its purpose, the epoch and the step
"""

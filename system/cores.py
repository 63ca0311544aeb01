"""The processor cores that this process may use."""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def allowed_cores(cgroups: Path = CGROUPS, own: Path = OWN) -> int:
    """Number of cores that this process may use, at least 1. The least of: the cores that it is
    bound to, the quotas of its control groups (rounded up), and the cores of its Slurm job here.

    `recipes/env.sh` counts the same in bash (`cores`), because Python may not be installed yet.

    Args:
        cgroups: where the control groups are mounted, version 1 or 2.
        own: this process's control groups.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    job = os.environ.get("SLURM_CPUS_ON_NODE", "")
    of_job = [int(job)] if job.isdecimal() else []
    return max(min([bound or 1, *of_job, *_quotas(cgroups, own)]), 1)


def _quotas(cgroups: Path, own: Path) -> Iterator[int]:
    """The quotas of the groups that this process is in, and of those around them."""
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        for group in [Path(path), *Path(path).parents]:  # a container sees only the last
            folder = cgroups / kinds / group.relative_to("/")
            try:
                if kinds:  # version 1
                    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                    quota, period = ((folder / name).read_text() for name in names)
                else:
                    quota, period = (folder / "cpu.max").read_text().split()
                if int(quota) > 0:  # −1: none
                    yield -(-int(quota) // int(period))
            except (OSError, ValueError):  # another kind of group, or "max"
                continue

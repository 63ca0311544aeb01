"""How many cores a process may use, in Python and in the scripts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from system import cores, device
from system.cores import allowed_cores

ROOT = Path(__file__).parents[2]


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def version_2(cgroups: Path, outer: str, inner: str) -> str:
    write(cgroups / "a", cpu__max=outer)
    write(cgroups / "a" / "b", cpu__max=inner)
    return "0::/a/b\n"


def version_1(cgroups: Path, quota: str, period: str, folder: str = "job") -> str:
    write(cgroups / "cpu,cpuacct" / folder, cpu__cfs_quota_us=quota, cpu__cfs_period_us=period)
    return "5:freezer:/\n4:cpu,cpuacct:/job\n1:name=systemd:/x\n0::/\n"


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 128 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(128), raising=False)
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)


QUOTAS = {
    "version 2": (lambda c: version_2(c, "max 100000", "300000 100000"), 3),
    "a half counts as one": (lambda c: version_2(c, "max 100000", "150000 100000"), 2),
    "the group around it has less": (lambda c: version_2(c, "200000 100000", "max 100000"), 2),
    "version 1": (lambda c: version_1(c, "400000", "100000"), 4),
    "version 1, seen from inside a container": (lambda c: version_1(c, "50000", "100000", "."), 1),
    "no quota, version 2": (lambda c: version_2(c, "max 100000", "max 100000"), 128),
    "no quota, version 1": (lambda c: version_1(c, "-1", "100000"), 128),
    "no files": (lambda c: "0::/a/b\n", 128),
}


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("name", QUOTAS)
def test_quotas_limit_the_cores_in_python_and_in_bash(name: str, tmp_path: Path) -> None:
    make, expected = QUOTAS[name]
    own = tmp_path / "cgroup"
    own.write_text(make(tmp_path / "cgroups"))
    assert allowed_cores(tmp_path / "cgroups", own) == expected
    script = 'set -euo pipefail; . recipes/env.sh; quotas "$0" "$1"'
    done = subprocess.run(
        ["bash", "-c", script, tmp_path / "cgroups", own],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert min([128, *map(int, done.stdout.split())]) == expected


@pytest.mark.usefixtures("many")
def test_a_slurm_job_and_the_binding_limit_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    assert allowed_cores(tmp_path, tmp_path / "none") == 6
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {7}, raising=False)
    assert allowed_cores(tmp_path, tmp_path / "none") == 1


def test_torchs_threads_fall_to_a_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        monkeypatch.setattr(device, "allowed_cores", lambda: 2)
        device.select_compute("cpu", "fp32")
        assert torch.get_num_threads() == 2
        monkeypatch.setattr(device, "allowed_cores", lambda: 8)
        device.select_compute("cpu", "fp32")
        assert torch.get_num_threads() == 2, "never raised"
    finally:
        torch.set_num_threads(before)


def test_the_default_of_workers_falls_to_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    from system import cli, flags

    monkeypatch.setattr(flags, "allowed_cores", lambda: 1)
    parser = cli.Parser(prog="script")
    flags.add_workers(parser)
    assert parser.parse_args([]).workers == 1
    assert parser.parse_args(["--workers", "9"]).workers == 9
    assert cores.allowed_cores() >= 1

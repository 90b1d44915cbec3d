"""How many cores this process may keep busy, which is often fewer than there are."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores(root: Path = Path("/")) -> int:
    """Return the cores that the scheduler lets this process onto, within its group's quota.

    Of a quota of 2.5 cores two count: the rest is left to the event loop. What cannot be read is
    no limit.

    Source: the kernel's ``Documentation/admin-guide/cgroup-v2.rst``, "cpu.max", and
    ``Documentation/scheduler/sched-bwc.rst`` for version 1.

    Args:
        root: Of the file system, under which ``proc`` and ``sys`` lie.
    """
    allowed = len(os.sched_getaffinity(0))
    return max(1, int(min([allowed, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quotas, in cores, of this process's groups and of all groups around them."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            mounts, name = root / "sys/fs/cgroup", "cpu.max"
        elif "cpu" in controllers.split(","):
            mounts, name = root / "sys/fs/cgroup" / controllers, "cpu.cfs_quota_us"
        else:
            continue
        for folder in (PurePosixPath(group), *PurePosixPath(group).parents):
            limits = _read(mounts / str(folder).lstrip("/") / name).split()
            if name == "cpu.cfs_quota_us":
                limits += _read(mounts / str(folder).lstrip("/") / "cpu.cfs_period_us").split()
            yield from _cores(limits)


def _cores(limits: list[str]) -> Iterator[float]:
    """Yield the quota of one group: microseconds of CPU, and in how many microseconds."""
    # "max" and -1 stand for no quota.
    if len(limits) == 2 and all(limit.isdigit() for limit in limits):  # noqa: PLR2004 - a pair
        quota_us, period_us = map(int, limits)
        yield quota_us / period_us


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""

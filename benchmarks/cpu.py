"""CPU time of other processes, and which cores they may use."""

from __future__ import annotations

import os
import platform
import time

import psutil

LINUX = platform.system() == "Linux"


def cpu_seconds(pids: list[int]) -> float:
    """User and system time that these processes have used, in seconds.

    /proc and psutil count in ticks of 10 ms, which is the cost of 170 requests; Linux has a
    clock for every process that counts nanoseconds (clock_getcpuclockid(3)).
    """
    if LINUX:
        return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(one.user + one.system for one in times)


def family(pid: int) -> list[int]:
    """A process and all that it has started: a server with worker processes counts as one."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def cores() -> tuple[set[int], set[int]]:
    """Cores for the thing under test and for everything else; empty sets mean no pinning."""
    if not LINUX:
        return set(), set()
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        return set(), set()
    return {usable[0]}, set(usable[1:])


def pin(pid: int, to: set[int]) -> None:
    """Keep a process on these cores, where the system can do that."""
    if to and LINUX:
        os.sched_setaffinity(pid, to)

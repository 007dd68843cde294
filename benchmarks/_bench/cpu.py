"""CPU time and memory of other processes. Imports the standard library only."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["cpu_seconds", "resident_mib"]

_TICKS = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2


def cpu_seconds(pid: int) -> float | None:
    """User and system time of all threads of a process so far; None where the system does not tell."""
    try:
        # What clock_getcpuclockid(3) computes on Linux: nanoseconds, where /proc has hundredths of a second.
        return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED) / 1e9
    except OSError:
        return _from_proc(pid)


def _from_proc(pid: int) -> float | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may contain spaces
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mib(pid: int) -> float | None:
    """Resident memory in MiB; None where the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return None

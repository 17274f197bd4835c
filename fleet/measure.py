"""What a process and those below it use, read from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from demo.processes import descendants

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Use:
    """Processor time so far, and memory now.

    :param memory: bytes; what several processes share is counted once for all of them (Pss).
    """

    cpu_seconds: float
    memory: int


def use_of(pid: int) -> Use:
    """Return what this process and all below it use."""
    cpu, memory = 0.0, 0
    for each in (pid, *descendants(pid)):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
        except OSError:
            continue  # it has just ended
        cpu += (int(fields[11]) + int(fields[12])) / _TICKS
        memory += next(
            (
                int(line.split()[1]) * 1024
                for line in rollup.splitlines()
                if line.startswith("Pss:")
            ),
            int(fields[21]) * _PAGE,
        )
    return Use(cpu, memory)

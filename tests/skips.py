"""What a run of the tests skipped, and which Debian packages would run it.

A reason names its packages as ``(Debian: nsd)`` or ``(Debian: postgresql redis-server)``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any


def summary(reasons: Sequence[str]) -> list[str]:
    """Lines about the tests that were skipped, the most frequent reason first.

    :param reasons: one for each of them.
    """
    if not reasons:
        return []
    lines = [f"{len(reasons)} tests were skipped:"]
    lines += [f"{count:6}  {reason}" for reason, count in Counter(reasons).most_common()]
    named = [re.findall(r"\(Debian: ([^)]+)\)", reason) for reason in reasons]
    packages = sorted({package for found in named for text in found for package in text.split()})
    if packages:
        count = sum(map(bool, named))
        lines.append(f"To run {count} of them: apt-get install {' '.join(packages)}")
    return lines


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print it at the end of a run."""
    skipped = terminalreporter.stats.get("skipped", [])
    lines = summary([report.longrepr[2].removeprefix("Skipped: ") for report in skipped])
    if lines:
        terminalreporter.section("skipped")
    for line in lines:
        terminalreporter.write_line(line)

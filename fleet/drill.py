"""All of it in its order: a healthy day, a waiting crowd, an outage, and the verdict."""

from __future__ import annotations

from fleet import claims, crowd, outage, overhead, report
from fleet.stack import Fleet


def run(fleet: Fleet) -> bool:
    """Let the fleet bear everything; returns whether every claim held."""
    console = fleet.console
    console.heading(f"Starting everything ({fleet.sizes})")
    fleet.start()
    overheads = overhead.measure(fleet)
    crowds = crowd.gather(fleet)
    survived = outage.survive(fleet)
    verdicts = claims.judge(fleet.sizes, crowds, survived, overheads)
    report.show(fleet, crowds, survived, overheads, verdicts)
    return all(verdict.held for verdict in verdicts)

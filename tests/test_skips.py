"""The end of a test run says what was skipped, and what would run it."""

from __future__ import annotations

from tests.skips import summary


def test_skips_are_counted_by_reason_with_the_packages_that_would_run_them():
    """The most frequent first; one command installs what is missing."""
    nsd, fleet = "nsd is not installed (Debian: nsd)", "no fleet (Debian: postgresql redis-server)"
    assert summary([nsd, "no IPv6 on this machine", fleet, nsd]) == [
        "4 tests were skipped:",
        f"     2  {nsd}",
        "     1  no IPv6 on this machine",
        f"     1  {fleet}",
        "To run 3 of them: apt-get install nsd postgresql redis-server",
    ]


def test_nothing_is_said_where_nothing_was_skipped():
    """Nor is a package named where none would help."""
    assert summary([]) == []
    assert summary(["no IPv6 on this machine"])[-1] == "     1  no IPv6 on this machine"

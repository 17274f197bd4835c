"""Which nameservers do not answer this process. Entries expire; answers are not stored."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_hokusai_dns.resolver.lookup.questions import Server

#: Seconds of silence after which a nameserver counts as silent.
SILENT_AFTER = 1.0
#: Seconds for which a silent one is asked after the others. Then it is asked in its place again,
#: and the next one at the same moment, so that finding out costs a query and no time.
SILENT_FOR = 30.0


class NameserverHealth:
    """Silence per nameserver. Any packet ends it, whatever it contains.

    SERVFAIL and "no such name" concern the name, not the nameserver. Used by any number of threads
    without a lock: each change is one assignment, and the last one wins.
    """

    def __init__(self) -> None:
        self._silent_until: dict[Server, float] = {}
        self._answered_at: dict[Server, float] = {}

    def answered(self, server: Server, now: float) -> None:
        """Record a packet from this nameserver."""
        self._answered_at[server] = now
        self._silent_until.pop(server, None)

    def unanswered(self, server: Server, since: float, now: float) -> None:
        """Record that a query sent at ``since`` got no answer; others may have."""
        answered = self._answered_at.get(server)
        if now >= since + SILENT_AFTER and (answered is None or answered < since):
            self._silent_until[server] = now + SILENT_FOR

    def is_silent(self, server: Server) -> bool:
        """Whether it has sent nothing since it fell silent, however long ago that was."""
        return server in self._silent_until

    def order(self, servers: Sequence[Server], now: float) -> tuple[Server, ...]:
        """The nameservers as listed, with silent ones at the end."""
        if not self._silent_until:
            return tuple(servers)
        return tuple(sorted(servers, key=lambda s: self._silent_until.get(s, now) > now))

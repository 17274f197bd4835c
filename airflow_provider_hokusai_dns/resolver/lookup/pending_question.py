"""One question of a lookup: which nameservers to ask, and which reply counts. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_hokusai_dns.resolver.lookup.nameserver_health import NameserverHealth
from airflow_provider_hokusai_dns.resolver.lookup.questions import (
    NameserverReply,
    Question,
    Reply,
    Server,
)
from airflow_provider_hokusai_dns.resolver.lookup.resolv_conf import ResolvConf
from airflow_provider_hokusai_dns.resolver.model import FOREVER, LONG_AGO, Cause

#: Seconds until the next packet for a question that has no answer yet: to the next nameserver,
#: or to the same one where there is no other. They lengthen with each turn of the list. A lost
#: packet costs the first of them.
_PAUSES = (0.5, 1.0, 2.0, 4.0)


@dataclass(slots=True, eq=False)
class Nameservers:
    """The nameservers of one lookup: its questions share them, and their :attr:`outbox`.

    :param listed: in the order of the configuration.
    :param order: those known to be silent last.
    :param conf: how to ask; its nameservers and search domains are not used.
    :param hold: seconds for which the address of a later one waits for those listed before it.
    :param hold_no: the same for a "no such name".
    """

    listed: tuple[Server, ...]
    order: tuple[Server, ...]
    health: NameserverHealth
    conf: ResolvConf
    hold: float
    hold_no: float
    outbox: list[Query] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Query:
    """One query to one nameserver, from :attr:`.Plan.outbox`.

    :param edns: with an OPT record.
    :param fresh_port: from a port of its own: a firewall may drop what comes from the old one.
    """

    pending: PendingQuestion
    server: Server
    sent_at: float
    tcp: bool
    edns: bool
    fresh_port: bool
    ended_at: float | None = None
    reply: Reply | None = None

    @property
    def question(self) -> Question:
        """What to ask."""
        return self.pending.question


class PendingQuestion:
    """One question and its progress.

    ``rank`` is the position in the list of the nameserver whose reply counts, and beyond the list
    while there is none.
    """

    def __init__(self, question: Question, nameservers: Nameservers) -> None:
        self.question = question
        self.queries: list[Query] = []
        #: The reply that stands, or will from ``stands_at`` on.
        self.reply: Reply | None = None
        self.stands_at = FOREVER
        #: No nameserver is left that could answer.
        self.failed = False
        self.next_at = FOREVER
        self.rank = len(nameservers.listed)
        self._nameservers = nameservers
        self._erred: set[Server] = set()
        self._answered: set[Server] = set()
        self._turn = 0

    # --- what happened

    def begin(self, now: float) -> None:
        """Send the first query."""
        if not self.queries:
            self._query_next(now)

    def tick(self, now: float, *, decided: bool) -> None:
        """Time has passed; ``decided``: the lookup has its outcome."""
        health = self._nameservers.health
        for query in self.queries:
            if query.ended_at is None:
                health.unanswered(query.server, query.sent_at, now)
        if self.reply is not None and now < self.stands_at:
            self._weigh(now)
        while now >= self.next_at:
            # Once the lookup is decided, one repetition is enough for a packet that may be lost.
            if decided and len(self.queries) > 1:
                self.next_at = FOREVER
                return
            self._query_next(now)

    def replied(self, query: Query, reply: Reply, now: float) -> None:
        """A packet came for this question, from whichever query of it, however late."""
        query.ended_at, query.reply = now, reply
        self._nameservers.health.answered(query.server, now)
        if reply.truncated:
            self._send(query.server, now, tcp=True)
        elif query.edns and reply.note == "FORMERR":  # older than EDNS (RFC 6891, 6.2.2)
            self._send(query.server, now, tcp=query.tcp)
        elif reply.cause is None or reply.is_no:
            self._consider(query.server, reply, now)
        else:
            self._err(query, reply, now)

    def broke(self, query: Query, why: Reply, now: float) -> None:
        """This query cannot be answered, and no packet said so."""
        if query.ended_at is None:
            query.ended_at = now
            self._err(query, why, now)

    # --- how it stands

    def settled(self, now: float) -> bool:
        """Whether no further reply is expected."""
        return self.failed or (self.reply is not None and now >= self.stands_at)

    @property
    def has_some(self) -> bool:
        """Whether any nameserver returned addresses."""
        return self.reply is not None and self.reply.cause is None

    def seems_no(self) -> bool:
        """Whether all that could say something else are nameservers that have fallen silent."""
        is_silent = self._nameservers.health.is_silent
        return (
            self.reply is not None
            and self.reply.is_no
            and all(is_silent(server) for server in self._before())
        )

    def cause(self) -> Cause:
        """Why there is no address, as far as is known now."""
        if self.reply is not None and self.reply.cause is not None:
            return self.reply.cause
        replies = [query.reply for query in self.queries if query.reply is not None]
        causes = [reply.cause for reply in replies if reply.cause is not None]
        for cause in (Cause.SERVFAIL, Cause.REFUSED):
            if cause in causes:
                return cause
        if any(query.ended_at is None for query in self.queries) or not causes:
            return Cause.TIMEOUT
        return Cause.NETWORK if set(causes) == {Cause.NETWORK} else Cause.MALFORMED

    def replies(self, now: float) -> list[NameserverReply]:
        """The last reply of each nameserver that was asked."""
        words: dict[Server, NameserverReply] = {}
        for query in self.queries:
            reply = query.reply
            if reply is None or reply.truncated:
                if query.server in words:
                    continue
                reply, ended = Reply(Cause.TIMEOUT), now
            else:
                ended = query.ended_at or now
            words[query.server] = NameserverReply(
                str(query.server),
                *self.question,
                reply.addresses,
                reply.ttl,
                reply.cause,
                ended - query.sent_at,
                reply.note or ", ".join(map(str, reply.services)),
            )
        return list(words.values())

    # --- inside

    def _send_first(self, server: Server, now: float) -> None:
        conf = self._nameservers.conf
        self._send(server, now, tcp=conf.use_vc, edns=conf.edns0)

    def _send(self, server: Server, now: float, *, tcp: bool, edns: bool = False) -> None:
        query = Query(self, server, now, tcp, edns, fresh_port=bool(self.queries))
        self.queries.append(query)
        self._nameservers.outbox.append(query)

    def _query_next(self, now: float) -> None:
        """Ask the next nameserver that has not failed; at the end of the list begin again."""
        done = self._erred | self._answered
        servers = [server for server in self._nameservers.order if server not in done]
        if not servers:
            self.next_at = FOREVER
            return
        asked = {query.server for query in self.queries}
        unasked = [server for server in servers if server not in asked]
        if unasked:
            server = unasked[0]
        else:
            server = servers[self._turn % len(servers)]
            self._turn += 1
        turns = len(self.queries) // len(servers)
        pause = _PAUSES[min(turns, len(_PAUSES) - 1)]
        if len(unasked) > 1 and self._nameservers.health.is_silent(server):
            pause = 0.0
        self._send_first(server, now)
        self.next_at = now + pause

    def _consider(self, server: Server, reply: Reply, now: float) -> None:
        """Take an answer: positive ones take precedence, then those of earlier nameservers."""
        rank = self._nameservers.listed.index(server)
        self._answered.add(server)
        known = self.reply
        if known is not None and (known.cause is None, -self.rank) >= (reply.cause is None, -rank):
            return
        self.reply, self.rank = reply, rank
        self._weigh(now)

    def _weigh(self, now: float) -> None:
        """Work out from when on the reply stands."""
        assert self.reply is not None
        before = self._before()
        if self.reply.cause is None:
            # One that has fallen silent is not waited for, or it would cost its time every time.
            is_silent = self._nameservers.health.is_silent
            since = [self._first(server, now) for server in before if not is_silent(server)]
            self.stands_at = max(since, default=LONG_AGO) + self._nameservers.hold
            self.next_at = FOREVER
            return
        asked = {query.server for query in self.queries}
        for server in before:
            if server not in asked:  # it does not outvote one that was not asked
                self._send_first(server, now)
        since = [self._first(server, now) for server in before]
        self.stands_at = max(since, default=LONG_AGO) + self._nameservers.hold_no
        if not before:
            self.next_at = FOREVER

    def _before(self) -> list[Server]:
        """The nameservers that are listed earlier and may still say something."""
        before = self._nameservers.listed[: self.rank]
        return [server for server in before if server not in self._erred]

    def _first(self, server: Server, now: float) -> float:
        """When a nameserver was asked for the first time; now, where it is about to be."""
        return min((query.sent_at for query in self.queries if query.server == server), default=now)

    def _err(self, query: Query, reply: Reply, now: float) -> None:
        query.reply = reply
        self._erred.add(query.server)
        if self.reply is not None:
            self._weigh(now)
            return
        asked = {query.server for query in self.queries}
        left = [server for server in self._nameservers.listed if server not in self._erred]
        if not left:
            self.failed, self.next_at = True, FOREVER
        elif any(server not in asked for server in left):
            self._query_next(now)

"""The schedule of one lookup over DNS: which nameserver is asked what, and when.

Pure: it takes ``now`` and events, and returns what to send. No socket and no clock here.

Nameservers are asked in their listed order. The next one is asked when the one before it fails or
is slow; late replies count too. Both families are asked in parallel, and so are the candidates of
the search list, if one delays the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from airflow_provider_hokusai_dns.resolver.errors import LookupFailed
from airflow_provider_hokusai_dns.resolver.lookup.nameserver_health import NameserverHealth
from airflow_provider_hokusai_dns.resolver.lookup.pending_question import (
    Nameservers,
    PendingQuestion,
    Query,
)
from airflow_provider_hokusai_dns.resolver.lookup.questions import (
    MAX_ADDRESSES,
    NameserverReply,
    Question,
    Reply,
    Server,
)
from airflow_provider_hokusai_dns.resolver.lookup.resolv_conf import ResolvConf
from airflow_provider_hokusai_dns.resolver.model import (
    FOREVER,
    LONG_AGO,
    Answer,
    Attempt,
    Cause,
    Endpoint,
    Source,
)

#: Seconds for which the address of a later nameserver waits for those listed before it.
_HOLD = 1.0
#: The same for a "no such name": it starts the clock of policy rule 7, so it has to be true.
_HOLD_NO = 2.5
#: How long a missing AAAA is waited for once there are IPv4 addresses. RFC 8305 section 3 advises
#: 50 ms; a second answer that was sent at the same moment may be a busy server's.
_LATE_AAAA = 0.25
#: How long a missing A is waited for. That one of the two is lost or slow is no sign that servers
#: or firewalls do not know the type, as it is with AAAA (RFC 4074), and few can do without it.
_LATE_A = 1.0
#: How long a silent AAAA keeps a "no such name" of A waiting.
_LATE_AAAA_OF_NONE = 2.0
#: Seconds until the next candidate is asked for beside one that has no answer yet.
_NEXT_CANDIDATE = 1.0
#: A silent candidate holds back later ones, and any single wait lasts, for at most this share of
#: the timeout.
_SHARE = 0.25
#: How long a family that is late is listened to after the outcome, so that it is not lost.
_LISTEN_ON = 3.0


class _Candidate:
    """One absolute name, looked up in each family."""

    def __init__(self, name: str, kinds: Iterable[str], nameservers: Nameservers) -> None:
        self.name = name
        self.questions = [PendingQuestion(Question(name, kind), nameservers) for kind in kinds]
        self.started_at: float | None = None

    def begin(self, now: float, *, one_at_a_time: bool) -> None:
        if self.started_at is None:
            self.started_at = now
        for pending in self.questions:
            pending.begin(now)
            if one_at_a_time and not pending.settled(now):
                return

    def decision(self, now: float) -> tuple[bool | None, float]:
        """True for addresses, False for none, None for not yet; and when that may change."""
        found, open_ = [], []
        for pending in self.questions:
            if not pending.settled(now):
                open_.append(pending)
            elif pending.has_some:
                found.append(pending)
        if not open_:
            return bool(found), FOREVER
        until = FOREVER
        if found:
            # A nameserver that is believed about one family, or a better one, is about the other.
            rank = max(pending.rank for pending in found)
            open_ = [pending for pending in open_ if pending.rank > rank]
            if not open_:
                return True, FOREVER
            late = _LATE_A if any(pending.question.kind == "A" for pending in open_) else _LATE_AAAA
            until = min(_ended(pending, now) for pending in found) + late
            if now >= until:
                return True, FOREVER
        elif len(self.questions) == 2:
            of_a = self.questions[0]
            # NXDOMAIN for A also settles AAAA, after a short wait. The reverse is not true: some
            # servers say NXDOMAIN for AAAA where they mean "no data" (RFC 4074, 4.2).
            reply = of_a.reply
            if reply is not None and reply.cause is Cause.NXDOMAIN and now >= of_a.stands_at:
                until = _ended(of_a, now) + _LATE_AAAA_OF_NONE
                if now >= until:
                    return False, FOREVER
        return None, until

    def seems_no(self) -> bool:
        """Whether all replies so far say that there is no record."""
        return all(pending.seems_no() for pending in self.questions)

    def cause(self) -> Cause:
        """Why this name has no address (policy rule 10). The reply for A decides."""
        causes = [pending.cause() for pending in self.questions]
        if causes[0] is Cause.NODATA and len(causes) == 2:
            return causes[1]
        return causes[0]


def _ended(pending: PendingQuestion, now: float) -> float:
    """When the reply of a question came, or began to stand."""
    ended = [one.ended_at for one in pending.queries if one.reply is pending.reply and one.ended_at]
    return max(min(ended, default=now), pending.stands_at)


class Plan:
    """A lookup of one name over DNS.

    The caller sends the queries in :attr:`outbox`, reports with :meth:`replied` and :meth:`broke`,
    calls :meth:`tick` at :attr:`wake_at`, and stops when :attr:`outcome` is set. It may continue
    until :meth:`is_over`: an answer is then replaced by one that contains more.

    :param candidates: absolute names, in order of precedence.
    :param hint: the candidate that answered before.
    :param timeout: seconds.
    :param conf: how to ask; its nameservers and search domains are not used.
    """

    def __init__(
        self,
        candidates: Sequence[str],
        servers: Sequence[Server],
        health: NameserverHealth,
        now: float,
        timeout: float,
        *,
        kinds: Sequence[str] = ("A", "AAAA"),
        hint: str | None = None,
        conf: ResolvConf,
    ) -> None:
        share = timeout * _SHARE
        nameservers = Nameservers(
            tuple(servers),
            health.order(servers, now),
            health,
            conf,
            hold=min(_HOLD, share, conf.timeout),
            hold_no=min(_HOLD_NO, share, conf.timeout),
        )
        self.outbox = nameservers.outbox
        self.outcome: Answer | LookupFailed | None = None
        self.end = now + timeout
        self.wake_at = now
        self._hint = hint
        self._candidates = [_Candidate(name, kinds, nameservers) for name in candidates]
        self._as_is = min(candidates, key=len)
        # No longer than the system itself would wait for one name, or for one nameserver.
        self._patience = min(share, conf.timeout * conf.attempts)
        self._one_at_a_time = conf.single_request
        self._step = min(_NEXT_CANDIDATE, timeout / (2 * len(candidates)))
        self._chosen: _Candidate | None = None
        self._evaluate(now)

    # --- events

    def replied(self, query: Query, reply: Reply, now: float) -> None:
        """A packet arrived for a query that was sent."""
        query.pending.replied(query, reply, now)
        if self._chosen is not None:
            self.outcome = self._answer(self._chosen)
        self._evaluate(now)

    def broke(self, query: Query, why: Reply, now: float) -> None:
        """A query cannot be answered; ``why`` has the cause."""
        query.pending.broke(query, why, now)
        self._evaluate(now)

    def tick(self, now: float) -> None:
        """Call this at :attr:`wake_at`."""
        decided = self.outcome is not None
        for pending in self._begun():
            if not pending.settled(now):
                pending.tick(now, decided=decided)
        self._evaluate(now)

    # --- how it stands

    def is_over(self, now: float) -> bool:
        """Whether no further answer can change the outcome."""
        if now >= self.end or isinstance(self.outcome, LookupFailed):
            return True
        chosen = self._chosen
        if chosen is None:
            return False
        rank = max(pending.rank for pending in chosen.questions if pending.has_some)
        return all(pending.settled(now) or pending.rank <= rank for pending in chosen.questions)

    def reply(self) -> Reply:
        """The reply to the one question of the chosen name."""
        assert self._chosen is not None
        reply = self._chosen.questions[0].reply
        assert reply is not None
        return reply

    def name(self) -> str:
        """The absolute name that was chosen; before that, the first candidate."""
        return (self._chosen or self._candidates[0]).name

    def replies(self, now: float) -> list[NameserverReply]:
        """What each nameserver has said so far."""
        return [word for pending in self._begun() for word in pending.replies(now)]

    def attempts(self, now: float) -> list[Attempt]:
        """The same, as an error shows it."""
        return [
            Attempt(f"dns {one.nameserver} {one.family} {one.name}", one.outcome, one.seconds)
            for one in self.replies(now)
        ]

    # --- inside

    def _started(self) -> list[_Candidate]:
        return [each for each in self._candidates if each.started_at is not None]

    def _begun(self) -> list[PendingQuestion]:
        return [one for each in self._candidates for one in each.questions if one.queries]

    def _evaluate(self, now: float) -> None:
        """Choose, give up, or compute when the next event is due."""
        if self.outcome is not None:
            self.wake_at = self._next_tick(now, self.end)
            return
        changes = self.end
        decisions: list[bool | None] = []
        for candidate in self._candidates:
            if candidate.started_at is None:
                due = self._due(now)
                if now < due:
                    changes = min(changes, due)
                    break
            if candidate.started_at is None or self._one_at_a_time:
                candidate.begin(now, one_at_a_time=self._one_at_a_time)
            decision, until = candidate.decision(now)
            decisions.append(decision)
            changes = min(changes, until)
            if decision:
                held_until = self._held_until(decisions[:-1])
                if now >= held_until:
                    self._choose(candidate, now)
                else:
                    changes = min(changes, held_until)
                break
        else:
            if all(decision is False for decision in decisions):
                self.outcome = self._failure(now)
        if self.outcome is None and now >= self.end:
            self._give_up(now)
        # With an outcome, the next event computes it, if the caller continues.
        self.wake_at = self._next_tick(now, changes) if self.outcome is None else now

    def _due(self, now: float) -> float:
        """When the first candidate that has not been looked up is due."""
        begun = self._started()
        if not begun:
            return now
        last = begun[-1]
        if last.decision(now)[0] is False or last.seems_no():
            return now
        assert last.started_at is not None
        return last.started_at + self._step

    def _held_until(self, decisions: Sequence[bool | None]) -> float:
        """Until when undecided earlier candidates delay an answer."""
        return max(
            (
                (candidate.started_at or 0.0) + self._patience
                for candidate, decision in zip(self._candidates, decisions, strict=False)
                if decision is None and not candidate.seems_no()
            ),
            default=LONG_AGO,
        )

    def _next_tick(self, now: float, changes: float) -> float:
        for pending in self._begun():
            if not pending.settled(now):
                changes = min(changes, pending.next_at)
                if now < pending.stands_at:
                    changes = min(changes, pending.stands_at)
        return max(now, changes)

    def _choose(self, candidate: _Candidate, now: float) -> None:
        self._chosen = candidate
        self.outcome = self._answer(candidate)
        self.end = min(self.end, now + _LISTEN_ON)

    def _answer(self, chosen: _Candidate) -> Answer:
        """The addresses of the chosen name so far."""
        replies = [one.reply for one in chosen.questions if one.reply and one.has_some]
        addresses = dict.fromkeys(address for reply in replies for address in reply.addresses)
        return Answer(
            tuple(Endpoint(address) for address in list(addresses)[:MAX_ADDRESSES]),
            Source.DNS,
            ttl=min(reply.ttl for reply in replies if reply.ttl is not None),
            name=chosen.name,
        )

    def _give_up(self, now: float) -> None:
        """Choose an address that was held back until the time had passed, or give up."""
        for candidate in self._candidates:
            if any(pending.has_some for pending in candidate.questions):
                self._choose(candidate, now)
                return
        self.outcome = self._failure(now)

    def _failure(self, now: float) -> LookupFailed:
        cause = self._deciding(self._started()).cause()
        return LookupFailed(cause, _SENTENCES[cause], self.attempts(now))

    def _deciding(self, begun: Sequence[_Candidate]) -> _Candidate:
        """The candidate whose cause the lookup reports, in glibc's order.

        The name that answered last time; the name as given, if it was asked first; the first
        candidate with NODATA, then with SERVFAIL; else the last one asked. REFUSED from a search
        domain does not decide.
        """
        by_name = {candidate.name: candidate for candidate in begun}
        if self._hint in by_name:
            return by_name[self._hint]
        if begun[0].name == self._as_is:
            return begun[0]
        causes = {candidate.cause(): candidate for candidate in reversed(begun)}
        for cause in (Cause.NODATA, Cause.SERVFAIL):
            if cause in causes:
                return causes[cause]
        return begun[-1]


_SENTENCES = {
    Cause.NXDOMAIN: "DNS says that there is no such name",
    Cause.NODATA: "DNS says that the name has no address",
    Cause.SERVFAIL: "the nameserver could not answer (SERVFAIL)",
    Cause.REFUSED: "the nameserver refused to answer (REFUSED)",
    Cause.TIMEOUT: "no nameserver answered in time",
    Cause.NETWORK: "no nameserver can be reached",
    Cause.MALFORMED: "the nameserver's answer could not be understood",
}

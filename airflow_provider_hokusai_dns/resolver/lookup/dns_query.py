"""Ask nameservers through dnspython: A and AAAA together, with search domains, causes as data."""

from __future__ import annotations

import copy
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns.exceptions import LookupFailed
from airflow_provider_hokusai_dns.resolver.config import split_nameserver
from airflow_provider_hokusai_dns.resolver.lookup.files import WatchedFile
from airflow_provider_hokusai_dns.resolver.model import Answer, Attempt, Cause, Endpoint, Source
from airflow_provider_hokusai_dns.resolver.workers import Workers

if TYPE_CHECKING:
    import dns.exception
    import dns.resolver

_RESOLV_CONF = Path("/etc/resolv.conf")
#: Seconds for one try at one nameserver, so that a dead first one does not cost the whole time.
_TRY = 1.0
#: How long the second family is waited for once the first has addresses or "no such name". RFC 8305
#: section 3 advises 50 ms; a second answer that was sent at the same moment may be a busy server's.
_SECOND_FAMILY = 0.25
#: Addresses kept of one answer.
_MAX_ADDRESSES = 64
#: Characters of an absolute name, its final dot included (RFC 1035, 3.1).
_MAX_NAME = 254
_FAMILIES = ("A", "AAAA")


#: Held while dnspython is imported. A fork waits for it: a child that came into being half-way
#: would have modules that nobody finishes, and no lookup would ever succeed there.
_importing = threading.RLock()
os.register_at_fork(
    before=_importing.acquire,
    after_in_parent=_importing.release,
    after_in_child=_importing.release,
)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one question about one absolute name and family gave."""

    addresses: tuple[str, ...] = ()
    ttl: float | None = None
    cause: Cause | None = None
    tried: tuple[Attempt, ...] = field(default=())
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What one nameserver said about one absolute name and family.

    :param cause: why it gave no address; ``None`` where it gave some.
    :param seconds: how long it took.
    """

    nameserver: str
    name: str
    family: str
    addresses: tuple[str, ...]
    ttl: float | None
    cause: Cause | None
    seconds: float | None


class DNSQuery:
    """Lookups over DNS.

    :param nameservers: ``"address"`` or ``"address:port"``; empty takes those of ``resolv.conf``,
        which is read again when it changes.
    :param search: search domains; ``None`` takes those of ``resolv.conf`` together with its
        nameservers, and none beside nameservers of one's own.
    :param workers: where single questions run. Not those on which :meth:`lookup` itself runs:
        a full house of lookups would wait for questions that find no thread.
    """

    def __init__(
        self,
        nameservers: tuple[str, ...] = (),
        search: tuple[str, ...] | None = None,
        *,
        workers: Workers | None = None,
        resolv_conf: Path = _RESOLV_CONF,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nameservers = tuple(split_nameserver(server) for server in nameservers)
        self._search = search
        self._workers = workers or Workers("hokusai-dns-query", limit=128)
        self._monotonic = monotonic
        self._resolver = WatchedFile(resolv_conf, self._make_resolver)

    def lookup(
        self, hostname: str, *, timeout: float, hint: str | None = None, thorough: bool = True
    ) -> Answer:
        """Look a hostname up; see :class:`~.model.Lookup`."""
        started = self._monotonic()
        end = started + timeout
        made = self._resolver.value()
        if isinstance(made, str):
            raise LookupFailed(Cause.CONFIG, made, (Attempt("dns", made),))
        tried: list[Attempt] = []
        causes: list[Cause] = []
        for name in self._candidates(made, hostname, hint):
            left = end - self._monotonic()
            if left <= 0 and causes:
                break
            outcomes = self._ask_both(made, name, max(left, 0.01))
            for outcome in outcomes:
                tried.extend(outcome.tried)
            addresses = [a for outcome in outcomes for a in outcome.addresses]
            if addresses:
                ttls = [o.ttl for o in outcomes if o.addresses and o.ttl is not None]
                return Answer(
                    tuple(Endpoint(a) for a in addresses[:_MAX_ADDRESSES]),
                    Source.DNS,
                    ttl=min(ttls, default=None),
                    name=name,
                )
            causes.append(_name_cause([o.cause for o in outcomes if o.cause is not None]))
        cause = _worst(causes)
        raise LookupFailed(cause, _SENTENCES[cause], tried)

    def ask_each(self, hostname: str, *, timeout: float) -> list[Said]:
        """Ask every nameserver by itself, all at the same time, as one does to find the bad one.

        A lookup asks the next one only where the first fails; this costs a question each.

        :param timeout: seconds for all of it, apart from what dnspython overshoots.
        :raises LookupFailed: no usable nameserver is configured.
        """
        made = self._resolver.value()
        if isinstance(made, str):
            raise LookupFailed(Cause.CONFIG, made, (Attempt("dns", made),))
        names = self._candidates(made, hostname, None)
        servers = Workers("hokusai-dns-each")  # not those that the questions run on
        answers = []
        for server in made.nameservers:
            alone = copy.copy(made)
            alone.nameservers = [server]
            answers.append(servers.call(partial(self._ask_one, alone, names, timeout)))
        return [said for answer in answers for said in answer.result()]

    def _ask_one(
        self, resolver: dns.resolver.Resolver, names: list[str], timeout: float
    ) -> list[Said]:
        """What the one nameserver says to each name in turn, up to the first with addresses."""
        end = self._monotonic() + timeout
        address, port = _place(resolver, resolver.nameservers[0])
        label = f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
        said: list[Said] = []
        for name in names:
            left = end - self._monotonic()
            if left <= 0 and said:
                break
            outcomes = self._ask_both(resolver, name, max(left, 0.01))
            said += [
                Said(label, name, kind, one.addresses, one.ttl, one.cause, one.seconds)
                for kind, one in zip(_FAMILIES, outcomes, strict=True)
            ]
            if any(one.addresses for one in outcomes):
                break
        return said

    def _make_resolver(self, resolv_conf: str) -> dns.resolver.Resolver | str:
        """A dnspython resolver, or the sentence that says why there is none."""
        import io

        with _importing:
            import dns.nameserver
            import dns.rdtypes.ANY.CNAME
            import dns.rdtypes.ANY.SOA
            import dns.rdtypes.IN.A
            import dns.rdtypes.IN.AAAA  # these four it would import with the first answers
            import dns.resolver

        resolver = dns.resolver.Resolver(configure=False)
        if self._nameservers:
            resolver.nameservers = [
                dns.nameserver.Do53Nameserver(address, port) for address, port in self._nameservers
            ]
        else:
            try:
                resolver.read_resolv_conf(io.StringIO(resolv_conf))
            except Exception as error:
                return f"resolv.conf names no usable nameserver: {error}"
        resolver.timeout = _TRY  # "options timeout" is for a client that asks one after the other
        return resolver

    def _candidates(
        self, resolver: dns.resolver.Resolver, hostname: str, hint: str | None
    ) -> list[str]:
        """The absolute names to try in the order of ``resolv.conf(5)``; ``hint`` goes first."""
        if hostname.endswith("."):
            return [hostname]
        absolute = hostname + "."
        if self._search is not None:
            domains = [domain.removesuffix(".") for domain in self._search]
        elif self._nameservers:
            domains = []
        else:
            known = resolver.search or [resolver.domain]  # "domain", or that of this machine's name
            domains = [str(domain).removesuffix(".") for domain in known]
        searched = [f"{hostname}.{domain}." for domain in domains if domain]
        searched = [name for name in searched if len(name) <= _MAX_NAME]
        ndots = 1 if resolver.ndots is None else resolver.ndots
        dotted = hostname.count(".") >= ndots
        names = [absolute, *searched] if dotted else [*searched, absolute]
        if hint in names:
            names.remove(hint)
            names.insert(0, hint)
        return names

    def _ask_both(
        self, resolver: dns.resolver.Resolver, name: str, seconds: float
    ) -> list[_Outcome]:
        """Ask for both families at once. One without records cancels nothing of the other."""
        end = self._monotonic() + seconds + 0.5  # dnspython overshoots its lifetime a little
        futures: list[Future[_Outcome]] = [
            self._workers.call(lambda kind=kind: self._ask(resolver, name, kind, seconds))  # type: ignore[misc]
            for kind in _FAMILIES
        ]
        done, pending = wait(futures, seconds + 0.5, FIRST_COMPLETED)
        if pending:
            left = max(0.0, end - self._monotonic())
            first = [future.result() for future in done]
            # "No such name" should hold for both families, but servers are about that say so of
            # AAAA where they mean "no data" (RFC 4074, 4.2): a moment for the other one then.
            settled = any(o.addresses or o.cause is Cause.NXDOMAIN for o in first)
            wait(pending, min(_SECOND_FAMILY, left) if settled else left)
        outcomes = []
        for kind, future in zip(_FAMILIES, futures, strict=True):
            if future.done():
                outcomes.append(future.result())
            else:
                tried = (Attempt(f"dns {kind} {name}", "not waited for"),)
                outcomes.append(_Outcome(cause=Cause.TIMEOUT, tried=tried))
        return outcomes

    def _ask(
        self, resolver: dns.resolver.Resolver, name: str, kind: str, seconds: float
    ) -> _Outcome:
        import dns.exception
        import dns.rdatatype
        import dns.resolver

        started = self._monotonic()
        question = f"{kind} {name}"
        errors: list[Any] = []
        try:
            answer = resolver.resolve(name, kind, lifetime=seconds, search=False)
            addresses = tuple(record.address for record in answer)
            self._prefer(resolver, answer.nameserver, answer.port)
            ttl = float(answer.chaining_result.minimum_ttl)
            return _Outcome(addresses, ttl, seconds=self._monotonic() - started)
        except dns.resolver.NXDOMAIN:
            cause = Cause.NXDOMAIN
        except dns.resolver.NoAnswer as error:
            # Records of the type that was asked for, but of a name that was not, are no "no".
            found = error.kwargs["response"].answer
            foreign = any(dns.rdatatype.to_text(rrset.rdtype) == kind for rrset in found)
            cause = Cause.MALFORMED if foreign else Cause.NODATA
        except (dns.resolver.NoNameservers, dns.exception.Timeout) as error:
            errors = list(error.kwargs.get("errors") or [])
            timed_out = isinstance(error, dns.exception.Timeout)
            cause = _cause_of(errors, timed_out=timed_out)
        except OSError as error:
            cause, errors = Cause.NETWORK, [("", False, 0, error, None)]
        except Exception as error:  # names that do not fit, chains that are too long, what else
            cause, errors = Cause.MALFORMED, [("", False, 0, error, None)]
        took = self._monotonic() - started
        tried = [
            Attempt(f"dns {server} {question}".replace("  ", " "), why)
            for server, why in _told(errors)
        ]
        told = (*tried, Attempt(f"dns {question}", cause.value, took))
        return _Outcome(cause=cause, tried=told, seconds=took)

    @staticmethod
    def _prefer(resolver: dns.resolver.Resolver, address: str | None, port: int | None) -> None:
        """Ask the nameserver first that answered last: a dead one costs its time once only."""
        servers = list(resolver.nameservers)
        for index, server in enumerate(servers):
            if _place(resolver, server) == (address, port):
                if index:
                    servers.insert(0, servers.pop(index))
                    resolver.nameservers = servers
                return


def _place(resolver: dns.resolver.Resolver, server: Any) -> tuple[str, int]:
    """Address and port of a nameserver, as dnspython keeps it."""
    if isinstance(server, str):
        return server, resolver.port
    return server.answer_nameserver(), server.answer_port()


_SENTENCES = {
    Cause.NXDOMAIN: "DNS says that there is no such name",
    Cause.NODATA: "DNS says that the name has no address",
    Cause.SERVFAIL: "the nameserver could not answer (SERVFAIL)",
    Cause.REFUSED: "the nameserver refused to answer (REFUSED)",
    Cause.TIMEOUT: "no nameserver answered in time",
    Cause.NETWORK: "no nameserver can be reached",
    Cause.MALFORMED: "the nameserver's answer could not be understood",
    Cause.CONFIG: "no usable nameserver is configured",
}


def _name_cause(causes: list[Cause]) -> Cause:
    """The cause for one absolute name from those of its two families (policy rule 10)."""
    if Cause.NXDOMAIN in causes:
        return Cause.NXDOMAIN
    unclear = [cause for cause in causes if not cause.says_no_such_name]
    return unclear[0] if unclear else Cause.NODATA


def _worst(causes: list[Cause]) -> Cause:
    """The cause for all names that were tried: what is not known outweighs a plain "no"."""
    unclear = [cause for cause in causes if not cause.says_no_such_name]
    if unclear:
        return unclear[0]
    return Cause.NODATA if Cause.NODATA in causes else Cause.NXDOMAIN


def _cause_of(errors: list[Any], *, timed_out: bool) -> Cause:
    """The cause behind a failed resolution from what each nameserver did."""
    import dns.exception
    import dns.rcode

    codes = {response.rcode() for *_, response in errors if response is not None}
    kinds = [error for _, _, _, error, *_ in errors]
    if dns.rcode.SERVFAIL in codes:
        return Cause.SERVFAIL
    if dns.rcode.REFUSED in codes:
        return Cause.REFUSED
    if kinds and all(isinstance(error, OSError) for error in kinds):
        return Cause.NETWORK
    if timed_out and (not kinds or any(isinstance(e, dns.exception.Timeout) for e in kinds)):
        return Cause.TIMEOUT
    return Cause.MALFORMED


def _told(errors: list[Any]) -> list[tuple[str, str]]:
    """Nameserver and outcome of each error that dnspython collected, each pair once."""
    told = []
    for server, _tcp, _port, error, *_ in errors:
        text = str(error) if isinstance(error, Exception) and str(error) else type(error).__name__
        if isinstance(error, str):
            text = error
        told.append((str(server), text[:200]))
    return list(dict.fromkeys(told))

"""Which nameservers are asked for which names, and what each of them says."""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from airflow_provider_hokusai_dns.resolver.config import split_nameserver
from airflow_provider_hokusai_dns.resolver.lookup import messages
from airflow_provider_hokusai_dns.resolver.lookup.exchange import Exchange
from airflow_provider_hokusai_dns.resolver.lookup.files import WatchedFile
from airflow_provider_hokusai_dns.resolver.lookup.nameserver_health import NameserverHealth
from airflow_provider_hokusai_dns.resolver.lookup.plan import Plan
from airflow_provider_hokusai_dns.resolver.lookup.questions import NameserverReply, Server
from airflow_provider_hokusai_dns.resolver.lookup.resolv_conf import ResolvConf, parse_resolv_conf
from airflow_provider_hokusai_dns.resolver.workers import Workers

_RESOLV_CONF = Path("/etc/resolv.conf")


class StubResolver:
    """Lookups over DNS, by asking nameservers that recurse (RFC 1034, section 5.3.1).

    :param nameservers: ``"address"`` or ``"address:port"``; empty takes those of ``resolv.conf``,
        which is read again when it changes.
    :param search: search domains; ``None`` takes those of ``resolv.conf`` together with its
        nameservers, and none beside nameservers that are given.
    :param port: where the nameservers of ``resolv.conf`` listen.
    """

    def __init__(
        self,
        nameservers: tuple[str, ...] = (),
        search: tuple[str, ...] | None = None,
        *,
        resolv_conf: Path = _RESOLV_CONF,
        port: int = 53,
    ) -> None:
        own = tuple(Server(*split_nameserver(server)) for server in nameservers)
        self._own = ResolvConf(own, search or ()) if own else None
        self._search = search
        self._file = WatchedFile(resolv_conf, partial(parse_resolv_conf, port=port))
        self._health = NameserverHealth()
        self._turns = itertools.count()

    def plan(
        self,
        hostname: str,
        timeout: float,
        *,
        hint: str | None = None,
        kinds: tuple[str, ...] = ("A", "AAAA"),
        only: Server | None = None,
    ) -> Plan:
        """The schedule of one lookup, which starts now.

        :param only: the one nameserver to ask, whatever is known of its health.
        """
        messages.prepare()
        conf = self._conf()
        if only is None:
            turn = next(self._turns) % len(conf.nameservers) if conf.rotate else 0
            servers, health = conf.nameservers[turn:] + conf.nameservers[:turn], self._health
        else:
            servers, health = (only,), NameserverHealth()
        return Plan(
            conf.candidates(hostname, hint),
            servers,
            health,
            time.monotonic(),
            timeout,
            kinds=tuple(kind for kind in kinds if not (conf.no_aaaa and kind == "AAAA")),
            hint=hint,
            conf=conf,
        )

    def ask_each(
        self, hostname: str, *, timeout: float, kinds: tuple[str, ...] = ("A", "AAAA")
    ) -> list[NameserverReply]:
        """Ask every nameserver separately, all at the same time, to find a faulty one.

        A lookup asks the next one only if the first fails; this costs one query per nameserver.

        :param timeout: seconds for everything.
        """
        workers = Workers("hokusai-dns-each")

        def ask(server: Server) -> list[NameserverReply]:
            plan = self.plan(hostname, timeout, kinds=kinds, only=server)
            with contextlib.closing(Exchange()) as exchange:
                exchange.pump((plan,), plan.end, lambda: plan.outcome is not None)
            return plan.replies(time.monotonic())

        answers = [workers.call(partial(ask, server)) for server in self._conf().nameservers]
        return [reply for answer in answers for reply in answer.result()]

    def _conf(self) -> ResolvConf:
        if self._own is not None:
            return self._own
        conf = self._file.value()
        return conf if self._search is None else replace(conf, search=self._search)

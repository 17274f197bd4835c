"""One check for all gates of a triggerer that have the same arguments.

A thousand gates with one key make one connection read, one lookup and one probe per interval.
Gates synchronize by themselves: a gate uses a check that is recent enough, joins one in progress,
or starts one, and then sleeps until that check is one interval old. Everything here runs on the
triggerer's event loop, so it needs no lock; only the check itself runs on a thread.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

from airflow_provider_hokusai_dns import runtime, supervisor
from airflow_provider_hokusai_dns.config import connections
from airflow_provider_hokusai_dns.config.errors import ConnectionMissingError
from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.gates.check import check_server, misconfigured
from airflow_provider_hokusai_dns.health.verdict import Verdict
from airflow_provider_hokusai_dns.resolver.clock import SystemClock
from airflow_provider_hokusai_dns.resolver.errors import PicklableError
from airflow_provider_hokusai_dns.resolver.workers import NoThreadError, Workers
from airflow_provider_hokusai_dns.store import variables

log = logging.getLogger(__name__)

#: Jitter on the interval, only downwards (policy rule 12): triggerers that were started together
#: must not check at the same moments.
_JITTER = 0.1
#: Gates that are woken before the loop's other triggers get their turn.
_AT_ONCE = 50
#: Seconds after which a connection that Airflow did not return counts as missing. On a busy
#: machine, Airflow's first answer to a triggerer took 26 s.
_READ_PATIENCE = 60.0
#: Keys whose last check is kept for later gates.
_MOST_KEYS = 256
#: Seconds until a check is tried again for which no thread could be started.
_THREAD_PAUSE = 5.0
#: Of our own: on the loop's, other triggers' name lookups would wait behind ours while DNS is
#: silent. Daemons, because a triggerer that stops does not wait for a check that no gate waits for.
_threads = Workers("hokusai-dns-check")
#: Goes on while the machine sleeps: a verdict from before is not recent.
_monotonic = SystemClock.monotonic


class CheckFailedError(PicklableError, RuntimeError):
    """A check ended with an exception instead of a verdict; that one is the cause.

    :param conn_id: the connection that was checked.
    :param kind: the name of the exception's class.
    """

    def __init__(self, conn_id: str, kind: str) -> None:
        super().__init__(f"The check of MLflow over connection {conn_id!r} failed with {kind}")
        self.conn_id = conn_id
        self.kind = kind


@dataclass(frozen=True, slots=True)
class ProbeKey:
    """What a gate checks. How it uses the result is not part of the key.

    Connections may differ in credentials: two connections to one server are two keys.
    """

    conn_id: str
    checks: tuple[str, ...]
    deadline: float

    @classmethod
    def of(cls, conn_id: str, checks: Iterable[str], deadline: float) -> ProbeKey:
        """The key; the order of the checks makes no difference."""
        return cls(conn_id, tuple(sorted(set(checks))), deadline)


@dataclass(frozen=True, slots=True, eq=False)
class TimedVerdict:
    """A verdict, and when it was reached.

    :param at: seconds on the monotonic clock, at the end of the check.
    :param share: of its interval, after which a gate that saw this checks again.
    """

    verdict: Verdict
    at: float
    share: float


class SharedProbe:
    """The checks for one key, shared by its gates.

    :param check: one check; it may be slow, but must not block the loop.
    """

    def __init__(
        self, key: ProbeKey, check: Callable[[ProbeKey], Awaitable[Verdict]] | None = None
    ) -> None:
        self._key = key
        self._check = check or _check
        self._last: TimedVerdict | None = None
        self._flight: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Future[TimedVerdict | Exception]] = []

    async def next(self, every: float, after: TimedVerdict | None = None) -> TimedVerdict:
        """Wait for the next verdict of a gate. A cancelled caller does not affect the others.

        :param every: the gate's interval, seconds. A verdict younger than it is good enough.
        :param after: the verdict that the gate saw last; it is not returned again.
        :raises CheckFailedError: the check did not end with a verdict.
        """
        if after is not None:
            await asyncio.sleep(after.at + every * after.share - _monotonic())
        last = self._last
        if last is not None and last is not after and _monotonic() - last.at < every:
            return last
        loop = asyncio.get_running_loop()
        if self._flight is None:
            # A task of its own, in an empty context: it outlives the gate that began it, and
            # its log lines go to the triggerer's log and not to that gate's.
            self._flight = loop.create_task(self._run(), context=Context())
        waiter: asyncio.Future[TimedVerdict | Exception] = loop.create_future()
        self._waiting.append(waiter)
        seen = await waiter
        if isinstance(seen, Exception):
            # An exception of one's own: a shared one would grow a traceback by each that raises it.
            raise CheckFailedError(self._key.conn_id, type(seen).__name__) from seen
        return seen

    async def _run(self) -> None:
        seen: TimedVerdict | Exception
        try:
            verdict = await self._check(self._key)
            # No secret hangs on this number.
            share = 1.0 - random.random() * _JITTER  # noqa: S311
            seen = self._last = TimedVerdict(verdict, _monotonic(), share)
        except asyncio.CancelledError:  # the loop ends, and with it all waiters
            for waiter in self._land():
                waiter.cancel()
            raise
        except Exception as error:
            seen = error
        for number, waiter in enumerate(self._land(), start=1):
            if not waiter.done():
                waiter.set_result(seen)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def _land(self) -> list[asyncio.Future[TimedVerdict | Exception]]:
        """End the flight and return its waiters. A later caller starts another flight."""
        self._flight = None
        waiting, self._waiting = self._waiting, []
        return waiting


_by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[ProbeKey, SharedProbe]]
_by_loop = WeakKeyDictionary()


def shared_probe(key: ProbeKey) -> SharedProbe:
    """The shared probe for a key on the running event loop; a triggerer has one loop."""
    loop = asyncio.get_running_loop()
    probes = _by_loop.get(loop)
    if probes is None:
        probes = _by_loop[loop] = {}
        if supervisor.in_triggerer():
            variables.use_triggerer_loop(loop)
            try:  # once per triggerer; no gate waits for it
                _threads.run(partial(runtime.warm_listed, partial(_read_on, loop)), beside=True)
            except NoThreadError as error:
                log.warning("The listed names are not looked up ahead of time: %s", error)
    probe = probes.pop(key, None) or SharedProbe(key)
    probes[key] = probe  # at the end: the last to be dropped
    if len(probes) > _MOST_KEYS:
        del probes[next(iter(probes))]
    return probe


async def _check(key: ProbeKey) -> Verdict:
    """Read the connection on the loop, as the triggerer requires; do the rest on a thread.

    It is read each time: a change or removal takes effect at the next check.
    """
    try:
        server = await _read(key.conn_id)
    except (LookupError, ValueError) as error:
        return misconfigured(key.conn_id, error).verdict
    work = partial(check_server, server, checks=key.checks, deadline=key.deadline)
    while True:
        try:
            return (await asyncio.wrap_future(_threads.call(work, beside=True))).verdict
        except NoThreadError as error:  # no word about MLflow: the gate waits on
            log.warning("Connection %r cannot be checked now: %s", key.conn_id, error)
            await asyncio.sleep(_THREAD_PAUSE)


#: Held here, because a loop holds its tasks weakly.
_overdue: set[asyncio.Task[MLflowServer]] = set()


async def _read(conn_id: str) -> MLflowServer:
    """Read a connection within a bounded time: all gates of this key wait for it.

    A late read is not cancelled: in Airflow 3.2 its answer would stay in the connection to the
    supervisor, and another trigger would read it.
    """
    reading = asyncio.create_task(connections.aload_server(conn_id))
    done, _ = await asyncio.wait({reading}, timeout=_READ_PATIENCE)
    if done:
        return reading.result()
    _overdue.add(reading)
    reading.add_done_callback(_overdue.discard)
    reading.add_done_callback(lambda task: task.cancelled() or task.exception())
    hint = f"It did not answer within {_READ_PATIENCE:.0f} s: check its API server and database."
    raise ConnectionMissingError(conn_id, hint)


def _read_on(loop: asyncio.AbstractEventLoop, conn_id: str) -> MLflowServer:
    """:func:`_read` for a thread beside the loop."""
    return asyncio.run_coroutine_threadsafe(_read(conn_id), loop).result(2 * _READ_PATIENCE)

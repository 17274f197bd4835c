"""The relay of a task: a thread with an event loop, from the block's beginning to its end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import getpass
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_hokusai_dns.client import auth, sigterm
from airflow_provider_hokusai_dns.client.orphaned_runs import has_earlier_try
from airflow_provider_hokusai_dns.client.relay.child_environment import (
    EXPERIMENT_ID,
    changed,
    child_variables,
)
from airflow_provider_hokusai_dns.client.relay.orphans import (
    delete_duplicates,
    end_orphans,
    end_run,
    has_ended,
)
from airflow_provider_hokusai_dns.client.relay.records import RelayLostDataError
from airflow_provider_hokusai_dns.client.relay.runs import Runs
from airflow_provider_hokusai_dns.client.run_end import FAILED, FINISHED, KILLED, must_end_now
from airflow_provider_hokusai_dns.client.run_end import status_of as plain_status_of
from airflow_provider_hokusai_dns.config import overrides
from airflow_provider_hokusai_dns.resolver import forks

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.client.relay.upstream import AddressesNow
    from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer

_log = logging.getLogger(__name__)
T = TypeVar("T")

#: For the listener to start, seconds.
_START = 30.0
#: For ending runs after a block that was left because the task's time is over, seconds.
_SHORT = sigterm.SECONDS


class Relay:
    """An open relay; created by :meth:`.MLflowHook.relay`.

    :param uri: the tracking URI for the processes of this task, on 127.0.0.1.
    """

    def __init__(
        self,
        server: MLflowServer,
        addresses: AddressesNow,
        *,
        keep: int = 2**30,
        run_tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
        experiment_id: str | None = None,
        end_timeout: float | None = None,
        renew: Callable[[], Credentials | None] = lambda: None,
    ) -> None:
        """Start the relay; :meth:`.MLflowHook.relay` says what the rest is for.

        :param addresses: returns the addresses of the server to try now; called on a thread.
        :param keep: bytes of the temporary files in which bodies are kept until they have arrived,
            all together.
        :param run_tags: set on every run that a client starts.
        :param run_id: the open run that clients join.
        :param experiment_id: the experiment of that run.
        :param renew: reads the login of the connection again, after a 401; called on a thread.
        """
        self._server = server
        self._run_tags = dict(run_tags or {})
        self._run_id = run_id
        self._experiment_id = experiment_id
        self._end_timeout = end_timeout
        #: Clients authenticate to this relay with it; it is valid nowhere else.
        self.token = secrets.token_urlsafe(32)
        self._pid = os.getpid()
        self._stopped = False
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="hokusai-dns-relay", daemon=True
        )
        self._thread.start()
        try:
            self._run(self._open(addresses, keep, renew), _START)
        except BaseException:
            self._end_thread()
            raise
        self.uri = self._listener.uri
        _open_relays.append(self)

    def __repr__(self) -> str:
        return f"<Relay {self.uri} to {self._server.uri}>"

    def variables(self, base: Mapping[str, str] | None = None) -> dict[str, str | None]:
        """The changes that :meth:`environment` makes; ``None`` removes a variable.

        :param base: the environment to change; that of this process by default.
        """
        prefix = self._server.registry_prefix
        base = os.environ if base is None else base
        changes = child_variables(
            base,
            uri=self.uri,
            token=self.token,
            user=_user(),
            deadline=self._server.deadline,
            registry_uri=self._server.registry_uri if prefix is None else self.uri + prefix,
            run_id=self._run_id,
            experiment_id=self._experiment_id,
            workspace=self._server.workspace,
        )
        if self._experiment_id is None:
            # An open run on another server has set its own, which does not exist on this one.
            by_author = overrides.original_value(EXPERIMENT_ID, but=self._server.conn_id)
            if base.get(EXPERIMENT_ID) == os.environ.get(EXPERIMENT_ID) != by_author:
                changes[EXPERIMENT_ID] = by_author
        return changes

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment for a child process, so that its MLflow client uses this relay.

        The login and the TLS settings of MLflow are not in it, nor is the Airflow connection.

        :param base: the environment to start from; that of this process by default.
        """
        base = os.environ if base is None else base
        connection = f"AIRFLOW_CONN_{self._server.conn_id.upper()}"
        return changed(base, {**self.variables(base), connection: None})

    def close(self, error: BaseException | None, status: str) -> None:
        """End what is open, wait for what is under way, and say what was lost.

        It waits up to the connection's ``deadline``, counted while nothing gets through; after an
        error up to ``deadline`` or ``end_timeout`` in all, and :data:`.sigterm.SECONDS` where the
        task's time is over.

        :param error: the exception that left the block. The caller re-raises it, so nothing is
            raised then.
        :param status: of the block. Runs that clients have left RUNNING are ended as FAILED where
            it is FINISHED: a client that ends its runs has done so by now, as MLflow's own API does
            it at its exit.
        :raises RelayLostDataError: something did not arrive, and the block had ended well.
        """
        if os.getpid() != self._pid:
            return  # a forked child leaves the block of its parent
        out_of_time = self._stopped or (error is not None and must_end_now(error, status))
        status = FAILED if status == FINISHED else status
        seconds = self._server.deadline
        if error is not None and self._end_timeout is not None:
            seconds = min(seconds, self._end_timeout)
        try:
            try:
                if out_of_time:
                    self._finish_at_once(status)
                else:
                    only_while_stuck = error is None
                    limit = None if only_while_stuck else seconds + 2 * _SHORT
                    self._run(
                        self._finish(status, seconds, only_while_stuck=only_while_stuck), limit
                    )
            except Exception:
                _log.exception("The relay did not end cleanly")
            except BaseException as over:  # the task's time is over meanwhile
                self._finish_at_once(status)
                self._chain_losses(over)
                raise
            if error is not None:
                self._chain_losses(error)
            lost = tuple(self._forwarder.lost.values())
        finally:
            self._end_thread()
        if lost and error is None:
            raise RelayLostDataError(self._server.conn_id, lost)

    def _chain_losses(self, error: BaseException) -> None:
        """Say what was lost in the log, and in the context of what comes out instead."""
        gave_up = self._forwarder.gave_up
        if calls := tuple(self._forwarder.lost.values()) or ((gave_up,) if gave_up else ()):
            behind = RelayLostDataError(self._server.conn_id, calls)
            _log.error("%s", behind)
            _append_to_context(error, behind)

    def stop(self, seconds: float) -> None:
        """End the runs of the clients now, as KILLED, because the task is being stopped."""
        self._stopped = True
        with suppress(concurrent.futures.TimeoutError):
            self._run(self._end_runs_and_begins(KILLED, seconds), seconds)

    def _run(self, work: Coroutine[Any, Any, T], seconds: float | None) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    async def _open(
        self, addresses: AddressesNow, keep: int, renew: Callable[[], Credentials | None]
    ) -> None:
        from airflow_provider_hokusai_dns.client.relay.bodies import Budget
        from airflow_provider_hokusai_dns.client.relay.forwarding import Forwarder
        from airflow_provider_hokusai_dns.client.relay.listener import Listener
        from airflow_provider_hokusai_dns.client.relay.upstream import Upstream

        self._upstream = Upstream(self._server, addresses)
        runs = Runs(self._run_id)
        self._forwarder = Forwarder(self._server, self._upstream, runs, self._run_tags, renew)
        self._listener = Listener(self._server, self._forwarder, self.token, Budget(keep))
        await self._listener.start()
        self._cleaning: asyncio.Task[None] | None = None
        if has_earlier_try(self._run_tags):
            ask = partial(self._forwarder.ask, deadline=self._server.deadline)
            self._cleaning = asyncio.create_task(end_orphans(ask, self._run_tags, runs))

    async def _finish(self, status: str, seconds: float, *, only_while_stuck: bool) -> None:
        """Deliver what is under way, then end the runs: a client may do that itself until then.

        :param only_while_stuck: count only the seconds in which nothing gets through.
        """
        end = seconds + await self._listener.drain(seconds, only_while_stuck=only_while_stuck)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, end - time.monotonic()) + _SHORT):
                await self._end_runs(status, max(_SHORT, end - time.monotonic()))
                for create, base, workspace in self._forwarder.possible_duplicates:
                    left = max(0.0, end - time.monotonic())
                    ask = partial(self._forwarder.ask, deadline=left, workspace=workspace)
                    await delete_duplicates(ask, create, base, self._forwarder.kept)
                if self._cleaning is not None:
                    await asyncio.wait({self._cleaning}, timeout=max(0.0, end - time.monotonic()))
        await self._close_all()

    def _finish_at_once(self, status: str) -> None:
        """Deliver and end the runs at the same time, in the seconds that a stopped task has."""

        async def finish() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SHORT):
                    await asyncio.gather(
                        self._end_runs_and_begins(status, _SHORT), self._listener.drain(_SHORT)
                    )
            await self._close_all()

        with suppress(Exception):
            self._run(finish(), _SHORT + 1.0)

    async def _close_all(self) -> None:
        """What is still under way is cancelled, and counts as lost."""
        if self._cleaning is not None:
            self._cleaning.cancel()
        await self._listener.close()
        await self._upstream.close()
        # asyncio keeps a closed connection open for what its peer has not read: for good, as the
        # loop ends.
        for transport in [*self._listener.transports, *self._upstream.transports]:
            transport.abort()
        await asyncio.sleep(0)  # in which the loop closes the sockets
        for run_id in self._forwarder.runs.open:
            _log.error("Run %s is still RUNNING: the next try of the task ends it.", run_id)

    async def _end_runs_and_begins(self, status: str, seconds: float) -> None:
        """End the runs, and then those that MLflow is still being asked to begin."""
        end = time.monotonic() + seconds
        await self._end_runs(status, seconds)
        while begins := self._listener.under_way("/runs/create"):
            left = end - time.monotonic()
            await asyncio.wait(begins, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if (left := end - time.monotonic()) <= 0:
                return
            await self._end_runs(status, left)

    async def _end_runs(self, status: str, seconds: float) -> None:
        """End the runs that clients have begun and not ended, all at the same time."""
        status = KILLED if self._stopped else status
        runs = list(self._forwarder.runs.open.items())
        await asyncio.gather(*(self._end_run(*run, status, seconds) for run in runs))

    async def _end_run(self, run_id: str, workspace: str, status: str, seconds: float) -> None:
        """End a run, unless it has ended without this relay: by the task itself, for example."""
        asks = partial(self._forwarder.ask, workspace=workspace)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds / 2):  # the rest is for the end itself
                if await has_ended(partial(asks, deadline=seconds / 2), run_id):
                    self._forwarder.runs.deleted(run_id)
                    return
        ask = partial(asks, deadline=seconds, counts=True)
        if (await end_run(ask, run_id, status)).status == 200:
            self._forwarder.runs.deleted(run_id)
            _log.warning(
                "Run %s was left RUNNING by the process that began it: ended as %s.", run_id, status
            )

    def _end_thread(self) -> None:
        async def cancel_all() -> None:
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        with suppress(Exception):
            self._run(cancel_all(), 5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        if not self._thread.is_alive():
            self._loop.close()
        if self in _open_relays:
            _open_relays.remove(self)

    @property
    def gave_up(self) -> bool:
        """Whether a call was given up, to read or to write."""
        return self._forwarder.gave_up is not None


def _user() -> str:
    """The user of the runs of children: that of this process, as for a run of the hook."""
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):  # a container whose user has no name
        return "relay"


_open_relays: list[Relay] = []


def any_relay_gave_up() -> bool:
    """Whether MLflow was unavailable for longer than an open relay of this process waits."""
    return any(relay.gave_up for relay in _open_relays)


def _append_to_context(error: BaseException, behind: BaseException) -> None:
    """Make one exception the last in the context of another: how a child ended, and why."""
    seen = {id(error)}
    while error.__context__ is not None and id(error.__context__) not in seen:
        error = error.__context__
        seen.add(id(error))
    if error.__context__ is None:
        error.__context__ = behind


@contextmanager
def open_relay(
    server: MLflowServer,
    addresses: AddressesNow,
    *,
    export: bool = False,
    status_of: Callable[[BaseException], str] = plain_status_of,
    **options: Any,
) -> Iterator[Relay]:
    """Open a relay while the block runs; parameters as of :class:`Relay`.

    :param export: also set the variables in the environment of this process.
    :param status_of: gives the status of a run whose block was left by an exception.
    """
    relay = Relay(server, addresses, **options)
    with sigterm.on_sigterm(relay.stop):
        try:
            with _exported(server.conn_id, relay.variables()) if export else nullcontext():
                yield relay
        except BaseException as error:
            relay.close(error, status_of(error))
            raise
        relay.close(None, FINISHED)


@contextmanager
def _exported(conn_id: str, variables: Mapping[str, str | None]) -> Iterator[None]:
    """Change the environment of this process, and restore what no other code has changed."""
    # Our plugin stays: without it, clients that are signed in would send the relay's token to
    # MLflow. In a child it leaves the login of the environment as it is.
    if os.environ.get(auth.VARIABLE) == auth.PROVIDER:
        variables = {name: value for name, value in variables.items() if name != auth.VARIABLE}
    changes = overrides.begin(conn_id, variables, exported=True)
    try:
        yield
    finally:
        overrides.end(changes, keep_others=True)


@forks.in_child
def _after_fork_in_child() -> None:
    for relay in _open_relays:
        # The child must not hold the port open when the parent has closed it.
        with suppress(OSError):
            os.close(relay._listener.socket.detach())
    _open_relays.clear()

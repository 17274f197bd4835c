"""The hook: an MLflow client and runs that keep working while DNS fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_hokusai_dns import pins, runtime
from airflow_provider_hokusai_dns.config import connections, settings
from airflow_provider_hokusai_dns.config.errors import SettingError, as_sentence
from airflow_provider_hokusai_dns.config.fields import check_seconds, described
from airflow_provider_hokusai_dns.gates import check, decision
from airflow_provider_hokusai_dns.hooks import running_task
from airflow_provider_hokusai_dns.hooks.errors import (
    MLflowRefusedError,
    MLflowRestError,
    MLflowUnreachableError,
)
from airflow_provider_hokusai_dns.resolver.errors import DNSResolutionError
from airflow_provider_hokusai_dns.resolver.level import Level
from airflow_provider_hokusai_dns.resolver.target import quoted

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver
    from mlflow import ActiveRun, MlflowClient

    from airflow_provider_hokusai_dns.client.relay import Relay
    from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer
    from airflow_provider_hokusai_dns.health.breaker import Call
    from airflow_provider_hokusai_dns.health.verdict import Verdict
    from airflow_provider_hokusai_dns.resolver import DNSResolver, Resolution
    from airflow_provider_hokusai_dns.resolver.pin import Pin


#: States of a server that answers and accepts no run; a run that fails for one names it.
_REFUSALS = (
    "tls_error",
    "host_rejected",
    "unauthenticated",
    "forbidden",
    "workspace_missing",
    "not_mlflow",
)


class MLflowHook(BaseHook):
    """Reach the MLflow server of a connection.

    The hostname stays in every URI, so that TLS, virtual hosts and MLflow's Host check keep
    working; only the resolution of that name in this process changes. No secret gets into the
    environment, a URI or a log.

    :param mlflow_conn_id: a connection of type ``mlflow`` (or ``http``). If ``mlflow_default`` does
        not exist, ``MLFLOW_TRACKING_URI`` is used.
    """

    conn_name_attr = "mlflow_conn_id"
    default_conn_name = settings.DEFAULT_CONN_ID
    conn_type = "mlflow"
    hook_name = "MLflow"

    def __init__(self, mlflow_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id
        self._server: MLflowServer | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A logger that was used cannot be pickled; another is made when it is needed.
        return {name: value for name, value in vars(self).items() if name != "_log"}

    # --- what the connection says

    @property  # functools.cached_property has a lock in Python 3.11, which a child inherits held
    def server(self) -> MLflowServer:
        """The connection, read and checked once per hook.

        :raises ConnectionMissingError: the connection does not exist.
        :raises SettingError: a field is wrong; the error names it.
        """
        if self._server is None:
            server = connections.load_server(self.mlflow_conn_id)
            runtime.mask_credentials(server)
            self._server = server
        return self._server

    @server.setter
    def server(self, server: MLflowServer) -> None:
        self._server = server

    @property
    def tracking_uri(self) -> str:
        """The tracking URI with the hostname in it, for links and logs.

        A client created from it has no login: use the one that :meth:`get_conn` returns.
        """
        return self.server.uri

    @property
    def resolved_tracking_uri(self) -> str:
        """The tracking URI with an address in it, for logs and for tools that need it.

        A server started with ``--allowed-hosts`` rejects it, and TLS verification fails. Behind an
        HTTP proxy it keeps the hostname, which only the proxy resolves.

        :raises DNSResolutionError: there is no address to serve.
        """
        return self._with_address(self.resolve())

    # --- DNS

    @property
    def resolver(self) -> DNSResolver:
        """The resolver of this process, with the name settings of this connection."""
        return runtime.resolver_for_server(self.server)

    def resolve(self, context: Any = None) -> Resolution:
        """The address to connect to, from the cache if the cached answer is fresh.

        This is the server's address, or that of the HTTP proxy that the environment sets for it.

        :param context: only for Airflow, which calls ``resolve(context)`` of each argument of a
            task that has such a method, and passes on what it returns: the hook itself.
        :raises DNSResolutionError: there is no address to serve.
        """
        if context is not None:
            return self  # type: ignore[return-value]
        return self.resolver.resolve(self.server.connect_uri)

    def refresh_dns_resolution(self) -> Resolution:
        """A live lookup that bypasses the cache; the answer is also stored as the last known good.

        :raises DNSResolutionError: there is no address to serve.
        """
        return self.resolver.refresh(self.server.connect_uri)

    def get_dns_info(self) -> dict[str, Any]:
        """What the name resolves to and why, and the state and metrics of this process's resolver.

        Behind an HTTP proxy everything except ``raw_uri`` describes the name of the proxy, as in a
        gate.
        """
        server = self.server
        info: dict[str, Any] = {"raw_uri": server.uri, "hostname": server.connect_host}
        info["proxy"] = None if server.proxy is None else server.proxy.uri
        try:
            found = self.resolve()
        except DNSResolutionError as error:
            info |= {"resolved_uri": None, "addresses": [], "source": None, "is_stale": False}
            info |= {"age": None, "cause": error.cause.value, "error": str(error)}
        else:
            cause = None if found.cause is None else found.cause.value
            info |= {"resolved_uri": self._with_address(found), "addresses": list(found.addresses)}
            info |= {"source": found.source.value, "is_stale": found.is_stale}
            info |= {"age": found.age(), "cause": cause, "error": None}
        info["state"] = self.resolver.state(server.connect_host).value
        info["metrics"] = self.resolver.metrics().as_dict()
        return info

    def _with_address(self, found: Resolution) -> str:
        return str(found) if self.server.proxy is None else self.server.uri

    # --- MLflow

    def get_conn(self) -> MlflowClient:
        """An MLflow client that works until this process ends.

        Use it for asynchronous logging only inside :meth:`run`, which waits for the data at its
        end. Outside a run, asynchronous logging and traces raise ``AsyncOutsideRunError``.

        :raises BreakerOpenError: MLflow was down a moment ago.
        """
        from airflow_provider_hokusai_dns.client import auth
        from airflow_provider_hokusai_dns.health.breaker import breaker_for

        if not _in_run(self.server):
            breaker_for(self.server).check()
        pins.pin(self.server)
        uri = auth.sign_in(self.server, self._login_now)

        from airflow_provider_hokusai_dns.client.outside_runs import OutsideRunsClient

        return OutsideRunsClient(
            tracking_uri=uri, registry_uri=auth.registry_uri(self.server) or uri
        )

    @contextmanager
    def fluent(self) -> Iterator[None]:
        """Use MLflow's fluent API on this server without a run, inside a ``with`` block.

        For ``mlflow.search_runs()``, ``mlflow.pyfunc.load_model("models:/churn@live")`` and the
        like. To write, use :meth:`run`, which makes sure that the data arrives, traces included:
        MLflow sends them in the background, and this block does not wait for that. A run that this
        thread starts in the block ends with it, and ``mlflow.set_experiment`` is undone.

        :raises AsyncOutsideRunError: for asynchronous logging in the block.
        :raises EnvironmentConflictError: while a run on another server is open.
        """
        import mlflow

        from airflow_provider_hokusai_dns.client import auth, fluent_state
        from airflow_provider_hokusai_dns.client.delivery_hooks import async_refused_outside_runs
        from airflow_provider_hokusai_dns.client.mlflow_private import active_runs

        client, status = self.get_conn(), "FINISHED"
        registry_uri = auth.registry_uri(self.server)
        with (
            fluent_state.fluent_uri(self.server.conn_id, client.tracking_uri, registry_uri),
            fluent_state.experiment_kept(),
            async_refused_outside_runs(),
        ):
            outer = len(active_runs() or ())
            try:
                yield
            except BaseException as error:
                status = running_task.status_of(error)
                raise
            finally:  # MLflow begins a run for what is logged without one
                while len(active_runs() or ()) > outer:
                    mlflow.end_run(status)

    def _refusal(self, error: Exception) -> MLflowRefusedError | None:
        """The error for a server that refused a run; ``None`` if its state is no refusal."""
        from mlflow.exceptions import MlflowException
        from requests.exceptions import SSLError

        from airflow_provider_hokusai_dns.client.breaker_errors import says_down

        is_tls = isinstance(error.__context__, SSLError)
        if not isinstance(error, MlflowException) or (says_down(error) and not is_tls):
            return None
        verdict = self.check()
        refuses = verdict.state.value in _REFUSALS
        return MLflowRefusedError(verdict.sentence, verdict.state.value) if refuses else None

    def _login_now(self) -> Credentials | None:
        """The login, read from the connection again: a token may have been replaced.

        It is read after a 401, which says more than why the connection cannot be read now.
        """
        try:
            server = connections.load_server(self.mlflow_conn_id)
        except Exception as error:
            self.log.warning(
                "The login could not be read again after a 401: %s", quoted(error, 500)
            )
            return None
        runtime.mask_credentials(server)
        if server.uri != self.server.uri:
            self.log.warning(
                "The login was not read again after a 401: %s is %s now", server.named, server.uri
            )
            return None
        self._server = replace(self.server, credentials=server.credentials)
        return server.credentials

    @contextmanager
    def run(
        self,
        experiment_name: str | None = None,
        run_name: str | None = None,
        *,
        run_id: str | None = None,
        end: bool = True,
        tags: Mapping[str, str] | None = None,
        nested: bool = False,
    ) -> Iterator[ActiveRun]:
        """Open a run, with MLflow's fluent API (``mlflow.log_metric`` ...) set to this server.

        The run ends FINISHED, FAILED if the block raises (the exception is not changed), or KILLED
        if the task is stopped. A run that a killed worker left RUNNING is ended by the next try.

        Inside the block, calls wait for an unavailable MLflow for up to the ``deadline`` of the
        connection. Each call before that, to start the run, takes at most ``request_timeout``.

        :param experiment_name: created if it does not exist; the connection's by default.
        :param run_id: resume this run, so that several tasks share one.
        :param end: ``False`` leaves the run open for the next task if the block succeeds.
        :param tags: further tags; in a task, DAG, task, map index, DAG run and try are set. In a
            callback they are not: Airflow has no current task there.
        :param nested: make the run a child of the open run.
        :raises ValueError: a name, the id or a tag is not a string.
        :raises BreakerOpenError: MLflow was down a moment ago.
        :raises DNSResolutionError: there is no address for the name.
        :raises MLflowUnreachableError: nothing accepts a connection.
        :raises MLflowRefusedError: wrong login, permission, Host check, certificate, path or
            workspace; MLflow's own error is its cause.
        :raises EnvironmentConflictError: another run of this process is on another server.
        :raises RunEndError: at the end, if the server could not be reached.
        :raises LostDataError: at the end, if something logged asynchronously did not arrive.
        """
        from airflow_provider_hokusai_dns.client import auth
        from airflow_provider_hokusai_dns.client.breaker_errors import says_down
        from airflow_provider_hokusai_dns.client.run import open_run
        from airflow_provider_hokusai_dns.links.mlflow_run import run_url

        _check_texts(tags, experiment_name=experiment_name, run_name=run_name, run_id=run_id)
        server = self.server
        with ExitStack() as stack:
            with _through_breaker(server) as call:
                try:
                    held = _pinned_and_reachable(server)
                    active = stack.enter_context(
                        open_run(
                            server,
                            auth.sign_in(server, self._login_now),
                            experiment_name=experiment_name,
                            run_name=run_name,
                            run_id=run_id,
                            end=end,
                            nested=nested,
                            tags={**running_task.tags(), **(tags or {})},
                            status_of=running_task.status_of,
                            pins=held,
                        )
                    )
                except Exception as error:
                    if says_down(error):
                        call.failure(quoted(error, 500))
                    if (refused := self._refusal(error)) is not None:
                        raise refused from error
                    raise
                call.success()
            url = run_url(server.uri, active.info.experiment_id, active.info.run_id)
            self.log.info("MLflow run %r: %s", active.info.run_name, url)
            if not nested:
                running_task.link_to_run(url)
            yield active

    @contextmanager
    def relay(self, *, export: bool = False, end_timeout: float | None = None) -> Iterator[Relay]:
        """Open a relay on loopback, through which every process of this task reaches MLflow.

        Children do not need this package, and get no credentials::

            with MLflowHook().relay() as relay:
                subprocess.run(["torchrun", "train.py"], env=relay.environment(), check=True)

        The relay waits while MLflow is unavailable, for up to the ``deadline`` of the connection.
        At the end of the block it ends the runs that children left RUNNING: FAILED, or KILLED if
        the task is stopped.
        Inside :meth:`run`, ``mlflow.start_run()`` in a child joins the open run.

        :param export: also set the variables in this process's environment, for children that
            inherit it (``multiprocessing``, ``joblib``). Not inside :meth:`run`, which sets the
            same variables.
        :param end_timeout: seconds for ending runs after the block has raised; by default the
            ``deadline`` of the connection.
        :raises ValueError: ``export`` inside :meth:`run`, or a wrong ``end_timeout``.
        :raises TLSFileError: a TLS file of the connection cannot be used.
        :raises LostDataError: at the end, if something did not arrive although a child continued.
        """
        from airflow_provider_hokusai_dns.client.relay import open_relay

        if end_timeout is not None:
            check_seconds("end_timeout", end_timeout, may_be_zero=True)
        server, joined = self.server, {}
        if (active := _open_run_of(server)) is not None:
            if export:
                raise ValueError(
                    "relay(export=True) cannot be used inside hook.run(): the variables of the run "
                    "would be overwritten. Give children relay.environment(), or open the relay "
                    "without a run"
                )
            joined = {"run_id": active.info.run_id, "experiment_id": active.info.experiment_id}
        with open_relay(
            server,
            pins.relay_addresses(server, self.resolver),
            keep=settings.relay_keep(),
            export=export,
            end_timeout=end_timeout,
            run_tags=running_task.tags(),
            status_of=running_task.status_of,
            renew=self._login_now,
            **joined,
        ) as opened:
            runtime.mask(opened.token)
            yield opened

    def rest(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Call MLflow's REST API without importing MLflow.

        A call that failed is sent again, within the ``request_timeout`` and ``max_retries`` of the
        connection, unless it may then be carried out twice.

        :param method: the HTTP method.
        :param path: for example ``/api/2.0/mlflow/experiments/search``.
        :param params: the query.
        :param json: the body.
        :raises MLflowRestError: with the status, MLflow's error code and its message.
        :raises ValueError: an argument is wrong, or ``json`` contains NaN or an infinite number.
        :raises BreakerOpenError: MLflow was down a moment ago.
        """
        from airflow_provider_hokusai_dns.hooks import rest

        with _through_breaker(self.server) as call:
            pins.pin(self.server)
            try:
                answer = rest.call(
                    self.server, method, path, params=params, json=json, renew=self._login_now
                )
            except MLflowRestError as error:
                if error.says_down:
                    call.failure(error.reason)
                else:
                    call.success()
                raise
            call.success()
            return answer

    def aiohttp_resolver(self) -> AbstractResolver:
        """A resolver for asyncio code that sends its own requests to MLflow.

        For ``aiohttp.TCPConnector(resolver=hook.aiohttp_resolver(), use_dns_cache=False)``.
        """
        from airflow_provider_hokusai_dns.client.aio import aiohttp_resolver

        pins.pin(self.server)
        return aiohttp_resolver()

    # --- health

    def check(self, checks: Sequence[str] = decision.DEFAULT_CHECKS) -> Verdict:
        """One live lookup and one probe, as in a gate. Takes at most about 10 s.

        Every problem of the connection or the server is reported in the verdict.

        :raises ValueError: ``checks`` is not a list, or contains an unknown check.
        """
        checks, _ = decision.check_arguments("degraded", checks, ())
        return check.check_connection(self.mlflow_conn_id, checks=checks, written_by="hook").verdict

    def validate_connection(self) -> bool:
        """Whether MLflow can be used now; the reason goes to the log."""
        verdict = self.check()
        self.log.log(decision.log_level(verdict), "%s", decision.in_one_line(verdict))
        return verdict.level is not Level.UNHEALTHY

    def get_mlflow_status(self) -> dict[str, Any]:
        """The state of MLflow, with the keys of the former system. Probes once; never raises."""
        return check.former_status(self.mlflow_conn_id)

    def test_connection(self) -> tuple[bool, str]:
        """The Test button: whether MLflow can be used, and one sentence that says why.

        Airflow stores the form under a generated id, which no sentence mentions.
        """
        try:
            server = replace(connections.load_server(self.mlflow_conn_id), conn_id="")
            verdict = check.check_server(server, private=runtime.private_resolver(server)).verdict
        except SettingError as error:
            mine = error.where == f"connection {self.mlflow_conn_id!r}"
            where = "this connection" if mine else error.where
            return False, as_sentence(SettingError(where, error.field, error.reason))
        except (LookupError, ValueError) as error:
            return False, as_sentence(error)
        return verdict.level is not Level.UNHEALTHY, verdict.sentence


def _check_texts(tags: object, **texts: object) -> None:
    """Refuse what MLflow's client would refuse later, without naming the argument."""
    if not isinstance(tags, Mapping | None):
        raise ValueError(f"tags must be a dict, not {described(tags)}")
    for name, value in texts.items():
        if not isinstance(value, str | None):
            raise ValueError(f"{name} must be a string, not {described(value)}")
    for name, value in (tags or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ValueError(
                f"tags must map strings to strings, not {name!r} to {described(value)}"
            )


def _in_run(server: MLflowServer) -> bool:
    """Whether a run of this connection is open; imports nothing that only runs need."""
    adapters = sys.modules.get("airflow_provider_hokusai_dns.client.adapters")
    return adapters is not None and adapters.has_open_run(server.conn_id)


def _open_run_of(server: MLflowServer) -> ActiveRun | None:
    """The run that this thread has opened on this server with :meth:`.MLflowHook.run`."""
    mlflow = sys.modules.get("mlflow")
    if mlflow is None:  # then none is open, and importing it takes seconds
        return None
    from airflow_provider_hokusai_dns.client.auth import tagged_uri

    active: ActiveRun | None = mlflow.active_run()
    return active if mlflow.get_tracking_uri() == tagged_uri(server) else None


@contextmanager
def _through_breaker(server: MLflowServer) -> Iterator[Call]:
    """One call through the breaker, which guards the start of a run or call, never its inside."""
    from airflow_provider_hokusai_dns.health.breaker import Call, breaker_for
    from airflow_provider_hokusai_dns.observers import count_breaker

    if _in_run(server):
        yield Call()
        return
    with breaker_for(server, count_breaker).attempt() as call:
        yield call


def _pinned_and_reachable(server: MLflowServer) -> tuple[Pin, ...]:
    """Pin the hosts, and fail early if nothing answers, instead of waiting as long as a run may.

    It waits as long as a call outside a run, ``request_timeout``. After that the pin also returns
    addresses that refuse connections, so they are tried once more here. It does not test an address
    that accepted a connection within the last second, so a refusal starts one more wait.
    """
    from airflow_provider_hokusai_dns.resolver.pinned_port import NoConnectionError
    from airflow_provider_hokusai_dns.resolver.racing import race

    held = pins.pin(server)
    proxy = () if server.proxy is None else (f"the proxy {server.proxy.uri}",)
    for _ in range(2):
        try:
            addresses = held[0].addresses(server.connect_port, connects=True, must_be_tested=True)
        except NoConnectionError as error:
            raise MLflowUnreachableError(server.uri, proxy or error.addresses) from error
        if race(addresses, server.connect_port).winners:
            return held
        addresses.refused()
    raise MLflowUnreachableError(server.uri, proxy or tuple(addresses))

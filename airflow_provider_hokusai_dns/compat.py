"""The functions of the system that this package replaces, under their previous names.

Their results are unchanged. New code should use :class:`~.hooks.mlflow.MLflowHook` instead.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.config import connections, settings
from airflow_provider_hokusai_dns.gates import check
from airflow_provider_hokusai_dns.resolver import DNSResolver


def get_dns_resolver() -> DNSResolver:
    """The resolver of this process for names without a connection.

    :raises SettingError: a setting is wrong.
    """
    return runtime.resolver()


def get_dns_health() -> dict[str, Any]:
    """``status`` and ``error_rate`` of the last minutes, ``cache_size``, and all ``metrics``.

    It covers only this process; ``status`` is ``unknown`` until there have been ten lookups.
    """
    metrics = runtime.dns_metrics()
    return {
        "status": metrics.level.value,
        "error_rate": metrics.error_rate,
        "cache_size": metrics.cache_size,
        "metrics": metrics.as_dict(),
    }


def get_mlflow_status(mlflow_conn_id: str = settings.DEFAULT_CONN_ID) -> dict[str, Any]:
    """The state of MLflow: ``connected``, ``tracking_uri``, ``error``, ``response_time_ms``, ...

    Probes once, and never raises because of the result. It takes at most 10 s, plus the time that
    Airflow needs to return the connection and the stored address. It blocks: in a coroutine, call
    it with :func:`asyncio.to_thread`.
    """
    return check.former_status(mlflow_conn_id)


async def resolve_tracking_uri(tracking_uri: str | None = None) -> str:
    """A tracking URI with an address in place of the name.

    Do not pass it to an MLflow client: a server started with ``--allowed-hosts`` rejects an
    address, a proxy finds no virtual host for it, and no certificate is valid for it. It is for
    logs, and for tools that need an address. The client of :meth:`.MLflowHook.get_conn` needs no
    such URI.

    :param tracking_uri: by default that of ``mlflow_default``.
    :raises DNSResolutionError: there is no address to serve.
    :raises ValueError: the URI is invalid.
    """
    if tracking_uri is not None:
        return str(await runtime.resolver().aresolve(tracking_uri))
    server = await connections.aload_server()
    return str(await runtime.resolver_for_server(server).aresolve(server.uri))


def resolve_tracking_uri_sync(tracking_uri: str | None = None) -> str:
    """:func:`resolve_tracking_uri` for code that cannot await; the same warning applies.

    It works inside a running event loop too, but blocks it while the lookup runs: half a second if
    a stale address is known, at most ten seconds.

    :param tracking_uri: by default that of ``mlflow_default``.
    :raises DNSResolutionError: there is no address to serve.
    :raises ValueError: the URI is invalid.
    """
    if tracking_uri is not None:
        return str(runtime.resolver().resolve(tracking_uri))
    server = connections.load_server()
    return str(runtime.resolver_for_server(server).resolve(server.uri))

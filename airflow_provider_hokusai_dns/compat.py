"""The functions of the system that this package takes over from, under their known names.

They return what they returned. New code takes :class:`~.hooks.mlflow.MLflowHook` instead.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.config import connections, settings
from airflow_provider_hokusai_dns.gates import check
from airflow_provider_hokusai_dns.resolver import DNSResolver


def get_dns_resolver() -> DNSResolver:
    """The resolver of this process for names of no connection.

    :raises SettingError: a setting is wrong.
    """
    return runtime.resolver()


def get_dns_health() -> dict[str, Any]:
    """``status`` and ``error_rate`` of the last minutes, ``cache_size``, and all ``metrics``.

    It speaks of this process alone; ``status`` is ``unknown`` until there were ten lookups.
    """
    metrics = runtime.dns_metrics()
    return {
        "status": metrics.level.value,
        "error_rate": metrics.error_rate,
        "cache_size": metrics.cache_size,
        "metrics": metrics.as_dict(),
    }


def get_mlflow_status(mlflow_conn_id: str = settings.DEFAULT_CONN_ID) -> dict[str, Any]:
    """How MLflow is: ``connected``, ``tracking_uri``, ``error``, ``response_time_ms``, ...

    Probes once, and never raises for what it finds. It takes 10 s at most, beside what Airflow
    needs to give out the connection and the stored address. Blocks: in a coroutine, call it with
    :func:`asyncio.to_thread`.
    """
    return check.former_status(mlflow_conn_id)


async def resolve_tracking_uri(tracking_uri: str | None = None) -> str:
    """A tracking URI with an address in place of the name.

    Do not give it to an MLflow client: MLflow refuses an address once its server was started with
    ``--allowed-hosts``, a proxy finds no virtual host for it, and no certificate is valid for it.
    It is for logs, and for tools that want an address. The client of
    :meth:`.MLflowHook.get_conn` needs no such URI.

    :param tracking_uri: that of ``mlflow_default`` where none is given.
    :raises DNSResolutionError: there is nothing to serve.
    :raises ValueError: the URI can never be right.
    """
    if tracking_uri is not None:
        return str(await runtime.resolver().aresolve(tracking_uri))
    server = await connections.aload_server()
    return str(await runtime.resolver_for(server).aresolve(server.uri))


def resolve_tracking_uri_sync(tracking_uri: str | None = None) -> str:
    """:func:`resolve_tracking_uri` for code that cannot wait; the same warning holds.

    It works inside a running event loop too, which it then blocks for as long as the lookup takes:
    half a second where an older address is known, ten at the most.

    :param tracking_uri: that of ``mlflow_default`` where none is given.
    :raises DNSResolutionError: there is nothing to serve.
    :raises ValueError: the URI can never be right.
    """
    if tracking_uri is not None:
        return str(runtime.resolver().resolve(tracking_uri))
    server = connections.load_server()
    return str(runtime.resolver_for(server).resolve(server.uri))

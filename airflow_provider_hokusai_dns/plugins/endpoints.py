"""The endpoints. They do not check permissions: the application adds dependencies that do."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Response
from fastapi.responses import HTMLResponse

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.plugins import options, prometheus
from airflow_provider_hokusai_dns.plugins.guide import guide_page
from airflow_provider_hokusai_dns.plugins.history_cache import HistoryCache
from airflow_provider_hokusai_dns.plugins.reference import HEADERS, render_reference
from airflow_provider_hokusai_dns.plugins.schemas import Days, Health, Words

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from airflow_provider_hokusai_dns.plugins.health_cache import HealthCache

_REFUSED: dict[int | str, dict[str, Any]] = {
    401: {"description": "No user is signed in."},
    403: {"description": "The signed-in user may not view plugins."},
}
_Fresh = Annotated[
    bool, Query(description="Ask again where the last answer is older than 2 s: something changed.")
]
#: Anonymous and signed-in callers alike: a browser takes an answer for what it says it is.
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class Headers:
    """Sets our headers on every answer that does not set them itself, including errors.

    It also answers HEAD as GET without the body (RFC 9110, 9.3.2), which FastAPI does not.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"

        async def marked(message: Message) -> None:
            if is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                more = [(name, value) for name, value in _HEADERS if name not in given]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self._app({**scope, "method": "GET"} if is_head else scope, receive, marked)


def add_endpoints(app: FastAPI, cache: HealthCache, viewers: Sequence[Any]) -> None:
    """Add the endpoints.

    :param viewers: the dependencies that admit users who may view plugins.
    """
    histories = HistoryCache()
    since = datetime.now(UTC)
    tell_viewers: dict[str, Any] = {"dependencies": viewers, "responses": _REFUSED}
    is_open = options.metrics_for_anyone()

    @app.get("/health", tags=["for everyone"])
    def health() -> Words:
        """Words as last known: 200 as long as this process serves. Starts no probe."""
        return Words.model_validate(cache.words())

    @app.get(
        "/ready",
        tags=["for everyone"],
        responses={503: {"model": Words, "description": "A listed connection cannot be used."}},
    )
    def ready(response: Response) -> Words:
        """200 while every listed connection can be used at `degraded` or better, else 503.

        **Never put this behind the load balancer of Airflow's API server: it would take Airflow
        down together with MLflow.** It is for what depends on MLflow.
        """
        usable, words = cache.ready()
        if not usable:
            response.status_code = 503
        return Words.model_validate(words)

    @app.get("/health/mlflow", tags=["for users who may view plugins"], **tell_viewers)
    def health_of_mlflow(
        conn_id: Annotated[
            list[str] | None, Query(description="Only these of the listed connections.")
        ] = None,
        fresh: _Fresh = False,
    ) -> Health:
        """Each listed connection: state, cause, what to do, addresses, ages, the whole verdict."""
        listed, problem = cache.listed()
        if conn_id is not None and not set(conn_id) <= set(listed):
            # Without the id: an answer does not repeat what a caller made up.
            raise HTTPException(404, "[hokusai_dns] connections does not list this connection.")
        connections = [one.status_row() for one in cache.connections(conn_id, fresh=fresh)]
        return Health.model_validate(
            {
                "generated_at": datetime.now(UTC),
                "seen_by": {"host": socket.gethostname(), "pid": os.getpid(), "since": since},
                "problem": problem,
                "policy": runtime.policy_status(),
                "connections": connections,
            }
        )

    @app.get("/history", tags=["for users who may view plugins"], **tell_viewers)
    def history(fresh: _Fresh = False) -> Days:
        """The last day of each listed connection's name, as the refresh DAG recorded it."""
        targets = [one.target for one in cache.connections(check=False)]
        return Days.model_validate(histories.report(targets, fresh=fresh))

    @app.get(
        "/metrics",
        tags=["for Prometheus"],
        response_class=Response,
        dependencies=[] if is_open else viewers,
        responses={
            **({} if is_open else _REFUSED),
            200: {"content": {"text/plain": {}}, "description": "Prometheus text."},
        },
    )
    def metrics() -> Response:
        """Gauges of each listed connection. `[hokusai_dns] metrics_for_anyone` opens it to all."""
        known, broken = cache.connections(), cache.listed()[1] is not None
        text = prometheus.render(known, runtime.metrics(), broken=broken)
        return Response(text, media_type=prometheus.CONTENT_TYPE)

    @app.get("/openapi.json", include_in_schema=False, dependencies=viewers)
    def openapi() -> dict[str, Any]:
        return app.openapi()

    @app.get("/docs", include_in_schema=False, dependencies=viewers)
    def reference() -> Response:
        return HTMLResponse(render_reference(app.openapi()), headers=HEADERS)

    @app.get("/guide", include_in_schema=False, dependencies=viewers)
    def guide() -> Response:
        return HTMLResponse(guide_page(), headers=HEADERS)

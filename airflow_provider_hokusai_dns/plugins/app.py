"""The application with the health endpoints. Imported by the API server alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache, partial

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import requires_access_view
from fastapi import Depends, FastAPI

from airflow_provider_hokusai_dns import __version__, runtime
from airflow_provider_hokusai_dns.config import connections
from airflow_provider_hokusai_dns.plugins.endpoints import Headers, add_endpoints
from airflow_provider_hokusai_dns.plugins.health_cache import HealthCache
from airflow_provider_hokusai_dns.plugins.page.routes import add_page
from airflow_provider_hokusai_dns.resolver.workers import NoThreadError, Workers

_starter = Workers("hokusai-dns-warm")
_ABOUT = """\
The state of MLflow, as **this API server process** measured it. It checks each connection at most
once per `[hokusai_dns] look_every` seconds, however many clients ask. Another process of the API
server may have checked at another time. Workers and triggerers check by themselves; their counters
are in Airflow's metrics.
"""


@asynccontextmanager
async def _warming(_: FastAPI) -> AsyncIterator[None]:
    """At the start of each API server process: look up the listed names in the background."""
    with suppress(NoThreadError):
        _starter.run(partial(runtime.warm_listed, connections.load_server), beside=True)
    yield


@cache
def build_app() -> FastAPI:
    """The application of this process. The endpoints are ``def``: they run in the thread pool."""
    app = FastAPI(
        title="Hokusai DNS",
        version=__version__,
        description=_ABOUT,
        # Own routes serve these, to users who may view plugins: FastAPI's are open to everyone, and
        # fetch their scripts from elsewhere.
        openapi_url=None,
        lifespan=_warming,
    )
    app.add_middleware(Headers)
    add_endpoints(app, HealthCache(), [Depends(requires_access_view(AccessView.PLUGINS))])
    add_page(app)
    return app

"""The health endpoints. Imported by the API server alone."""

from __future__ import annotations

from functools import cache
from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
from airflow.api_fastapi.core_api.security import requires_access_view
from fastapi import Depends, FastAPI

from airflow_provider_hokusai_dns import __version__
from airflow_provider_hokusai_dns.plugins.board import Board
from airflow_provider_hokusai_dns.plugins.page.routes import add_page


@cache
def build_app() -> FastAPI:
    """The application of this process. The endpoints are ``def``: they run in the thread pool."""
    app = FastAPI(title="Hokusai DNS", version=__version__, openapi_url=None)
    board = Board()

    @app.get("/health")
    def health() -> dict[str, str]:
        """Anybody: words as last known. 200 as long as this process serves; starts no probe."""
        return board.words()

    @app.get("/health/mlflow", dependencies=[Depends(requires_access_view(AccessView.PLUGINS))])
    def health_of_mlflow() -> dict[str, Any]:
        """Who may view plugins: each listed connection, with names and addresses."""
        return {"version": 1, "connections": board.connections()}

    add_page(app)
    return app

"""The routes of the page. Imported by the API server alone."""

from __future__ import annotations

from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity
from airflow.api_fastapi.core_api.security import (
    GetUserDep,
    requires_access_dag,
    requires_access_view,
)
from fastapi import Depends, FastAPI, HTTPException, Request, Response

from airflow_provider_hokusai_dns.plugins import page


def add_page(app: FastAPI) -> None:
    """Add ``GET /`` and the files it needs, for users who may view plugins."""
    guarded = [Depends(requires_access_view(AccessView.PLUGINS))]
    # The check that Airflow makes before a run is triggered; it raises without the permission.
    require_trigger = requires_access_dag("POST", DagAccessEntity.RUN, page.REFRESH_DAG)
    files = page.read_files()

    @app.get("/", dependencies=guarded, include_in_schema=False)
    def status_page(request: Request, user: GetUserDep) -> Response:
        try:
            require_trigger(request, user)
            may_trigger = True
        except HTTPException:
            may_trigger = False
        return _answer("index.html", page.render(files, may_trigger=may_trigger))

    @app.get("/page/{name}", dependencies=guarded, include_in_schema=False)
    def file_of_page(name: str) -> Response:
        if name not in files or name == "index.html":
            raise HTTPException(404)
        return _answer(name, files[name])


def _answer(name: str, content: bytes) -> Response:
    return Response(content, media_type=page.content_type(name), headers=page.HEADERS)

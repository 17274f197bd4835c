"""Registers the health endpoints with Airflow.

Scheduler, DAG processor and triggerer import this module as well, so it imports little: the FastAPI
application is built when the API server asks for it.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin


class HokusaiDNSPlugin(AirflowPlugin):
    """Health endpoints under ``/hokusai-dns`` of the API server, and their page in its UI."""

    name = "hokusai_dns"

    #: Relative, so that they work under any path of Airflow: its UI sets a base.
    external_views: list[Any] = [  # noqa: RUF012 - Airflow takes from it what it refuses
        {
            "name": "MLflow DNS",
            "href": "hokusai-dns/",
            "destination": "nav",
            "url_route": "hokusai-dns",
            "icon": "hokusai-dns/page/icon.svg",
            "icon_dark_mode": "hokusai-dns/page/icon-dark.svg",
        }
    ]

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The one application; built on first use."""
        from airflow_provider_hokusai_dns.plugins.app import build_app

        return [{"app": build_app(), "url_prefix": "/hokusai-dns", "name": "Hokusai DNS"}]

    @property
    def global_operator_extra_links(self) -> list[Any]:  # type: ignore[override]
        """The link from any task to the MLflow run that it opened."""
        from airflow_provider_hokusai_dns.links.mlflow_run import MLflowRunLink

        return [MLflowRunLink()]

    @property
    def operator_extra_links(self) -> list[Any]:  # type: ignore[override]
        """The link from gates and refreshes to the status page."""
        from airflow_provider_hokusai_dns.links.status_page import StatusPageLink
        from airflow_provider_hokusai_dns.operators.dns_refresh import DNSRefreshOperator
        from airflow_provider_hokusai_dns.sensors.mlflow_health import MLflowHealthSensor

        StatusPageLink.operators = [DNSRefreshOperator, MLflowHealthSensor]
        return [StatusPageLink()]

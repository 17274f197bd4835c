"""A button from a gate or a refresh to the status page.

It is registered by the plugin, so that the API server builds it without an XCom: the link is needed
most while a gate is still waiting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

#: Where Airflow's UI shows the external view of the plugin.
_ROUTE = "plugin/hokusai-dns"


class StatusPageLink(BaseOperatorLink):
    """The button "MLflow DNS", as the page is called in the navigation."""

    name = "MLflow DNS"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The page, in Airflow's own frame."""
        base_url = conf.get("api", "base_url", fallback="") or ""
        return f"{base_url.rstrip('/')}/{_ROUTE}"

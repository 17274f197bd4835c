"""Look up connections and hostnames again, and report what changed."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, BaseOperator

from airflow_provider_hokusai_dns.config import settings
from airflow_provider_hokusai_dns.config.fields import IPV6
from airflow_provider_hokusai_dns.refresh.names import refresh_names
from airflow_provider_hokusai_dns.refresh.report import ChangeRow as ChangeRow
from airflow_provider_hokusai_dns.refresh.report import RefreshReport, ResolutionRow, in_one_line
from airflow_provider_hokusai_dns.resolver.target import shown

if TYPE_CHECKING:
    from airflow.sdk import Context

_FAIL_ON = ("unresolved", "degraded", "never")


class DNSRefreshOperator(BaseOperator):
    """Live lookups that bypass every cache, for connections and plain hostnames.

    Writes the shared last known good, and pushes the XComs ``resolutions``, ``changes``,
    ``metrics`` and ``health``, and all four together as ``return_value``. If one name fails, the
    others are still refreshed and reported.

    Each refresh also adds a point to the history of the name, which the status page charts: how the
    name resolved and, for a connection, the result of one probe of MLflow. A probe takes at most
    10 s, all probes together at most a minute. A failed probe does not fail the task; use a gate
    for that.

    :param mlflow_conn_ids: connections (templated); ``None`` means those of
        ``[hokusai_dns] connections``.
    :param hostnames: further targets in any form (templated).
    :param probe: whether to probe MLflow, once per connection.
    :param fail_on: ``"unresolved"`` fails if there is no address for a name, ``"degraded"`` also if
        there is only a stale one, ``"never"`` does not fail (templated).
    :raises ValueError: ``fail_on`` is any other value.
    """

    template_fields: Sequence[str] = ("mlflow_conn_ids", "hostnames", "fail_on")
    ui_color = "#e3ecf8"

    def __init__(
        self,
        *,
        mlflow_conn_ids: Sequence[str] | str | None = None,
        hostnames: Sequence[str] | str = (),
        fail_on: str = "unresolved",
        probe: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_ids = mlflow_conn_ids
        self.hostnames = _shown(hostnames)  # as Airflow's UI shows what was serialized
        self.fail_on = fail_on
        self.probe = probe

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Fill in the templates. Airflow stores the result, so secrets are removed here."""
        super().render_template_fields(context, jinja_env)
        self.hostnames = _shown(self.hostnames)

    def execute(self, context: Context) -> RefreshReport:
        """Refresh, push the XComs, and only then fail if ``fail_on`` requires it."""
        if self.fail_on not in _FAIL_ON:
            raise ValueError(f"fail_on is one of {', '.join(_FAIL_ON)}, not {self.fail_on!r}")
        report = refresh_names(
            self._conn_ids(), _names(self.hostnames), probe=self.probe, info=self.log.info
        )
        rows = report["resolutions"]
        if self.do_xcom_push:
            for key in ("resolutions", "changes", "metrics", "health"):
                context["ti"].xcom_push(key=key, value=report[key])
        bad = _reasons_to_fail(rows, self.fail_on)
        if bad:
            if self.do_xcom_push:
                context["ti"].xcom_push(key="return_value", value=report)
            raise AirflowException(
                f"{len(bad)} of {len(rows)} names did not resolve as required "
                f"(fail_on={self.fail_on!r}): " + " ".join(bad)
            )
        return report

    def _conn_ids(self) -> Iterable[str]:
        if self.mlflow_conn_ids is None:
            return settings.listed_connections()
        return _names(self.mlflow_conn_ids)


def _shown(hostnames: Any) -> Any:
    """Targets without userinfo, path and query; templates and values from other tasks stay."""
    if isinstance(hostnames, str) and "://" in hostnames and "{" not in hostnames:
        hostnames = _names(hostnames)
    if isinstance(hostnames, list | tuple):
        return [shown(one) if isinstance(one, str) and "{" not in one else one for one in hostnames]
    return hostnames


def _names(value: Sequence[str] | str | None) -> list[str]:
    """Names out of a list, a text with commas, or a list that a template has turned into text."""
    if isinstance(value, str):
        text = value.strip()
        if text.startswith(("[", "(")) and not IPV6.match(text):
            try:
                value = json.loads(text)
            except ValueError:
                try:
                    value = ast.literal_eval(text)
                except (ValueError, SyntaxError):
                    raise ValueError("it begins like a list of names but is not one") from None
        else:
            value = text.replace(",", " ").split()
    names = [str(name).strip() for name in value or ()]
    return [name for name in names if name]


def _reasons_to_fail(rows: list[ResolutionRow], fail_on: str) -> list[str]:
    bad = {"never": (), "unresolved": ("unhealthy",), "degraded": ("unhealthy", "degraded")}
    return [in_one_line(row) + "." for row in rows if row["health"] in bad[fail_on]]

"""Look up connections and hostnames again, and report what changed."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, BaseOperator

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.config import settings
from airflow_provider_hokusai_dns.config.fields import IPV6, described
from airflow_provider_hokusai_dns.refresh.names import refresh_names
from airflow_provider_hokusai_dns.refresh.report import ChangeRow as ChangeRow
from airflow_provider_hokusai_dns.refresh.report import RefreshReport, ResolutionRow, in_one_line
from airflow_provider_hokusai_dns.resolver.target import Target, shown

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Seconds for one access of a Variable: this task has nothing else to do. Below the 13 s after
#: which Airflow reports an unreachable API server as a missing Variable.
_PATIENCE = 10.0
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
    :raises ValueError: an argument is wrong. One that needs no template and no other task is
        checked when the DAG is parsed.
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
        if _is_known(fail_on):
            _check_fail_on(fail_on)
        if _is_known(mlflow_conn_ids):
            _names("mlflow_conn_ids", mlflow_conn_ids)
        for name in _names("hostnames", hostnames) if _is_known(hostnames) else ():
            Target.parse(name)
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
        _check_fail_on(self.fail_on)
        hostnames = _names("hostnames", self.hostnames)
        runtime.store().set_patience(_PATIENCE)
        report = refresh_names(self._conn_ids(), hostnames, probe=self.probe, tell=self.log.log)
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
        return _names("mlflow_conn_ids", self.mlflow_conn_ids)


def _check_fail_on(value: object) -> None:
    if value not in _FAIL_ON:
        raise ValueError(f"fail_on must be one of {', '.join(_FAIL_ON)}, not {value!r}")


def _is_known(value: Any) -> bool:
    """Whether an argument is final when the DAG is parsed: no template, no value of a task."""
    if isinstance(value, list | tuple):
        return all(map(_is_known, value))
    if isinstance(value, str):
        return not any(c in value for c in "{<%$")  # a DAG may have other marks than Jinja's
    return not hasattr(value, "resolve") and not hasattr(value, "__next__")


def _shown(hostnames: Any) -> Any:
    """Targets without userinfo, path and query; templates and values from other tasks stay."""
    if isinstance(hostnames, str) and "://" in hostnames and "{" not in hostnames:
        hostnames = _names("hostnames", hostnames)
    if isinstance(hostnames, list | tuple):
        return [shown(one) if isinstance(one, str) and "{" not in one else one for one in hostnames]
    return hostnames


def _names(argument: str, value: Any) -> list[str]:
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
                    raise ValueError(
                        f"{argument} begins like a list of names but is not one"
                    ) from None
        else:
            value = text.replace(",", " ").split()
    if isinstance(value, Mapping) or not isinstance(value, Iterable | None):
        raise ValueError(f"{argument} must be a list of names, not {described(value)}")
    names = list(value or ())
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"{argument} must be a list of names, but contains {described(name)}")
    return [name.strip() for name in names if name.strip()]


def _reasons_to_fail(rows: list[ResolutionRow], fail_on: str) -> list[str]:
    bad = {"never": (), "unresolved": ("unhealthy",), "degraded": ("unhealthy", "degraded")}
    return [in_one_line(row) + "." for row in rows if row["health"] in bad[fail_on]]

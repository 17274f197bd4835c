"""Airflow's public REST API, as far as the story needs it."""

from __future__ import annotations

import urllib.parse
from typing import Any

from demo import rest


class AirflowAPI:
    """One signed-in user of one Airflow.

    :param base: ``http://host:port`` of the API server.
    """

    def __init__(self, base: str, user: str, password: str) -> None:
        self._base = base
        self._user = user
        self._password = password
        self._token: str | None = None

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """Send one request below ``/api/v2``, signing in first where needed."""
        if self._token is None:
            answer = rest.call(
                "POST",
                f"{self._base}/auth/token",
                body={"username": self._user, "password": self._password},
            )
            self._token = str(answer["access_token"])
        headers = {"Authorization": f"Bearer {self._token}"}
        return rest.call(method, f"{self._base}/api/v2{path}", headers=headers, **arguments)

    def unhealthy_parts(self) -> list[str]:
        """Return the components that do not report themselves healthy."""
        try:
            health = rest.call("GET", f"{self._base}/api/v2/monitor/health", timeout=5)
        except rest.RestError:
            return ["api server"]
        parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
        return [
            part.replace("_", " ")
            for part in parts
            if (health.get(part) or {}).get("status") != "healthy"
        ]

    def dag_ids(self) -> set[str]:
        """Return the ids of the DAGs that Airflow has parsed."""
        return {dag["dag_id"] for dag in self.call("GET", "/dags")["dags"]}

    def import_errors(self) -> list[str]:
        """Return, for each DAG file that could not be parsed, its name and the reason."""
        errors = self.call("GET", "/importErrors")["import_errors"]
        return [
            f"{error['filename']}: {error['stack_trace'].strip().splitlines()[-1]}"
            for error in errors
        ]

    def pages(self, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        """Return everything that a listing holds, asked for page by page.

        :param key: under which the answer has its entries.
        """
        found: list[dict[str, Any]] = []
        while True:
            answer = self.call("GET", path, params={"limit": 100, "offset": len(found), **params})
            found += answer[key]
            if not answer[key] or len(found) >= answer["total_entries"]:
                return found

    def add_connection(self, **fields: Any) -> None:
        """Create a connection as a person would in the form."""
        self.call("POST", "/connections", body=fields)

    def trigger(self, dag_id: str, conf: dict[str, Any], run_id: str) -> None:
        """Start a run of this DAG with these parameters."""
        body = {"logical_date": None, "conf": conf, "dag_run_id": run_id}
        self.call("POST", f"/dags/{dag_id}/dagRuns", body=body)

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return one DAG run."""
        run: dict[str, Any] = self.call("GET", f"/dags/{dag_id}/dagRuns/{_quoted(run_id)}")
        return run

    def count_runs(self, dag_id: str, **params: Any) -> int:
        """Return how many runs of this DAG there are."""
        answer = self.call("GET", f"/dags/{dag_id}/dagRuns", params={"limit": 1, **params})
        return int(answer["total_entries"])

    def dag_runs(self, dag_id: str = "~") -> list[dict[str, Any]]:
        """Return all DAG runs, or those of one DAG, the oldest first."""
        return self.pages(f"/dags/{dag_id}/dagRuns", "dag_runs", order_by="start_date")

    def tasks(self, dag_id: str, run_id: str = "~", **params: Any) -> list[dict[str, Any]]:
        """Return the task instances of one run, or of all runs."""
        return self.pages(_tasks_path(dag_id, run_id), "task_instances", **params)

    def count_tasks(self, dag_id: str, run_id: str = "~", **params: Any) -> int:
        """Return how many task instances there are, of one run or of all runs."""
        answer = self.call("GET", _tasks_path(dag_id, run_id), params={"limit": 1, **params})
        return int(answer["total_entries"])

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return what a task left behind, or ``None`` if it left nothing."""
        path = f"/dags/{dag_id}/dagRuns/{_quoted(run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        try:
            return self.call("GET", path, params={"deserialize": "false", "stringify": "false"})[
                "value"
            ]
        except rest.RestError as error:
            if error.status == 404:
                return None
            raise

    def variables(self, prefix: str) -> dict[str, str]:
        """Return the Variables whose key begins like this."""
        found = self.call("GET", "/variables", params={"limit": 100})["variables"]
        return {each["key"]: each["value"] for each in found if each["key"].startswith(prefix)}


def _tasks_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{_quoted(run_id)}/taskInstances"


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="")

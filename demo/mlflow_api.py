"""MLflow's REST API, read by the server's address: the demo itself needs no name."""

from __future__ import annotations

from typing import Any

from demo import rest


class MLflowAPI:
    """One MLflow server.

    :param host: the Host header that the server accepts; it refuses bare addresses.
    """

    def __init__(self, address: str, port: int, host: str) -> None:
        self._base = f"http://{address}:{port}"
        self._headers = {"Host": host}

    def call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """Send one request below ``/api/2.0/mlflow``."""
        url = f"{self._base}/api/2.0/mlflow/{path}"
        answer: dict[str, Any] = rest.call(method, url, headers=self._headers, **arguments)
        return answer

    def is_up(self) -> bool:
        """Whether the server answers with its database behind it."""
        try:
            self.call("POST", "experiments/search", body={"max_results": 1}, timeout=5)
        except rest.RestError:
            return False
        return True

    def runs(self) -> list[dict[str, Any]]:
        """Return every run of every experiment, the oldest first."""
        experiments = self.call("POST", "experiments/search", body={"max_results": 100})
        ids = [each["experiment_id"] for each in experiments.get("experiments", [])]
        if not ids:
            return []
        body: dict[str, Any] = {
            "experiment_ids": ids,
            "max_results": 200,
            "order_by": ["start_time ASC"],
        }
        found: list[dict[str, Any]] = []
        while True:
            answer = self.call("POST", "runs/search", body=body)
            found += answer.get("runs", [])
            if not answer.get("next_page_token"):
                return found
            body["page_token"] = answer["next_page_token"]

    def metric_counts(self, run_id: str) -> dict[str, int]:
        """Return, per metric, how many values the server holds."""
        run = self.call("GET", "runs/get", params={"run_id": run_id})["run"]
        keys = [metric["key"] for metric in run["data"].get("metrics", [])]
        return {key: self._history_length(run_id, key) for key in keys}

    def artifacts(self, run_id: str) -> list[str]:
        """Return the paths of all artifact files, in whatever depth."""
        found: list[str] = []
        folders = [""]
        while folders:
            params = {"run_id": run_id} | ({"path": folder} if (folder := folders.pop()) else {})
            for entry in self.call("GET", "artifacts/list", params=params).get("files", []):
                (folders if entry.get("is_dir") else found).append(entry["path"])
        return sorted(found)

    def model_versions(self) -> dict[str, list[str]]:
        """Return, per run id, the registered versions made from it, as ``name vN``."""
        versions: dict[str, list[str]] = {}
        answer = self.call("GET", "model-versions/search", params={"max_results": 200})
        for each in answer.get("model_versions", []):
            versions.setdefault(each.get("run_id", ""), []).append(
                f"{each['name']} v{each['version']}"
            )
        return versions

    def _history_length(self, run_id: str, key: str) -> int:
        params: dict[str, Any] = {"run_id": run_id, "metric_key": key, "max_results": 1000}
        return len(self.call("GET", "metrics/get-history", params=params).get("metrics", []))

"""A small server that shows the page's real files and answers its questions as a test wants.

What Airflow and the endpoints really answer is tested with the real ones; here it is about states
that are hard to bring about there, and about what only a browser can show.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from airflow_provider_hokusai_dns.plugins import page
from tests.servers import Handler, HTTPThread

Answer = tuple[int, Any]
FILES = page.read_files()
DAG = {
    "dag_id": page.REFRESH_DAG,
    "is_paused": False,
    "is_stale": False,
    "has_import_errors": False,
}


class Stage(HTTPThread):
    """Answers under ``/airflow``, as an Airflow behind a path would. A context manager."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer | Callable[[], Answer]] = {}
        self.may_trigger = True
        self.away = False
        self.asked: list[tuple[str, str]] = []
        self.queries: list[str] = []
        stage = self

        class Answering(Handler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.partition("?")[0].removeprefix("/airflow")
                stage.asked.append((self.command, path))
                stage.queries.append(self.path.removeprefix("/airflow/hokusai-dns/"))
                if stage.away and "/page/" not in path:
                    self.close_connection = True
                    return
                status, content_type, body = stage._find(path)
                self.send_response(status)
                for name, value in page.HEADERS.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer

        super().__init__(Answering)
        self.url = f"http://127.0.0.1:{self.port}/airflow/hokusai-dns/"

    def tell(self, health: Any, history: Any = None, dag: Any = DAG) -> None:
        """What the page will be told from now on; ``None`` is a 404."""
        self.answers["/hokusai-dns/health/mlflow"] = _or_404(health)
        self.answers["/hokusai-dns/history"] = _or_404(history)
        self.answers[f"/api/v2/dags/{page.REFRESH_DAG}"] = _or_404(dag)

    def tell_run(
        self, states: list[str], report: Any = None, trigger: Answer | None = None
    ) -> None:
        """What becomes of a run that is triggered; the last state stays."""
        runs = f"/api/v2/dags/{page.REFRESH_DAG}/dagRuns"
        self.answers[runs] = trigger or (200, {"dag_run_id": "manual__1", "state": "queued"})
        remaining = list(states)
        self.answers[f"{runs}/manual__1"] = lambda: (
            200,
            {"state": remaining.pop(0) if len(remaining) > 1 else remaining[0]},
        )
        entries = f"{runs}/manual__1/taskInstances/refresh/xcomEntries"
        self.answers[f"{entries}/return_value"] = _or_404(report and {"value": report})

    def _find(self, path: str) -> tuple[int, str, bytes]:
        name = path.removeprefix("/hokusai-dns/").removeprefix("page/")
        if path == "/hokusai-dns/":
            html = page.render(FILES, may_trigger=self.may_trigger)
            return 200, page.content_type("index.html"), html
        if name in FILES:
            return 200, page.content_type(name), FILES[name]
        told = self.answers.get(path, (404, {"detail": "Not Found"}))
        status, body = told() if callable(told) else told
        return status, "application/json", json.dumps(body).encode()


def _or_404(body: Any) -> Answer:
    return (404, {"detail": "Not Found"}) if body is None else (200, body)

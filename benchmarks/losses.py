"""A run whose server's name goes away half-way: what has arrived, plain client beside ours.

Both subjects are the same author's code in a process of its own, on a real MLflow server. The
name goes, the process pauses until the server has hung up (uvicorn does after 5 s), goes on, and
ends its run; the name does not come back before that. What is not there then is lost.

The plain client is bounded, or this would take an hour: by default it tries 8 times with growing
waits, 247 s for one call. Waiting longer would not help it, because the name stays away. And each
failing call is caught, so that the first does not hide what would have become of the others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.measure import Row, Table
from benchmarks.stage import Nameserver
from benchmarks.subject import environment

PLAIN, OURS = "plain client, bounded", "ours"
#: MLflow's own settings for the plain client, in place of 7 retries with a factor of 2.
_PLAIN_BOUNDS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}
_NOTES = {
    PLAIN: "bounded to 2 retries with back-off 1 (default: 7 and 2, 247 s a call)",
    OURS: "default settings",
}
_COLUMNS = ("metrics lost", "artifacts lost", "traces lost", "run ended", "told", "seconds")
_ADDRESS = "127.0.0.71"
#: Longer than uvicorn keeps an idle connection.
PAUSE = 6.0
_TTL = 1


@dataclass(frozen=True)
class Amounts:
    """How much is logged, half of it before the name goes."""

    metrics: int = 200
    artifacts: int = 6
    traces: int = 4

    def halves(self) -> tuple[range, range]:
        return range(self.metrics // 2), range(self.metrics // 2, self.metrics)


def measure(server: Nameserver, *, quick: bool) -> Iterator[Table]:
    """Losses of an outage that lasts to the end of the run."""
    from tests.servers import MLflowProcess

    amounts = Amounts(100, 2, 2) if quick else Amounts()
    table = Table(
        "losses",
        f"Name gone half-way: of {amounts.metrics} asynchronous metrics, {amounts.artifacts} "
        f"artifacts, {amounts.traces} traces",
        _COLUMNS,
    )
    with tempfile.TemporaryDirectory() as folder:
        process = MLflowProcess(
            Path(folder) / "mlflow",
            host=_ADDRESS,
            allowed_hosts=("*.bench.test:*", f"{_ADDRESS}:*"),
        )
        with process:
            for name in (PLAIN, OURS):
                if name == PLAIN and not server.is_the_systems:
                    note = f"asks the system's nameserver; {server.why_not}"
                    table.rows.append(Row(name, note=note))
                    continue
                table.rows.append(_row(server, process, name, amounts, Path(folder)))
    yield table


def _row(server: Nameserver, process: Any, name: str, amounts: Amounts, folder: Path) -> Row:
    hostname = f"{'plain' if name == PLAIN else 'ours'}.losses.bench.test"
    server.tell(f"set {hostname} {process.host} ttl={_TTL}")
    order = {
        "hostname": hostname,
        "port": process.port,
        "nameservers": server.address,
        "plain": name == PLAIN,
        "amounts": amounts.__dict__,
    }
    told = _run_subject(server, hostname, order, folder)
    arrived = _arrived(process.uri, told["run_id"])
    values = (
        amounts.metrics - arrived["metrics"],
        amounts.artifacts - arrived["artifacts"],
        amounts.traces - arrived["traces"],
        arrived["status"] != "RUNNING",
        bool(told["errors"]),
        told["seconds"],
    )
    note = f"{arrived['status']}; {_NOTES[name]}"
    if told["errors"]:
        note += f"; raised {', '.join(sorted(set(told['errors'])))}"
    return Row(name, dict(zip(_COLUMNS, values, strict=True)), note)


def _run_subject(
    server: Nameserver, hostname: str, order: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Run the author's code, and take the name away when it says that it is half-way."""
    variables = environment(folder) | (_PLAIN_BOUNDS if order["plain"] else {})
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.losses", json.dumps(order)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=variables,
        ) as subject,
    ):  # fmt: skip
        try:
            assert subject.stdin is not None
            assert subject.stdout is not None
            _said(subject.stdout, "half-way", folder / "log")
            server.tell(f"no_such_name {hostname}")
            subject.stdin.write(b"go on\n")
            subject.stdin.flush()
            return _said(subject.stdout, "done", folder / "log")
        finally:
            with suppress(ProcessLookupError):
                subject.kill()


def _said(stdout: IO[bytes], word: str, log: Path) -> dict[str, Any]:
    for line in stdout:
        if line.startswith(b"@"):
            said: dict[str, Any] = json.loads(line[1:])
            if said["word"] == word:
                return said
    raise RuntimeError(f"the subject ended before it was {word}: {log.read_text()[-2000:]}")


def _arrived(uri: str, run_id: str) -> dict[str, Any]:
    """What the server has of a run, asked by its address."""
    run = _get(uri, f"2.0/mlflow/runs/get?run_id={run_id}")["run"]["info"]
    history = _get(uri, f"2.0/mlflow/metrics/get-history?run_id={run_id}&metric_key=loss")
    files = _get(uri, f"2.0/mlflow/artifacts/list?run_id={run_id}")
    place = {
        "type": "MLFLOW_EXPERIMENT",
        "mlflow_experiment": {"experiment_id": run["experiment_id"]},
    }
    traces = _get(uri, "3.0/mlflow/traces/search", {
        "locations": [place],
        "filter": f"metadata.`mlflow.sourceRun` = '{run_id}'",
    })  # fmt: skip
    return {
        "status": run["status"],
        "metrics": len(history.get("metrics", ())),
        "artifacts": len(files.get("files", ())),
        "traces": len(traces.get("traces", ())),
    }


def _get(uri: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{uri}/api/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        document: dict[str, Any] = json.load(answer)
        return document


# --- the subject, in its own process


def _subject(order: dict[str, Any]) -> None:
    import mlflow

    amounts = Amounts(**order["amounts"])
    before, after = amounts.halves()
    errors: list[str] = []
    with tempfile.TemporaryDirectory():
        started = time.perf_counter()
        run_id = ""
        try:
            with _open_run(order) as run:
                run_id = run.info.run_id
                _log(mlflow, before, amounts, 0, errors)
                mlflow.flush_async_logging()
                mlflow.flush_trace_async_logging()
                _say("half-way")
                sys.stdin.readline()
                time.sleep(PAUSE)
                _log(mlflow, after, amounts, 1, errors)
                if order["plain"]:  # as careful as an author can be
                    mlflow.flush_async_logging()
                    mlflow.flush_trace_async_logging()
        except Exception as error:
            errors.append(type(error).__name__)
        seconds = round(time.perf_counter() - started - PAUSE, 1)
    _say("done", run_id=run_id, errors=errors, seconds=seconds)
    sys.stdout.flush()
    os._exit(0)  # threads that still try would only hold us up


def _open_run(order: dict[str, Any]) -> Any:
    import mlflow

    if order["plain"]:
        mlflow.set_tracking_uri(f"http://{order['hostname']}:{order['port']}")
        return mlflow.start_run()
    from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook

    os.environ["AIRFLOW_CONN_MLFLOW_DEFAULT"] = json.dumps({
        "conn_type": "mlflow",
        "host": order["hostname"],
        "port": order["port"],
        "extra": {"nameservers": order["nameservers"]},
    })  # fmt: skip
    return MLflowHook().run()


def _log(mlflow: Any, steps: range, amounts: Amounts, half: int, errors: list[str]) -> None:
    """One half of what the author logs."""

    @mlflow.trace
    def answer() -> int:
        return 42

    for step in steps:
        mlflow.log_metric("loss", step, step=step, synchronous=False)
    for number in range(amounts.artifacts // 2):
        try:
            mlflow.log_text("text", f"file-{half}-{number}.txt")
        except Exception as error:
            errors.append(type(error).__name__)
    for _ in range(amounts.traces // 2):
        answer()


def _say(word: str, **more: Any) -> None:
    print("@" + json.dumps({"word": word, **more}), flush=True)


if __name__ == "__main__":
    _subject(json.loads(sys.argv[1]))

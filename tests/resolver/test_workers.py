"""Threads for lookups: a job of any kind costs the others nothing."""

from __future__ import annotations

from airflow_provider_hokusai_dns.resolver.workers import Workers


def test_a_job_that_ends_its_thread_costs_no_worker(caplog):
    """With one thread at most, the next job still runs, and nothing seems to be under way."""
    workers = Workers("test", limit=1)

    def leave() -> None:
        raise SystemExit(1)

    workers.run(leave)
    assert workers.call(lambda: "done").result(10) == "done"
    assert workers.wait_idle(10)
    assert "background job" in caplog.text

"""The deferrable half of the health gate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_hokusai_dns.gate import (
    DEFAULT_CHECKS,
    DEFAULT_FAIL_FAST,
    EVENT_VERSION,
    PROBE_TIMEOUT,
    GateEvent,
    Strikes,
    alook,
    check_arguments,
    in_one_line,
)

#: Of the arguments that :meth:`MLflowHealthTrigger.serialize` puts down.
PAYLOAD_VERSION = 1


class MLflowHealthTrigger(BaseTrigger):
    """Fires when an MLflow server is healthy enough, or when waiting for it is of no use.

    Every look runs on a thread, so that the triggerer's event loop is never blocked. The event is a
    :class:`~airflow_provider_hokusai_dns.gate.GateEvent`.

    :param mlflow_conn_id: the connection.
    :param min_health: ``"healthy"`` or ``"degraded"``.
    :param checks: what to check.
    :param fail_fast_on: causes that end the wait when seen three times running.
    :param poke_interval: seconds between two looks.
    :param probe_timeout: seconds for one look.
    :param delay: seconds before the first look; a worker may have looked just now.
    :param strikes: what has been seen before, as :meth:`~.gate.Strikes.as_dict`.
    :param version: of these arguments, which wait in the database while packages are upgraded. One
        without it was written before there was one.
    :raises ValueError: names the argument and the value.
    """

    def __init__(
        self,
        *,
        mlflow_conn_id: str = "mlflow_default",
        min_health: str = "degraded",
        checks: Sequence[str] = DEFAULT_CHECKS,
        fail_fast_on: Sequence[str] = DEFAULT_FAIL_FAST,
        poke_interval: float = 30.0,
        probe_timeout: float = PROBE_TIMEOUT,
        delay: float = 0.0,
        strikes: dict[str, Any] | None = None,
        version: int = PAYLOAD_VERSION,
    ) -> None:
        if version != PAYLOAD_VERSION:
            raise ValueError(
                f"this trigger reads its arguments in version {PAYLOAD_VERSION}, not {version!r}: "
                "triggerer and workers must run the same version of airflow-provider-hokusai-dns"
            )
        super().__init__()  # type: ignore[no-untyped-call]
        self.mlflow_conn_id = mlflow_conn_id
        self.min_health = min_health
        self.checks, self.fail_fast_on = check_arguments(
            min_health, checks, fail_fast_on, probe_timeout
        )
        self.poke_interval = poke_interval
        self.probe_timeout = probe_timeout
        self.delay = delay
        self.strikes = Strikes.from_dict(strikes)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class path and what makes this trigger again."""
        return (
            "airflow_provider_hokusai_dns.triggers.mlflow_health.MLflowHealthTrigger",
            {
                "version": PAYLOAD_VERSION,
                "mlflow_conn_id": self.mlflow_conn_id,
                "min_health": self.min_health,
                "checks": list(self.checks),
                "fail_fast_on": list(self.fail_fast_on),
                "poke_interval": self.poke_interval,
                "probe_timeout": self.probe_timeout,
                "delay": self.delay,
                "strikes": self.strikes.as_dict(),
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until there is something to say."""
        await asyncio.sleep(self.delay)
        strikes = self.strikes
        while True:
            verdict = await alook(
                self.mlflow_conn_id, checks=self.checks, deadline=self.probe_timeout
            )
            is_open = verdict.meets(self.min_health)
            strikes = strikes.after(verdict, self.fail_fast_on)
            self.log.info(in_one_line(verdict, strikes))
            if is_open or strikes.out:
                event = GateEvent(version=EVENT_VERSION, open=is_open, verdict=verdict.as_dict())
                yield TriggerEvent(dict(event))  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(self.poke_interval)

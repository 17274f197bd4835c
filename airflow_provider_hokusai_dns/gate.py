"""The former path of :mod:`~airflow_provider_hokusai_dns.gates.decision`."""

from __future__ import annotations

from airflow_provider_hokusai_dns.gates.decision import GateEvent as GateEvent
from airflow_provider_hokusai_dns.gates.decision import Strikes as Strikes

"""A relay on loopback: every process of a task reaches MLflow through it.

A child that is started by ``subprocess`` or ``spawn``, or written in another language, does not use
this package. It is an MLflow client with a tracking URI on 127.0.0.1 and a token that is valid only
there. The relay has the credentials, waits while MLflow is unavailable, repeats requests if that is
safe, and ends the runs that its clients leave behind.

:mod:`..routes` says which request may be repeated, :mod:`..creates` how a create is found again.
MLflow's client in this process follows both as well.
"""

from __future__ import annotations

from airflow_provider_hokusai_dns.client.relay.records import RelayLostDataError
from airflow_provider_hokusai_dns.client.relay.relay import Relay, open_relay

__all__ = ["Relay", "RelayLostDataError", "open_relay"]

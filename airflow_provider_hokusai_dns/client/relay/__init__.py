"""A relay on loopback: every process of a task reaches MLflow through it.

A child that is started by ``subprocess`` or ``spawn``, or written in another language, does not use
this package. It is an MLflow client with a tracking URI on 127.0.0.1 and a token that is valid only
there. The relay has the credentials, waits while MLflow is unavailable, repeats requests if that is
safe, and ends the runs that its clients leave behind.

Which request may be repeated and how a create is found again is said in :mod:`..routes` and
:mod:`..creates`, for MLflow's client in this process as well.

=====================  =======================================================================
:mod:`.headers`        pure: which headers go through
:mod:`.patience`       pure: wait, look for it, answer or give up
:mod:`.records`        what the relay has seen: runs that were begun, calls that were lost
:mod:`.variables`      pure: the environment of a child
:mod:`.messages`       request and answer
:mod:`.bodies`         request bodies that are kept until they have arrived
:mod:`.upstream`       one request to MLflow (aiohttp)
:mod:`.forwarding`     one request of a client, with all its tries
:mod:`.listener`       the loopback port, token and limits
:mod:`.orphans`        orphaned runs, and runs that were made twice
:mod:`.relay`          the thread, its start and its end
=====================  =======================================================================
"""

from __future__ import annotations

from airflow_provider_hokusai_dns.client.relay.relay import Relay, RelayLostDataError, open_relay

__all__ = ["Relay", "RelayLostDataError", "open_relay"]

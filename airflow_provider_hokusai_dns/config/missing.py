"""Why Airflow did not return a connection.

Airflow itself does not say: it asks its secrets backends in turn, ignores their errors, and
reports a connection that none of them returned as undefined. So this module asks again, but only
where the answer can be trusted.
"""

from __future__ import annotations

import contextlib
import os
from enum import StrEnum
from typing import Any

from airflow_provider_hokusai_dns import supervisor
from airflow_provider_hokusai_dns.config.settings import CONN_TYPES


class Reason(StrEnum):
    """Why Airflow returned no connection."""

    #: Airflow could not be asked, or a secrets backend may have failed.
    UNKNOWN = "unknown"
    #: Airflow has no connection with this id.
    UNDEFINED = "undefined"
    #: It is in the database, encrypted with a key that this process does not have.
    ENCRYPTED = "encrypted"


def why(conn_id: str) -> Reason:
    """Find the reason in a task, on the command line or in the API server. Never raises."""
    try:
        comms = supervisor.connection()
        if comms is None:
            return _in_database(conn_id)
        if _has_backend_of_its_own() or supervisor.in_triggerer():
            return Reason.UNKNOWN  # not from a thread of the triggerer
        return _meaning(comms.send(_question(conn_id)))
    except Exception:
        return Reason.UNKNOWN


async def why_async(conn_id: str) -> Reason:
    """:func:`why` for a coroutine of the triggerer."""
    try:
        comms = supervisor.connection()
        if _has_backend_of_its_own() or not hasattr(comms, "asend"):
            return Reason.UNKNOWN
        return _meaning(await comms.asend(_question(conn_id)))
    except Exception:
        return Reason.UNKNOWN


def known_connections() -> set[str]:
    """Ids of connections that this process can list at once, for a suggestion."""
    known = {
        name.removeprefix("AIRFLOW_CONN_").lower()
        for name in os.environ
        if name.startswith("AIRFLOW_CONN_")
    }
    if supervisor.has_database():
        from airflow.models import Connection
        from airflow.utils.session import create_session
        from sqlalchemy import select

        is_ours = Connection.conn_type.in_(CONN_TYPES)
        question = select(Connection.conn_id).where(is_ours).limit(1000)
        with contextlib.suppress(Exception), create_session() as session:  # only a suggestion
            known |= set(session.scalars(question))
    return known


def _has_backend_of_its_own() -> bool:
    """Whether a custom secrets backend is configured; Airflow ignores its errors."""
    from airflow.providers.common.compat.sdk import conf

    options = (("secrets", "backend"), ("workers", "secrets_backend"))
    return any(conf.get(*option, fallback=None) for option in options)


def _question(conn_id: str) -> Any:
    from airflow.sdk.execution_time.comms import GetConnection

    return GetConnection(conn_id=conn_id)


def _meaning(answer: object) -> Reason:
    """Undefined if the API server says so explicitly; any other error may be temporary."""
    error = getattr(answer, "error", None)
    is_undefined = getattr(error, "value", error) == "CONNECTION_NOT_FOUND"
    return Reason.UNDEFINED if is_undefined else Reason.UNKNOWN


def _in_database(conn_id: str) -> Reason:
    if not supervisor.has_database():
        return Reason.UNKNOWN
    from airflow.models import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.exc import SQLAlchemyError

    with create_session() as session:
        if not session.scalar(select(Connection.id).where(Connection.conn_id == conn_id)):
            return Reason.UNKNOWN if _has_backend_of_its_own() else Reason.UNDEFINED
        try:
            found = session.scalars(select(Connection).where(Connection.conn_id == conn_id)).one()
            _ = found.password, found.extra
        except SQLAlchemyError:
            raise
        except Exception:  # Fernet's own for another key, Airflow's where there is none
            return Reason.ENCRYPTED
    return Reason.UNKNOWN

"""The stored last known good for an admin, even if it is broken."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_hokusai_dns.resolver import LastKnownGood, ResolverConfig, freshness
from airflow_provider_hokusai_dns.store.record import (
    BrokenVariableError,
    parse_record,
    shown_record,
    variable_key,
)

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.store.variables import Variables

#: Seconds for one access. There is no task that waits, and a loaded database is no reason to say
#: that nothing is stored.
PATIENCE = 15.0


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """The content of one Variable.

    :param record: ``None`` if there is no usable record.
    :param problem: what is wrong with the text, as a sentence; ``None`` if nothing is.
    """

    key: str
    hostname: str
    record: LastKnownGood | None = None
    problem: str | None = None

    def usable_until(self, config: ResolverConfig) -> float:
        """Until when the record may be served, in seconds since the epoch; 0 without a record.

        The policy's own functions, on wall time.
        """
        if self.record is None:
            return 0.0
        now = time.time()
        entry = freshness.Entry(self.record.hostname)
        try:
            return freshness.stale_until(
                freshness.adopt(entry, self.record, now, now, config), config
            )
        except ValueError:
            return 0.0

    def as_dict(self) -> dict[str, Any] | None:
        """The record as the health endpoint shows it."""
        return None if self.record is None else shown_record(self.record, time.time())


def read_stored(hostname: str, variables: Variables, asked: tuple[str, ...] = ()) -> StoredRecord:
    """The record stored for a hostname. Never raises, whatever the Variable contains.

    :param asked: the nameservers set on a connection; empty for the system's.
    """
    key = variable_key(hostname, asked=asked)
    text = variables.get(key)
    if text is None:
        return StoredRecord(key, hostname)
    try:
        return StoredRecord(
            key, hostname, parse_record(hostname, text, now=time.time(), asked=asked)
        )
    except BrokenVariableError as error:
        return StoredRecord(key, hostname, problem=f"the Variable {key} is ignored: {error}")


def database_problem() -> str | None:
    """Why Airflow's database cannot be read, or ``None``.

    Airflow itself does not say: it reports a connection that it cannot read as missing.
    """
    from airflow.models import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with create_session() as session:
            session.execute(select(Variable.key).limit(1))
    except SQLAlchemyError as error:
        return (
            f"Airflow's database cannot be read ({type(error).__name__}): see 'airflow db check', "
            "and 'airflow db migrate' if it is new"
        )
    return None

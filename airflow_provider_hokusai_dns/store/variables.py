"""Airflow's Variables as texts: as a task or trigger sees them, or in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from airflow_provider_hokusai_dns import supervisor

T = TypeVar("T")


class Variables(Protocol):
    """Where the texts are stored. Both calls may block for a long time."""

    def get(self, key: str) -> str | None:
        """The text, or ``None`` when it is not known."""
        ...

    def set(self, key: str, value: str, description: str) -> None:
        """Store a text."""
        ...


#: The event loop of the triggerer, once one of our triggers has run in this process.
_triggerer_loop: asyncio.AbstractEventLoop | None = None
#: Seconds after which an answer does not come any more: of the triggerer's loop, or of the
#: supervisor to a process that ends.
LOST = 60.0


def use_triggerer_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Reach the Variables through this event loop, if this is a triggerer.

    Airflow 3.2 reads the answers for all triggers on that loop, and finds it from a thread only
    under ``sync_to_async``. From any other thread the request would be sent and its answer left
    unread, and the next trigger would read it.
    """
    global _triggerer_loop
    _triggerer_loop = loop


def _ask(function: Callable[[], T]) -> T:
    """Call an SDK function that talks to the supervisor, in the way that fits this process."""
    loop = _triggerer_loop
    if not supervisor.in_triggerer() or loop is None or not loop.is_running():
        return function()
    from asgiref.sync import sync_to_async

    async def carried() -> T:
        return await sync_to_async(function, thread_sensitive=False)()

    # Not cancelled when it is late: that would leave its answer unread in the connection.
    return asyncio.run_coroutine_threadsafe(carried(), loop).result(LOST)


def check_database() -> None:
    """Read Airflow's database: while that fails, Airflow reports what is in it as missing.

    :raises SQLAlchemyError: it cannot be read.
    """
    from airflow.models import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        session.execute(select(Variable.key).limit(1))


class SdkVariables:
    """The Variables as a task, a trigger and (for reading) the API server see them."""

    def get(self, key: str) -> str | None:
        """The text, or ``None`` when it is not known."""
        from airflow.sdk import Variable

        value = _ask(lambda: Variable.get(key, default=None))
        if value is None and supervisor.has_database():
            check_database()
        return None if value is None else str(value)

    def set(self, key: str, value: str, description: str) -> None:
        """Store a text. Raises :class:`ImportError` in a process without a supervisor."""
        from airflow.sdk import Variable

        _ask(lambda: Variable.set(key, value, description=description))


class MetastoreVariables:
    """The Variables in Airflow's database, not through its SDK.

    For a process with access to the database: the command line, and ``dag.test()``. There a task's
    connection to Airflow has no lock, and does not exist while it carries a request: if another
    thread used it, the author's next XCom would fail. Therefore this does not call
    ``Variable.get`` and ``Variable.set``, which use that connection if there is one.

    The environment and a secrets backend take precedence, as everywhere in Airflow.
    """

    def get(self, key: str) -> str | None:
        """The text, or ``None`` when it is not known."""
        from airflow.models import Variable

        value: str | None = Variable.get_variable_from_secrets(key)
        if value is None:
            check_database()
        return value

    def set(self, key: str, value: str, description: str) -> None:
        """Store a text."""
        from sqlalchemy.exc import IntegrityError

        try:
            self._set(key, value, description)
        except IntegrityError:  # another process has just added it
            self._set(key, value, description)

    def _set(self, key: str, value: str, description: str) -> None:
        from airflow.models import Variable
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            variable = session.scalar(select(Variable).where(Variable.key == key))
            if variable is None:
                variable = Variable(key)  # type: ignore[no-untyped-call]
                session.add(variable)
            variable.set_val(value)
            variable.description = description

    def delete(self, key: str) -> bool:
        """Delete a text; returns whether the database had it."""
        from airflow.models import Variable

        return bool(Variable.delete(key))


#: Whether a task of ``dag.test()`` has run in this process. Such a process has the database.
_dag_test = False


def notice_dag_test() -> bool:
    """Whether this process runs tasks by ``dag.test()``. To be called on the task's own thread.

    The answer is kept, because the task's connection is gone while it carries a request.
    """
    global _dag_test
    _dag_test = _dag_test or supervisor.kind() == "InProcessSupervisorComms"
    return _dag_test

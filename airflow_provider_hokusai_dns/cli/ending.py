"""How a command ends: exit code, Ctrl-C, a closed pipe, a database that does not answer."""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps

from airflow.utils.cli import suppress_logs_and_warning
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.cli.output import print_error
from airflow_provider_hokusai_dns.config.errors import (
    ConnectionConflictError,
    ConnectionMissingError,
    SettingError,
)
from airflow_provider_hokusai_dns.refresh.names import WrongRefreshError
from airflow_provider_hokusai_dns.resolver.errors import StoreOverdue
from airflow_provider_hokusai_dns.store import bounded_calls
from airflow_provider_hokusai_dns.store.variables import check_database

#: The exit codes, which :mod:`~.cli.definition` explains.
OK, NOT_USABLE, WRONG_INPUT, NO_DATABASE = range(4)
_READER_ENDED = 128 + signal.SIGPIPE  # as a shell shows it for other commands
#: Seconds for one access of a Variable. There is no task that waits, and a loaded database is no
#: reason to say that nothing is stored.
PATIENCE = 15.0
#: Seconds for what goes on in the background at the end of a command.
_END = 2.0


class UsageError(ValueError):
    """An argument on the command line is invalid."""


def command(run: Callable[[Namespace], int]) -> Callable[[Namespace], None]:
    """Wrap a command for Airflow: quiet without ``-v``, and ends with an exit code."""

    def outcome(args: Namespace) -> int:
        try:
            return run(args)
        except ConnectionMissingError as error:
            problem = database_problem()
            print_error(problem or str(error))
            return NO_DATABASE if problem else WRONG_INPUT
        except (UsageError, WrongRefreshError, SettingError, ConnectionConflictError) as error:
            print_error(str(error))
            return WRONG_INPUT
        except SQLAlchemyError as error:  # it became unavailable meanwhile
            print_error(database_problem() or f"Airflow's database said {type(error).__name__}")
            return NO_DATABASE
        finally:
            runtime.wait_idle(_END)

    @suppress_logs_and_warning
    @wraps(run)
    def wrapper(args: Namespace) -> None:
        # As Airflow's own "connections test" does it: without this, the SDK sees connections and
        # Variables of the environment alone, and not those in the database.
        os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
        with _ended_by_ctrl_c():
            try:
                code = outcome(args)
                print(end="", flush=True)  # noqa: T201
            except (BrokenPipeError, SystemExit) as error:
                if BrokenPipeError not in (type(error), type(error.__context__)):
                    raise
                # The reader of the output has what it wants, like "head -1". At a regular exit,
                # Python would write the rest, and print a traceback.
                sys.stderr.flush()
                os._exit(_READER_ENDED)
        if bounded_calls.is_under_way():
            # At the exit Airflow closes its database, and fails with a traceback while it is read.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        raise SystemExit(code)

    return wrapper


@contextmanager
def _ended_by_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C end the process itself: at once, without a traceback, with 130 in a shell.

    Python's own handler does not run while the database's driver waits for a server.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def database_problem() -> str | None:
    """Why Airflow's database cannot be read, or ``None``."""
    try:
        bounded_calls.BoundedCall(PATIENCE).call(check_database)
    except StoreOverdue:
        return f"Airflow's database has not answered within {PATIENCE:g} s: see 'airflow db check'"
    except SQLAlchemyError as error:
        return (
            f"Airflow's database cannot be read ({type(error).__name__}): see 'airflow db check', "
            "and 'airflow db migrate' if it is new"
        )
    return None

"""The store on Variables: bounded, never in the way, and never with less than it held."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from airflow_provider_hokusai_dns.resolver import LastKnownGood
from airflow_provider_hokusai_dns.resolver.errors import StoreOverdue, StoreUnreadableError
from airflow_provider_hokusai_dns.store import bounded_calls
from airflow_provider_hokusai_dns.store.record import dropped_fields, render_record, variable_key
from airflow_provider_hokusai_dns.store.variable_store import VariableStore
from airflow_provider_hokusai_dns.store.variables import SdkVariables
from tests.servers import wait_until

NOW = 1_795_000_000.0
NAME = "mlflow.local"
KEY = variable_key(NAME)
RECORD = LastKnownGood(NAME, ("10.0.0.1",), NOW - 100, ttl=10.0, written_by="hook")


class Kept:
    """Variables in a dictionary; ``hang`` holds every call until it is set free."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.gets = self.sets = 0
        self.free = threading.Event()
        self.free.set()

    def get(self, key: str) -> str | None:
        self.gets += 1
        self.free.wait(10)
        return self.texts.get(key)

    def set(self, key: str, value: str, description: str) -> None:
        self.sets += 1
        self.free.wait(10)
        assert description
        self.texts[key] = value


@pytest.fixture
def kept():
    variables = Kept()
    yield variables
    variables.free.set()


@pytest.fixture
def store(kept):
    return VariableStore(variables=kept, now=lambda: NOW, patience=0.2)


def test_what_is_written_is_read(store, kept):
    """A fresh worker gets what another one has seen."""
    assert store.read(NAME) is None
    assert store.write(RECORD)
    assert store.read(NAME) == RECORD
    assert json.loads(kept.texts[KEY])["addresses"] == ["10.0.0.1"]


def test_fields_that_are_dropped_are_named_in_the_log(store, kept, caplog):
    """Once: the text that is stored then has them no more."""
    added = {"note": "é" * 12_000, "owner\n": "ml", "services": []}
    before = json.loads(render_record(RECORD)) | added
    kept.texts[KEY] = json.dumps(before, ensure_ascii=False)
    for later in (10, 20):
        assert store.write(replace(RECORD, addresses=(f"10.0.0.{later}",), resolved_at=NOW))
    assert [record.getMessage() for record in caplog.records] == [
        f"Variable {KEY} would have become too long to read: the fields that were added to it are "
        "dropped (note, owner?)"
    ]


@pytest.mark.parametrize("text", [None, "{", '{"version": 1}'])
def test_a_text_without_added_fields_loses_none(text):
    """Also where there was no text, or none that can be read."""
    assert dropped_fields(text, render_record(RECORD)) == []


def test_an_older_answer_does_not_replace_a_newer(store):
    """The newer one wins, in whichever order they are written."""
    store.write(RECORD)
    store.write(replace(RECORD, addresses=("10.0.0.2",), resolved_at=NOW - 500))
    assert store.read(NAME) == RECORD


def test_nothing_is_written_when_nothing_is_new(store, kept):
    """A write costs an API call each."""
    store.write(RECORD)
    assert store.write(RECORD)
    assert store.write(replace(RECORD, written_by="gate"))
    assert kept.sets == 1


def test_a_name_that_is_gone_keeps_its_first_stamp(store):
    """The fleet has one clock for rule 7."""
    store.write(replace(RECORD, no_name_since=NOW - 50))
    store.write(replace(RECORD, no_name_since=NOW - 10))
    assert store.read(NAME).no_name_since == NOW - 50
    store.write(replace(RECORD, resolved_at=RECORD.resolved_at + 0.7))  # written late
    assert store.read(NAME).no_name_since == NOW - 50
    store.write(replace(RECORD, resolved_at=NOW))
    assert store.read(NAME).no_name_since is None


class TestBrokenContent:
    """A Variable that was edited into nonsense is reported, ignored, and kept."""

    def test_is_reported_once(self, store, kept, caplog):
        """One line says which Variable, what is wrong and what to do; the next reads are silent."""
        kept.texts[KEY] = "{broken"
        with caplog.at_level(logging.WARNING):
            assert [store.read(NAME) for _ in range(3)] == [None] * 3
        (line,) = caplog.messages
        assert KEY in line
        assert "not valid JSON" in line
        assert "refresh DAG" in line

    def test_is_reported_again_when_it_is_broken_in_another_way(self, store, kept, caplog):
        """The admin who corrects it sees the effect."""
        kept.texts[KEY] = "{broken"
        store.read(NAME)
        kept.texts[KEY] = "[]"
        store.read(NAME)
        assert len(caplog.messages) == 2

    @pytest.mark.parametrize("written_by", ["hook", "gate"])
    def test_is_not_overwritten_in_passing(self, store, kept, written_by):
        """A hook or gate that happens to resolve the name leaves it to people."""
        kept.texts[KEY] = "{broken"
        assert not store.write(replace(RECORD, written_by=written_by))
        assert kept.texts == {KEY: "{broken"}

    def test_is_repaired_by_a_refresh_and_put_aside(self, store, kept, caplog):
        """A refresh on request repairs it; the text that was typed is kept."""
        kept.texts[KEY] = "{broken"
        assert store.write(replace(RECORD, written_by="refresh"))
        assert store.read(NAME).addresses == ("10.0.0.1",)
        assert kept.texts[f"{KEY}_unreadable"] == "{broken"
        assert f"{KEY}_unreadable" in caplog.text

    @pytest.mark.parametrize("changed", [{"version": 3}, {"hostname": "other.local"}])
    def test_of_another_version_or_name_is_never_overwritten(self, store, kept, changed):
        """It may hold more than this version understands, or belong to another program."""
        store.write(RECORD)
        text = json.dumps({**json.loads(kept.texts[KEY]), **changed})
        kept.texts[KEY] = text
        assert not store.write(replace(RECORD, written_by="refresh", resolved_at=NOW))
        assert kept.texts[KEY] == text

    def test_of_a_later_version_is_passed_over_with_one_line(self, store, kept, caplog):
        """Read again and again while several versions run, and written back by the later one."""
        store.write(RECORD)
        known = kept.texts[KEY]
        kept.texts[KEY] = json.dumps({**json.loads(known), "version": 3, "more": [1]})
        assert [store.read(NAME) for _ in range(3)] == [None] * 3
        (line,) = caplog.messages
        assert "version" in line
        assert KEY in line
        kept.texts[KEY] = known
        assert store.read(NAME) == RECORD

    def test_with_a_stamp_from_the_future_is_replaced_by_anybody(self, store):
        """Policy rule 16."""
        assert VariableStore(variables=store._variables, now=lambda: NOW + 9999).write(
            replace(RECORD, resolved_at=NOW + 9000)
        )
        assert store.read(NAME) is None
        assert store.write(RECORD)
        assert store.read(NAME) == RECORD


class TestAnAPIServerThatDoesNotAnswer:
    """It costs a bounded time, once, and nothing is written on a guess."""

    def test_bounds_a_read_and_a_write(self, store, kept):
        """Both come back in time, with nothing."""
        kept.free.clear()
        started = time.monotonic()
        with pytest.raises(StoreOverdue):
            store.read(NAME)
        assert store.examine(NAME) == (None, None, False)
        assert not store.write(RECORD)
        assert time.monotonic() - started < 8

    def test_is_asked_by_one_call_at_a_time(self, store, kept):
        """While a call is overdue it holds the line, and no other is put behind it."""
        kept.free.clear()
        for _ in range(20):
            store.examine(NAME)
            store.write(RECORD)
        assert (kept.gets, kept.sets) == (1, 0)

    def test_is_reported_once(self, store, kept, caplog):
        """One line, and not one per name and attempt."""
        kept.free.clear()
        for name in ("a.local", "b.local", "c.local"):
            store.examine(name)
        assert len(caplog.messages) == 1
        assert "does not answer" in caplog.text
        assert "[secrets] backend" in caplog.text, "a worker asks that itself"

    def test_that_does_so_again_is_reported_again_whatever_the_variable_holds(
        self, store, kept, caplog
    ):
        """It answered in between, if with a text that is broken: that is a line of its own."""
        kept.texts[KEY] = "{"
        for lines in (1, 2):
            kept.free.clear()
            store.examine(NAME)
            kept.free.set()
            assert wait_until(lambda: store.examine(NAME)[1], 5)
            assert caplog.text.count("does not answer") == lines

    def test_is_asked_again_when_the_call_came_back(self, store, kept):
        """The line is free again."""
        store.write(RECORD)
        kept.free.clear()
        assert store.examine(NAME) == (None, None, False)
        kept.free.set()
        assert wait_until(lambda: store.examine(NAME)[0], 5) == RECORD
        assert store.read(NAME) == RECORD

    def test_gives_its_late_answer_to_the_next_read_of_the_same_variable_and_to_no_write(
        self, store, kept
    ):
        """Reads of an API server that is always slow would never succeed otherwise."""
        store.write(RECORD)
        newer = replace(RECORD, resolved_at=NOW - 50)
        for ask, gets in ((store.read, 1), (store.examine, 1), (lambda _: store.write(newer), 2)):
            kept.gets = 0
            kept.free.clear()
            store.examine(NAME)
            kept.free.set()
            wait_until(lambda: store._bounded._overdue.future.done(), 5)
            assert ask(NAME)
            assert kept.gets == gets

    def test_of_which_a_late_answer_is_too_old_is_asked_again(self, store, kept, monkeypatch):
        """The Variable may have been changed since."""
        kept.free.clear()
        store.examine(NAME)
        kept.free.set()
        wait_until(lambda: store._bounded._overdue.future.done(), 5)
        monkeypatch.setattr(bounded_calls, "_KEPT", 0.0)
        store.read(NAME)
        assert kept.gets == 2

    def test_forbids_the_write_that_would_have_followed_the_read(self, store, kept):
        """Not known is not the same as not there: what is stored may be newer."""
        store.write(replace(RECORD, resolved_at=NOW))
        kept.free.clear()
        assert not store.write(replace(RECORD, addresses=("10.9.9.9",)))
        kept.free.set()
        time.sleep(0.05)
        assert kept.sets == 1

    def test_serves_several_threads_that_are_not_stuck(self, store, kept):
        """Callers at the same time wait for each other, and all get an answer."""
        store.write(RECORD)
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(store.read(NAME))) for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [RECORD] * 20


class TestWhatElseIsSent:
    """Another call on the same connection, which must neither delay nor fail the task."""

    def test_comes_through(self, store):
        """On a good day, before the caller goes on."""
        sent = []
        assert store.call_in_time("The link", lambda: sent.append(1))
        assert sent == [1]

    def test_costs_a_bounded_time_together_with_the_variables(self, store, kept, caplog):
        """While a Variable is overdue, nothing is put behind it."""
        kept.free.clear()
        started = time.monotonic()
        store.examine(NAME)
        sent = []
        assert not store.call_in_time("The link", lambda: sent.append(1))
        assert time.monotonic() - started < 8
        assert not sent
        assert "The link was not sent" in caplog.text

    def test_that_fails_fails_nobody(self, store, caplog):
        """The log names the kind of trouble, and no details."""

        def fail() -> None:
            raise PermissionError("token=hunter2")

        assert not store.call_in_time("The link", fail)
        assert "PermissionError" in caplog.text
        assert "hunter2" not in caplog.text


def test_a_broken_variable_is_told_once_per_breakage(store, kept, caplog):
    """A hundred reads give one line; broken again after it was repaired, one more."""
    for lines in (1, 2):
        kept.texts[KEY] = "{"
        for _ in range(100):
            record, problem, _ = store.examine(NAME)
        assert record is None
        assert KEY in problem
        assert len(caplog.messages) == lines
        kept.texts[KEY] = render_record(RECORD)
        assert store.examine(NAME) == (RECORD, None, True)


def test_errors_of_the_backend_are_passed_over(kept, caplog):
    """Whatever Airflow raises, the resolver goes on; and the log says so once, without details."""

    class Raising(Kept):
        def get(self, key: str) -> str | None:
            raise PermissionError("token=hunter2")

    store = VariableStore(variables=Raising(), now=lambda: NOW)
    for _ in range(2):
        with pytest.raises(StoreUnreadableError):
            store.read(NAME)
    assert not store.write(RECORD)
    assert "hunter2" not in caplog.text
    assert "PermissionError" in caplog.text


@pytest.mark.parametrize("variables", ["SdkVariables", "MetastoreVariables"])
def test_a_variable_of_a_database_that_is_away_is_not_known(variables, tmp_path):
    """Airflow reports it as missing; so two reads of the policy Variable would undo the policy."""
    code = (
        f"from {VariableStore.__module__} import *;"
        f"store = VariableStore(variables={variables}(), patience=60);"
        f"print(store.examine('{NAME}').was_read, store.history('{NAME}')[1])"
    )
    away = {
        "_AIRFLOW_PROCESS_CONTEXT": "server",
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/none/airflow.db",
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | away, capture_output=True, text=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(("True", "False"))]
    assert line.startswith("False The Variable ")
    assert line.endswith("could not be read just now: try again in a moment.")


def test_a_forked_child_leaves_the_connection_to_the_supervisor_to_its_parent(monkeypatch):
    """An answer that a child reads is missed by the parent, whose next XCom would wait forever."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import CommsDecoder

    ours, supervisors = socket.socketpair()
    with ours, supervisors:
        monkeypatch.setattr(
            task_runner, "SUPERVISOR_COMMS", CommsDecoder(socket=ours), raising=False
        )
        store = VariableStore(now=lambda: NOW, patience=0.2)
        child = os.fork()
        if not child:
            quiet = not store.examine(NAME).was_read and not store.write(RECORD)
            quiet = quiet and not store.call_in_time("The link", lambda: ours.send(b"link"))
            os._exit(0 if quiet else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        supervisors.setblocking(False)
        with pytest.raises(BlockingIOError):
            supervisors.recv(1)
        store.examine(NAME)
        assert supervisors.recv(1)


def test_a_child_that_is_forked_while_a_variable_is_read_can_ask_airflow(monkeypatch):
    """The thread that holds the connection's lock does not exist there, so it must be free."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import CommsDecoder

    ours, supervisors = socket.socketpair()
    with ours, supervisors:
        comms = CommsDecoder(socket=ours)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
        VariableStore(now=lambda: NOW, patience=0.2).examine(NAME)  # which is not answered
        assert comms._thread_lock.locked()
        child = os.fork()
        if not child:
            os._exit(int(comms._thread_lock.locked()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert comms._thread_lock.locked()


@pytest.mark.parametrize("answers", [True, False])
def test_a_process_that_shares_the_connection_of_its_task_leaves_no_answer_in_it(answers):
    """``@task.external_python`` shares it: the task would read what is left as its own answer.

    If none comes, the process ends after a while.
    """
    script = """
import socket, sys
from airflow.sdk import Variable
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import CommsDecoder
from airflow_provider_hokusai_dns.store import variable_store
variable_store.LOST = float(sys.argv[2])
connection = CommsDecoder(socket=socket.socket(fileno=int(sys.argv[1])))
task_runner.SUPERVISOR_COMMS = connection
variable_store.VariableStore(patience=0.5).examine("mlflow.local")
print("the end", flush=True)
"""
    import msgspec
    from airflow.sdk.execution_time.comms import _ResponseFrame

    of_task, supervisors = socket.socketpair()

    def supervise() -> None:
        while head := supervisors.recv(4, socket.MSG_WAITALL):
            size = int.from_bytes(head, "big")
            asked = msgspec.msgpack.decode(supervisors.recv(size, socket.MSG_WAITALL))
            supervisors.sendall(_ResponseFrame(id=asked[0]).as_bytes())

    supervisor = threading.Thread(target=supervise)
    with (
        of_task,
        supervisors,
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script, str(of_task.fileno()),
             "60" if answers else "1.5"],
            pass_fds=[of_task.fileno()], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as child,
    ):  # fmt: skip
        try:
            assert child.stdout is not None
            wait_until(lambda: b"the end" in child.stdout.readline(), 60)
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.5)
            if answers:
                supervisor.start()
            rest, log = child.communicate(timeout=60)
            assert child.returncode == 0
            assert (b"ends before Airflow has answered" in rest + log) is not answers
            of_task.setblocking(False)
            with pytest.raises(BlockingIOError):
                of_task.recv(1)
        finally:
            child.kill()
            supervisors.shutdown(socket.SHUT_RDWR)
            if answers:
                supervisor.join()


class TestAirflowItself:
    """The Variables of Airflow, as far as a process without a task has them."""

    def test_gives_a_variable_of_the_environment(self, monkeypatch):
        """An admin can pin the last known good by the environment."""
        # The first read imports Airflow's SDK, which may take longer than a read.
        store = VariableStore(now=lambda: NOW, variables=SdkVariables(), patience=60)
        assert store.read(NAME) is None
        kept = Kept()
        VariableStore(variables=kept, now=lambda: NOW).write(RECORD)
        monkeypatch.setenv(f"AIRFLOW_VAR_{KEY.upper()}", kept.texts[KEY])
        assert store.read(NAME) == RECORD

    def test_cannot_be_written_without_a_task_and_says_nothing_about_it(self, caplog):
        """In the API server a write is impossible by design: no reason to fill its log."""
        with caplog.at_level(logging.INFO):
            assert not VariableStore(now=lambda: NOW, patience=60).write(RECORD)
        assert "hokusai" not in caplog.text

"""Why there is no connection: what Airflow says, and what it leaves open."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import traceback
from types import SimpleNamespace

import pytest

from airflow_provider_hokusai_dns import runtime, supervisor
from airflow_provider_hokusai_dns.config import connections, missing
from airflow_provider_hokusai_dns.config.missing import Reason
from airflow_provider_hokusai_dns.exceptions import ConnectionMissingError
from airflow_provider_hokusai_dns.gates import decision
from airflow_provider_hokusai_dns.gates.check import check_connection
from airflow_provider_hokusai_dns.gates.decision import DEFAULT_FAIL_FAST, STRIKES, Strikes

RUNNER = "airflow.sdk.execution_time.task_runner"


class Supervisor:
    """A task's line to its supervisor, which answers as a test wants."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def send(self, question):
        self.asked.append(question.conn_id)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def asend(self, question):
        return self.send(question)


@pytest.fixture
def line(monkeypatch):
    """Put a line to a supervisor where Airflow keeps it."""

    def put(answer):
        supervisor = Supervisor(answer)
        monkeypatch.setitem(sys.modules, RUNNER, SimpleNamespace(SUPERVISOR_COMMS=supervisor))
        return supervisor

    return put


def says(error):
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    return ErrorResponse(error=ErrorType(error))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("CONNECTION_NOT_FOUND", Reason.UNDEFINED),
        ("API_SERVER_ERROR", Reason.UNKNOWN),
        ("GENERIC_ERROR", Reason.UNKNOWN),
        (ConnectionError("away"), Reason.UNKNOWN),
        (None, Reason.UNKNOWN),
    ],
)
def test_only_a_clear_word_of_the_api_server_counts(line, answer, reason):
    """In a task and in a trigger; an API server that is away says nothing about a connection."""
    supervisor = line(says(answer) if isinstance(answer, str) else answer)
    assert missing.why("ml") is reason
    assert asyncio.run(missing.why_async("ml")) is reason
    assert supervisor.asked == ["ml", "ml"]


@pytest.mark.parametrize(
    "option", ["AIRFLOW__SECRETS__BACKEND", "AIRFLOW__WORKERS__SECRETS_BACKEND"]
)
def test_where_a_secrets_backend_may_have_failed_nothing_is_clear(line, monkeypatch, option):
    """Airflow passes over its errors, and calls the connection undefined."""
    line(says("CONNECTION_NOT_FOUND"))
    monkeypatch.setenv(option, "some.Vault")
    assert missing.why("ml") is Reason.UNKNOWN
    assert asyncio.run(missing.why_async("ml")) is Reason.UNKNOWN


def test_a_process_without_a_supervisor_knows_nothing():
    """Plain Python, which reads the environment alone."""
    assert missing.why("ml") is Reason.UNKNOWN
    assert asyncio.run(missing.why_async("ml")) is Reason.UNKNOWN


def test_a_forked_child_reads_no_connection_through_that_of_its_parent(connect, monkeypatch):
    """Of four children at once, one got the connection of another, one none, and two hung."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import CommsDecoder

    def in_a_child() -> None:
        with pytest.raises(ConnectionMissingError, match="A forked child cannot read one"):
            connections.load_server("ml")
        connect("ml", host="of-the-environment.local", password="hunter2-password")
        server = connections.load_server("ml")
        runtime.mask_credentials(server)
        assert server.hostname == "of-the-environment.local"
        assert supervisor.connection() is comms
        with supervisor.withheld_from_child(), supervisor.withheld_from_child():
            assert supervisor.belongs_to_parent()
            assert supervisor.connection() is not comms
        assert supervisor.connection() is comms

    ours, supervisors = socket.socketpair()
    with ours, supervisors:
        comms = CommsDecoder(socket=ours)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
        if not (child := os.fork()):
            signal.alarm(20)  # a question is not answered
            try:
                in_a_child()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        supervisors.setblocking(False)
        with pytest.raises(BlockingIOError):
            supervisors.recv(1)


def test_a_misspelt_id_comes_with_the_one_that_was_meant(connect):
    """Of those that this process can see."""
    connect("mlflow_production", host="mlflow.local")
    with pytest.raises(ConnectionMissingError, match=r"Did you mean 'mlflow_production'\?"):
        connections.load_server("mlflow_prodution")
    with pytest.raises(ConnectionMissingError) as caught:
        connections.load_server("quite_another")
    assert "Did you mean" not in str(caught.value)


def test_a_listed_connection_is_a_suggestion_too(monkeypatch):
    """[hokusai_dns] connections names those of the fleet."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CONNECTIONS", "ml_team_a, ml_team_b")
    with pytest.raises(ConnectionMissingError, match=r"Did you mean 'ml_team_a'\?"):
        connections.load_server("ml_taem_a")


def test_a_gate_gives_up_on_an_undefined_connection_and_waits_for_a_missing_one(line):
    """After three checks in a row; where an author names "missing", both count."""
    line(says("CONNECTION_NOT_FOUND"))
    undefined = check_connection("nowhere_at_all").verdict
    line(says("API_SERVER_ERROR"))
    unclear = check_connection("nowhere_at_all").verdict
    assert (undefined.cause, unclear.cause) == (decision.UNDEFINED, decision.MISSING)
    assert undefined.sentence.startswith("There is no connection 'nowhere_at_all'. ")
    assert unclear.sentence.startswith("Airflow returned no connection 'nowhere_at_all'. ")
    assert "If it exists, Airflow cannot read it right now: check its API" in unclear.sentence
    assert "poke mode" in unclear.sentence
    for verdict, fatal, out in (
        (undefined, DEFAULT_FAIL_FAST, True),
        (unclear, DEFAULT_FAIL_FAST, False),
        (undefined, ("missing",), True),
        (unclear, ("missing",), True),
        (undefined, (), False),
        (undefined, ("config",), False),
    ):
        strikes = Strikes()
        for _ in range(STRIKES):
            strikes = strikes.after(verdict, fatal)
        assert strikes.out is out


@pytest.mark.parametrize("text", ["{bad", "mlflow://h:99999", '{"conn_type": "mlflow", "hots": 1}'])
def test_a_variable_that_airflow_cannot_read_is_what_is_wrong(monkeypatch, line, text):
    """Not the id, of which it suggested a similar one, nor Airflow's API server or database."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_ONE", "mlflow://mlflow.local")
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TWO", text)
    line(says("API_SERVER_ERROR"))
    sentence = check_connection("mlflow_two").verdict.sentence
    assert "AIRFLOW_CONN_MLFLOW_TWO is set, but Airflow cannot read it: check its" in sentence
    assert "Did you mean" not in sentence
    assert "If it exists" not in sentence


@pytest.mark.parametrize("conn_id", [None, 5, "", " "])
def test_what_is_no_id_of_a_connection_is_refused_in_words(conn_id):
    """By the hook, by a check of a gate and in the triggerer."""
    import asyncio

    from airflow_provider_hokusai_dns.config import connections
    from airflow_provider_hokusai_dns.exceptions import SettingError
    from airflow_provider_hokusai_dns.hooks.mlflow import MLflowHook

    said = f"connection id: the id of a connection must be a string .*, not {conn_id!r}"
    with pytest.raises(SettingError, match=said):
        _ = MLflowHook(conn_id).server
    with pytest.raises(SettingError, match=said):
        asyncio.run(connections.aload_server(conn_id))
    verdict = MLflowHook(conn_id).check()
    assert (verdict.state, verdict.cause) == ("config", "connection")

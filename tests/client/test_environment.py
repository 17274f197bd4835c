"""What MLflow's client has once per process, claimed and given back."""

from __future__ import annotations

import logging
import os
import pickle
import threading
from pathlib import Path

import pytest

from airflow_provider_hokusai_dns.client.deadlines import HTTPSettings, patience
from airflow_provider_hokusai_dns.client.environment import (
    claim,
    fluent_uri,
    tls_variables,
    without_us,
)
from airflow_provider_hokusai_dns.exceptions import EnvironmentConflictError, NotSignedInError
from tests.values import a_server

TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
CA_FILE = "MLFLOW_TRACKING_SERVER_CERT_PATH"
INSECURE = "MLFLOW_TRACKING_INSECURE_TLS"


def urllib3_waits(settings: HTTPSettings) -> float:
    """What urllib3 itself sleeps between the tries."""
    from urllib3.util import Retry

    retry = Retry(total=settings.retries, backoff_factor=settings.backoff, backoff_jitter=0.0)
    total = 0.0
    for _ in range(settings.retries):
        retry = retry.increment("POST", "/", error=None, response=None, _pool=None)
        total += retry.get_backoff_time()
    return total


@pytest.mark.parametrize("seconds", [1, 5, 10, 30, 60, 120, 600, 3600])
@pytest.mark.parametrize("retries", [None, 0, 3])
def test_the_worst_case_of_mlflow_s_client_stays_inside_the_deadline(
    seconds: float, retries: int | None
) -> None:
    """Time-out and retries are chosen together, so that they do not multiply beyond it."""
    settings = HTTPSettings.within(seconds, retries)
    if retries is None or seconds >= 30:
        assert settings.worst_case <= seconds
    assert settings.worst_case >= urllib3_waits(settings) + settings.timeout
    assert settings.timeout >= 1
    assert 0 <= settings.retries <= 10


def test_inside_a_run_a_server_that_starts_is_waited_for() -> None:
    """A redeploy answers 503 for a minute and a half."""
    assert urllib3_waits(HTTPSettings.within(600)) >= 90


@pytest.mark.parametrize("max_retries", [None, 0, 5])
def test_waiting_for_an_address_and_between_tries_fits_the_deadline(
    max_retries: int | None,
) -> None:
    """A pin waits at the first try; then each further one fails at once, after its back-off."""
    server = a_server(max_retries=max_retries)
    for in_run, seconds in ((False, server.request_timeout), (True, server.deadline)):
        settings = HTTPSettings.within(seconds, max_retries)
        whole = patience(server, in_run=in_run) + urllib3_waits(settings)
        assert seconds * 0.9 - settings.retries <= whole <= seconds


def test_the_author_s_number_of_retries_is_kept() -> None:
    """And the time-out made to fit."""
    assert HTTPSettings.within(30, 5).retries == 5
    assert HTTPSettings.within(30, 5).worst_case <= 30
    assert HTTPSettings.within(600, 99).retries == 10


def test_a_claim_sets_the_variables_and_gives_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before is there after."""
    monkeypatch.setenv(TIMEOUT, "77")
    with claim(a_server(), in_run=True):
        assert os.environ[TIMEOUT] == str(HTTPSettings.within(600).timeout)
        assert os.environ["MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER"] == "false"
    assert os.environ[TIMEOUT] == "77"
    assert RETRIES not in os.environ


def test_what_somebody_else_sets_meanwhile_is_left_alone() -> None:
    """It is no longer ours."""
    with claim(a_server()):
        os.environ[TIMEOUT] = "5"
    assert os.environ[TIMEOUT] == "5"


def test_a_run_holds_over_calls_outside_of_runs() -> None:
    """A client of the same connection, taken before, must not make the run impatient."""
    call, run = HTTPSettings.within(30), HTTPSettings.within(600)
    with claim(a_server()):
        assert os.environ[RETRIES] == str(call.retries)
        with claim(a_server(), in_run=True):
            assert os.environ[RETRIES] == str(run.retries)
        assert os.environ[RETRIES] == str(call.retries)


def test_the_strictest_of_two_connections_holds_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One process has one set of time-outs."""
    with claim(a_server(conn_id="patient"), in_run=True):
        with claim(a_server(conn_id="hasty", deadline=20.0), in_run=True):
            assert os.environ[TIMEOUT] == str(HTTPSettings.within(20).timeout)
        assert os.environ[TIMEOUT] == str(HTTPSettings.within(600).timeout)
    assert "'hasty'" in caplog.text
    assert "'patient'" in caplog.text


def test_claims_of_one_connection_do_not_pile_up() -> None:
    """A hook asks for a client many times, and a changed connection is used at once."""
    first = claim(a_server())
    second = claim(a_server(request_timeout=60.0))
    assert os.environ[TIMEOUT] == str(HTTPSettings.within(60).timeout)
    first.release()
    assert TIMEOUT in os.environ
    second.release()
    second.release()
    assert TIMEOUT not in os.environ


def test_tls_settings_are_paths_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """MLflow has no other door for them; over plain http there are none."""
    monkeypatch.setenv(INSECURE, "true")
    ca = str(tmp_path / "ca.pem")
    with claim(a_server(scheme="https", ca_file=ca, client_cert="/client.pem")):
        assert os.environ[CA_FILE] == ca
        assert os.environ["MLFLOW_TRACKING_CLIENT_CERT_PATH"] == "/client.pem"
        assert INSECURE not in os.environ
    assert os.environ[INSECURE] == "true"
    assert tls_variables(a_server(ca_file=ca)) == {}
    with claim(a_server(scheme="https", verify=False)):
        assert (os.environ[INSECURE], os.environ.get(CA_FILE)) == ("true", None)


def test_a_ca_file_of_the_machine_stays_where_the_connection_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was set by somebody who knows the machine."""
    monkeypatch.setenv(CA_FILE, "/etc/company.pem")
    with claim(a_server(scheme="https")):
        assert os.environ[CA_FILE] == "/etc/company.pem"


def test_two_connections_with_different_tls_are_refused_aloud() -> None:
    """One of them would fail, or be insecure without anybody having said so."""
    with claim(a_server(conn_id="a", scheme="https", ca_file="/a.pem")):
        with claim(a_server(conn_id="b")), claim(a_server(conn_id="d")):
            pass
        with claim(a_server(conn_id="c", scheme="https", ca_file="/a.pem")):
            pass
        for other in ({"ca_file": "/b.pem"}, {"verify": False}, {}):
            with pytest.raises(EnvironmentConflictError, match=r"'b' and 'a'.*CERT_PATH"):
                claim(a_server(conn_id="b", scheme="https", **other))
        assert os.environ[CA_FILE] == "/a.pem"


def test_the_fluent_api_is_set_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the length of a block, environment included."""
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://earlier.test")
    assert mlflow.get_tracking_uri() == "http://earlier.test"
    with fluent_uri("c", "http://c@mlflow.test"):
        assert mlflow.get_tracking_uri() == "http://c@mlflow.test"
        assert mlflow.get_registry_uri() == "http://c@mlflow.test"
        with fluent_uri("c", "http://c@mlflow.test"):
            pass
        assert mlflow.get_tracking_uri() == "http://c@mlflow.test"
    assert mlflow.get_tracking_uri() == "http://earlier.test"
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://earlier.test"
    assert "MLFLOW_REGISTRY_URI" not in os.environ


def test_a_second_server_at_the_same_time_is_refused() -> None:
    """Both threads would write to the second."""
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with fluent_uri("a", "http://a@one.test"):
            entered.set()
            leave.wait(5)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert entered.wait(5)
        with (
            pytest.raises(EnvironmentConflictError, match="'b' and 'a'"),
            fluent_uri("b", "http://b@two.test"),
        ):
            pytest.fail("not reached")
    finally:
        leave.set()
        thread.join()


def test_no_warning_for_equal_settings(caplog: pytest.LogCaptureFixture) -> None:
    """Two connections with the default deadlines are nothing to talk about."""
    caplog.set_level(logging.WARNING)
    with claim(a_server(conn_id="a")), claim(a_server(conn_id="b")):
        pass
    assert caplog.text == ""


@pytest.mark.parametrize(
    "error",
    [
        EnvironmentConflictError("the tracking URI", ("a", "b"), "Use one."),
        NotSignedInError("a"),
    ],
)
def test_errors_come_out_of_another_process_whole(error: Exception) -> None:
    """As a pool of processes passes them on."""
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_what_we_have_set_is_told_from_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that are read inside a run are those of the machine, or what the author has set."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://main.test:5000")
    monkeypatch.setenv(CA_FILE, "/machine.pem")
    server = a_server(scheme="https", ca_file="/team_b.pem")
    with claim(server, in_run=True), fluent_uri("team_b", "https://team_b@b.test"):
        assert os.environ["MLFLOW_TRACKING_URI"] == "https://team_b@b.test"
        assert without_us("MLFLOW_TRACKING_URI") == "http://main.test:5000"
        assert (os.environ[CA_FILE], without_us(CA_FILE)) == ("/team_b.pem", "/machine.pem")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://the-author.test")
        assert without_us("MLFLOW_TRACKING_URI") == "http://the-author.test"
    assert without_us("MLFLOW_TRACKING_URI") == "http://main.test:5000"
    assert without_us("NOBODY_HAS_SET_THIS") is None

"""What the API server shows, and how little it can be made to do."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from airflow_provider_hokusai_dns.gates.check import check_connection
from airflow_provider_hokusai_dns.plugins.health_cache import HealthCache
from airflow_provider_hokusai_dns.resolver import LastKnownGood
from airflow_provider_hokusai_dns.store.record import render_record, variable_key
from tests.conftest import HOSTNAME, SEARCH


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(monkeypatch):
    """Put a record into the Variable of the name."""

    def put(**given):
        record = LastKnownGood(HOSTNAME, ("10.0.0.1",), time.time() - 60, **given)
        variable = f"AIRFLOW_VAR_{variable_key(HOSTNAME).upper()}"
        monkeypatch.setenv(variable, render_record(record))

    return put


class TestTheWords:
    """Without a login: no names, no addresses, no work."""

    def test_never_probe_and_never_ask_dns(self, usable, dns, tiny, clock):
        """Every client that reaches the port may ask as often as it likes."""
        cache = HealthCache(now=clock, patience=30.0)
        for clock.now in range(0, 600, 20):
            assert cache.words() == {"overall": "unknown", "dns": "unknown", "mlflow": "unknown"}
        assert not tiny.asked
        assert not dns.queries

    def test_tell_what_the_fleet_wrote_down(self, usable, store, clock):
        """Fresh, away for a while, away for too long."""
        cache = HealthCache(now=clock, patience=30.0)
        for clock.now, since, word in [
            (0, None, "healthy"),
            (100, time.time() - 30, "degraded"),
            (200, time.time() - 901, "unhealthy"),
        ]:
            store_at = {"no_name_since": since}
            record = LastKnownGood(HOSTNAME, ("10.0.0.1",), time.time() - 2000, **store_at)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(f"AIRFLOW_VAR_{variable_key(HOSTNAME).upper()}", render_record(record))
                assert cache.words()["dns"] == word

    def test_tell_the_verdict_of_the_last_check(self, usable, store, clock):
        """After a user who may has asked for the details."""
        store()
        cache = HealthCache(now=clock, patience=30.0)
        cache.connections()
        assert cache.words() == {"overall": "healthy", "dns": "healthy", "mlflow": "healthy"}

    def test_are_unknown_where_the_list_of_connections_is_broken(self, monkeypatch, clock, caplog):
        """The process serves all the same; the log says what to correct, once."""
        monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CONNECTIONS", "[broken")
        cache = HealthCache(now=clock, patience=30.0)
        for _ in range(2):
            assert cache.words() == {"overall": "unknown", "dns": "unknown", "mlflow": "unknown"}
        assert len(caplog.messages) == 1


class TestTheDetails:
    """For those who may view plugins."""

    def test_name_address_age_and_verdict(self, usable, store, tiny, clock):
        """Of each listed connection."""
        store(written_by="refresh")
        one = HealthCache(now=clock, patience=30.0).connections()[0].status_row()
        assert one["conn_id"] == "mlflow_default"
        assert one["last_known_good"]["addresses"] == ["10.0.0.1"]
        assert 59 <= one["last_known_good"]["age"] <= 65
        assert (one["mlflow"], one["verdict"]["address"]) == ("healthy", tiny.address)

    def test_ask_mlflow_once_per_interval(self, usable, tiny, clock):
        """A page that is reloaded all the time costs one probe in 15 s."""
        cache = HealthCache(now=clock, patience=30.0)
        for _ in range(50):
            cache.connections()
        assert tiny.count(SEARCH) == 1
        clock.now = 20
        cache.connections()
        assert tiny.count(SEARCH) == 2

    def test_are_given_at_once_while_somebody_checks(self, usable, clock):
        """A check may take 20 s; it must not hold more than one thread of the server."""
        checking, go_on = threading.Event(), threading.Event()

        def check(conn_id):
            checking.set()
            go_on.wait(10)
            return check_connection(conn_id)

        cache = HealthCache(check=check, now=clock, patience=30.0)
        first = threading.Thread(target=cache.connections)
        first.start()
        checking.wait(10)
        assert cache.connections()[0].mlflow == "unknown"
        go_on.set()
        first.join()
        assert cache.connections()[0].mlflow == "healthy"

    def test_say_what_is_wrong_with_a_connection(self, connect, clock, clean_runtime):
        """And the endpoint answers all the same."""
        connect(host="ml flow.local")
        one = HealthCache(now=clock, patience=30.0).connections()[0].status_row()
        assert (one["dns"], one["mlflow"]) == ("unknown", "unhealthy")
        assert "ml flow.local" in one["verdict"]["sentence"]


def test_the_plugin_is_light():
    """Scheduler, DAG processor and triggerer import it too."""
    code = (
        "import airflow.sdk, airflow.providers.common.compat.sdk, sys\n"
        "from airflow.providers.common.compat.sdk import AirflowPlugin\n"
        "before = set(sys.modules)\n"
        "from airflow_provider_hokusai_dns.plugins.hokusai_dns import HokusaiDNSPlugin\n"
        "HokusaiDNSPlugin()\n"
        "new = set(sys.modules) - before\n"
        "print([name for name in new if not name.startswith('airflow_provider_hokusai_dns')],"
        " 'airflow_provider_hokusai_dns.gates.check' in new)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[] False"

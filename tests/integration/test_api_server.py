"""The endpoints and the connection form in Airflow's own API server, with its own authorization."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import quantiles

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from airflow_provider_hokusai_dns.config.fields import EXTRAS
from airflow_provider_hokusai_dns.resolver import LastKnownGood
from airflow_provider_hokusai_dns.store.history import (
    HistoryPoint,
    history_key,
    render_history,
    shown_name,
)
from airflow_provider_hokusai_dns.store.record import iso_seconds, render_record, variable_key
from tests.conftest import HOSTNAME, TinyMLflow
from tests.integration.conftest import LOOK_EVERY
from tests.servers import Stranger, wait_until

SECRET = "hunter2-password"
ADDRESS = "127.0.0.9"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def tiny():
    with TinyMLflow(ADDRESS) as server:
        yield server


def keep_record(api_server, names, record):
    """As a refresh of this connection, which names its nameserver, writes it."""
    asked = (names.address,)
    text = render_record(record, asked=asked)
    api_server.set_variable(variable_key(HOSTNAME, asked=asked), text)


@pytest.fixture(scope="module", autouse=True)
def before_anybody_asked(api_server, names, tiny):
    """A connection and what the fleet knows of it; gives the words before the first check, and how
    often MLflow was asked for them."""
    names.set_records(HOSTNAME, [ADDRESS])
    api_server.connect(host=HOSTNAME, port=tiny.port, login="me", password=SECRET,
                       extra={"nameservers": names.address})  # fmt: skip
    record = LastKnownGood(HOSTNAME, (ADDRESS,), time.time() - 60, written_by="refresh")
    keep_record(api_server, names, record)
    point = HistoryPoint(at=iso_seconds(time.time() - 60), state="resolved", addresses=[ADDRESS],
                         cause=None, lookup_ms=1.0, probe="healthy", probe_ms=2.0)  # fmt: skip
    asked = (names.address,)
    api_server.set_variable(history_key(HOSTNAME, asked), render_history(HOSTNAME, (point,), asked))
    time.sleep(LOOK_EVERY)  # what was read before the connection was there is old then
    return api_server.get("/health").json(), len(tiny.asked)


def test_health_is_for_anybody_and_has_words_only(api_server, before_anybody_asked):
    """No name, no address; as last known, so nothing was probed before the first question.

    The server may be known already from other tests of this worker.
    """
    words, asked = before_anybody_asked
    assert asked == 0
    assert words["dns"] == "healthy"
    assert {words["overall"], words["mlflow"]} <= {"unknown", "healthy", "degraded", "unhealthy"}
    assert api_server.get("/health/mlflow", "viewer").ok
    answer = api_server.get("/health")
    assert answer.json() == {"overall": "healthy", "dns": "healthy", "mlflow": "healthy"}


def test_ready_is_for_anybody_and_has_words_only(api_server):
    """200 while the listed connection can be used."""
    answer = api_server.get("/ready")
    assert (answer.status_code, answer.json()["overall"]) == (200, "healthy")


CLOSED = ("/health/mlflow", "/history", "/metrics", "/openapi.json", "/docs")


@pytest.mark.parametrize("path", CLOSED)
def test_names_and_addresses_are_refused_to_strangers(api_server, path):
    """Routes of a plugin are public unless a dependency guards them."""
    anonymous = api_server.get(path)
    forged = api_server.get(path, headers={"Authorization": "Bearer nonsense"})
    cookie = api_server.get(path, cookies={"_token": "nonsense"})
    assert (anonymous.status_code, forged.status_code) == (401, 403)
    assert cookie.status_code in (401, 403)
    for answer in (anonymous, forged, cookie):
        assert HOSTNAME not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize(
    ("user", "cookie"), [("viewer", False), ("admin", False), ("viewer", True)]
)
def test_are_shown_to_those_who_may_view_plugins(api_server, path, user, cookie):
    """By a token, and by the cookie that the page in the UI has."""
    answer = api_server.get(path, user, cookie=cookie)
    assert answer.status_code == 200
    assert SECRET not in answer.text
    if path in CLOSED[:3]:
        assert HOSTNAME in answer.text


def test_the_details_have_a_check_and_what_the_fleet_wrote(api_server, names):
    """Out of Airflow's database, where task processes put it."""
    body = api_server.get("/health/mlflow", "viewer").json()
    (one,) = body["connections"]
    assert (one["dns"], one["mlflow"], one["addresses"]) == ("healthy", "healthy", [ADDRESS])
    assert one["last_known_good"]["addresses"] == [ADDRESS]
    (point,) = api_server.get("/history", "viewer").json()["names"][
        shown_name(HOSTNAME, (names.address,))
    ]
    assert (point["state"], point["probe_ms"]) == ("resolved", 2.0)
    text = api_server.get("/metrics", "viewer").text
    assert list(text_string_to_metric_families(text))


def test_what_the_api_server_does_is_in_airflows_metrics(api_server, statsd):
    """It takes part like any task: its lookups and its checks arrive at StatsD."""
    api_server.get("/health/mlflow", "viewer")
    wanted = {"airflow.hokusai_dns.lookup", "airflow.hokusai_dns.probe_ms"}
    wait_until(lambda: wanted <= statsd.names, 20, told=lambda: f"{statsd.names}")


def test_an_unknown_connection_is_nowhere_to_be_found(api_server):
    """Neither looked for nor repeated, whatever its form."""
    for conn_id in ("missing", "<b>x</b>", "x" * 20_000, "..%2f..%2fetc"):
        answer = api_server.get("/health/mlflow", "viewer", params={"conn_id": conn_id})
        assert (answer.status_code, len(answer.text) < 200) == (404, True)


def test_a_variable_edited_into_nonsense_is_shown_as_such(api_server, names):
    """By hand, in the UI; everything else goes on."""
    try:
        key = variable_key(HOSTNAME, asked=(names.address,))
        api_server.set_variable(key, '{"version": 1, "hostname": "<script>')

        def with_a_problem():
            (one,) = api_server.get("/health/mlflow", "viewer").json()["connections"]
            return one if one["variable_problem"] else None

        one = wait_until(with_a_problem, 30, pause=0.3)
        assert "not valid JSON" in one["variable_problem"]
        assert (one["last_known_good"], one["mlflow"]) == (None, "healthy")
    finally:
        record = LastKnownGood(HOSTNAME, (ADDRESS,), time.time() - 60, written_by="refresh")
        keep_record(api_server, names, record)


def test_the_form_has_our_connection_type(api_server):
    """Every extra is an own field, with a label and help, and the standard fields have ours."""
    forms = api_server.api("GET", "/ui/connections/hook_meta")
    (ours,) = [form for form in forms if form["connection_type"] == "mlflow"]
    assert ours["hook_name"] == "MLflow"
    fields = ours["extra_fields"]
    assert fields.keys() == EXTRAS.keys()
    assert fields["verify"]["value"] is True
    assert fields["allow_stale_over_http"]["schema"]["enum"] == ["never", "checked", "always"]
    assert "bearer" in ours["standard_fields"]["password"]["title"]


def test_the_plugin_is_loaded_without_an_error(api_server):
    """By its entry point."""
    plugins = api_server.api("GET", "/api/v2/plugins")["plugins"]
    assert "hokusai_dns" in [one["name"] for one in plugins]
    assert "hokusai" not in json.dumps(api_server.api("GET", "/api/v2/plugins/importErrors"))


class TestUnderLoad:
    """200 callers at once, while MLflow takes connections and answers nothing."""

    CALLERS, ROUNDS = 200, 3

    @pytest.fixture
    def hanging(self, api_server, names, tiny):
        """The connection leads to a server that hangs; afterwards it leads back."""

        def hang(request):
            server.wait(60)
            yield b""

        with Stranger(hang, host="127.0.0.46") as server:
            names.set_records("hangs.local", [server.host])
            extra = {"nameservers": names.address}
            api_server.connect(host="hangs.local", port=server.port, extra=extra)
            yield server
            api_server.connect(host=HOSTNAME, port=tiny.port, login="me", password=SECRET,
                               extra=extra)  # fmt: skip

    def p99(self, api_server, while_: threading.Event) -> float:
        """Of Airflow's own health endpoint, seconds."""
        took = []
        with requests.Session() as session:
            while not while_.is_set() or len(took) < 20:
                begun = time.monotonic()
                session.get(f"{api_server.url}/api/v2/monitor/health", timeout=60)
                took.append(time.monotonic() - begun)
                time.sleep(0.05)
        return quantiles(took, n=100)[-1]

    def test_airflow_answers_and_mlflow_is_asked_once_per_interval(
        self, api_server, hanging, record_property
    ):
        """Only the caller that begins the check waits for the server that hangs: three seconds."""
        over = threading.Event()
        over.set()
        alone = self.p99(api_server, over)
        over.clear()
        headers = {"Authorization": f"Bearer {api_server.token('viewer')}"}
        url = f"{api_server.url}/hokusai-dns"

        def call(number):
            path = ("/health/mlflow", "/ready", "/metrics", "/health")[number % 4]
            return requests.get(url + path, headers=headers, timeout=120).status_code

        begun = time.monotonic()
        with ThreadPoolExecutor(self.CALLERS + 1) as pool:
            beside = pool.submit(self.p99, api_server, over)
            try:
                answers = [
                    status
                    for _ in range(self.ROUNDS)
                    for status in pool.map(call, range(self.CALLERS))
                ]
            finally:
                over.set()
            seconds = time.monotonic() - begun
            busy = beside.result()
        assert len(answers) == self.CALLERS * self.ROUNDS
        assert set(answers) <= {200, 503}
        checks = sum(one.path == "/health" for one in hanging.requests)
        record_property("p99_alone_ms", round(alone * 1000))
        record_property("p99_beside_ms", round(busy * 1000))
        assert 1 <= checks <= seconds / LOOK_EVERY + 2
        assert (
            busy < 10
        )  # a held thread pool or event loop would hold it for the check's ten seconds

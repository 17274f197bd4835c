"""What our part of a task costs at Airflow's Execution API, counted there; and links in the UI.

Real task processes under Airflow's own supervisor, a real API server, and a proxy between them.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from airflow_provider_hokusai_dns.store.record import variable_key
from tests.conftest import HOSTNAME, TinyMLflow
from tests.integration.airflow_without_scheduler import airflow_without_scheduler
from tests.servers import is_installed, wait_until

ADDRESS, OTHER_ADDRESS = "127.0.0.9", "127.0.0.10"
#: Seconds for which a request for a Variable is not answered: over our patience of two, and under
#: the five after which Airflow's own client asks again.
HELD = 4.5


pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not is_installed(), reason="Airflow finds us by our entry points alone"),
]


@pytest.fixture(scope="module")
def name_server():
    with DNSServer() as server:
        server.set_records(HOSTNAME, [ADDRESS], ttl=10)
        yield server


@pytest.fixture(scope="module")
def mlflow():
    with TinyMLflow(ADDRESS) as tiny:
        yield tiny


@pytest.fixture(scope="module")
def airflow(tmp_path_factory, name_server, mlflow):
    connection = {
        "conn_type": "mlflow",
        "host": HOSTNAME,
        "port": mlflow.port,
        "extra": {"nameservers": name_server.address},
    }
    home = tmp_path_factory.mktemp("tasks")
    with airflow_without_scheduler(home, connection) as running:
        yield running


@pytest.fixture(scope="module")
def story(airflow, name_server):
    """The tasks of a fleet one after the other, each in a process that knows nothing yet."""
    seen = {}

    def stored():
        return airflow.variable(variable_key(HOSTNAME, asked=(name_server.address,)))

    def run(name, dag="one_task"):
        name_server.clear_queries()
        result = airflow.run(dag)
        result |= {"queries": len(name_server.queries), "variable": stored()}
        result["said"] = result["xcoms"].get("resolve.return_value")
        seen[name] = result

    def hold(request):
        if request.is_variable:
            time.sleep(HELD)

    run("first")
    run("good day")
    run("many calls", "many_calls")
    name_server.no_such_name(HOSTNAME)
    run("gone")
    run("still gone")
    airflow.proxy.before = hold
    run("gone and no answer from the API server")
    name_server.set_records(HOSTNAME, [ADDRESS], ttl=10)
    run("no answer from the API server")
    airflow.proxy.before = lambda request: None
    run("back")
    run("good again")
    return seen


class TestAGoodDay:
    """DNS answers, and the fleet has its last-known-good."""

    def test_costs_one_lookup_one_read_and_no_write(self, story):
        """One question for each family; the record and the policy are read after the address."""
        one = story["good day"]
        assert one["policy_gets"] <= 1
        assert (one["said"]["source"], one["said"]["addresses"]) == ("dns", [ADDRESS])
        assert one["queries"] == 2
        assert one["variable_gets"] <= 1
        assert one["variable_puts"] == 0

    def test_costs_the_same_however_often_the_name_is_used(self, story):
        """Five hundred calls of one task."""
        one = story["many calls"]
        assert one["policy_gets"] <= 1
        assert one["said"]["source"] == "cache"
        assert one["queries"] == 2
        assert one["variable_gets"] <= 1
        assert one["variable_puts"] == 0

    def test_begins_with_a_write_where_nothing_is_stored(self, story):
        """The hook's share of policy rule 17: once in the life of a fleet."""
        one = story["first"]
        assert one["variable_gets"] <= 2, "what is stored is read once more before it is replaced"
        assert one["variable_puts"] == 1
        assert one["variable"]["addresses"] == [ADDRESS]
        assert one["variable"]["written_by"] == "hook"

    def test_has_the_address_before_any_variable(self, story):
        """An API server that holds every Variable back is not even noticed."""
        one = story["no answer from the API server"]
        assert (one["said"]["error"], one["said"]["source"]) == (None, "dns")
        assert one["said"]["seconds"] < 2.0
        assert one["variable_gets"] == 1, "it was asked, and it had not answered"


class TestAnOutage:
    """DNS says that there is no such name."""

    def test_is_survived_by_a_worker_that_never_resolved_the_name(self, story):
        """It serves what another one wrote."""
        one = story["gone"]
        assert (one["said"]["source"], one["said"]["addresses"]) == ("store", [ADDRESS])
        assert one["said"]["error"] is None

    def test_is_written_down_by_the_first_who_sees_it(self, story):
        """So that the fleet has one clock for it; the second leaves it alone."""
        first, second = story["gone"], story["still gone"]
        assert (first["variable_puts"], second["variable_puts"]) == (1, 0)
        assert first["variable"]["no_name_since"]
        assert second["variable"]["no_name_since"] == first["variable"]["no_name_since"]
        assert second["variable_gets"] <= 1
        assert second["said"]["source"] == "store"

    def test_costs_a_bounded_time_when_the_api_server_hangs_too(self, story):
        """Two seconds of ours, and then the truth: there is nothing to serve."""
        one = story["gone and no answer from the API server"]
        assert one["said"]["error"] == "nxdomain"
        assert 1.5 < one["said"]["seconds"] < HELD, "2, and the rest is for a busy machine"
        assert one["variable_puts"] == 0, "not known is not the same as not there"
        assert one["variable"]["addresses"] == [ADDRESS]

    def test_is_taken_back_by_the_first_success(self, story):
        """Or the next outage would seem to be an old one; after that there is peace again."""
        back, after = story["back"], story["good again"]
        assert back["variable_puts"] == 1
        assert back["variable"]["no_name_since"] is None
        assert (after["variable_gets"], after["variable_puts"]) == (1, 0)


def test_two_writers_at_once_never_leave_less_than_there_was(airflow, name_server, story):
    """Both have read before either writes, which is as bad as it gets without a compare-and-set."""
    before = story["good again"]["variable"]
    both = threading.Barrier(2, timeout=60)

    def together(request):
        if request.is_variable and request.method == "PUT":
            both.wait()

    name_server.set_records(HOSTNAME, [OTHER_ADDRESS], ttl=10)
    airflow.proxy.before = together
    try:
        result = airflow.run("two_writers")
    finally:
        airflow.proxy.before = lambda request: None
        name_server.set_records(HOSTNAME, [ADDRESS], ttl=10)
    assert result["tasks"] == {"first": "success", "second": "success"}
    assert result["variable_puts"] == 2
    after = airflow.variable(variable_key(HOSTNAME, asked=(name_server.address,)))
    assert after["addresses"] == [OTHER_ADDRESS]
    assert (after["version"], after["hostname"]) == (1, HOSTNAME)
    assert after["resolved_at"] > before["resolved_at"]


def test_a_task_that_is_marked_failed_ends_its_run(airflow, mlflow, story):
    """An admin does so in the UI; Airflow's supervisor stops the task, which tells MLflow."""
    run = {"info": {"run_id": "a" * 32, "experiment_id": "0", "status": "RUNNING"}, "data": {}}
    mlflow.answers["*"] = (200, {"run": run, "run_info": run["info"]})

    def updates():
        return [json.loads(body) for path, body in mlflow.bodies if path.endswith("/runs/update")]

    try:
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(airflow.run, "stopped", "failed")
            wait_for(lambda: mlflow.count("/api/2.0/mlflow/runs/create"), ended)
            assert updates() == []
            (dag_run,) = airflow.get("/api/v2/dags/stopped/dagRuns")["dag_runs"]
            task = f"/api/v2/dags/stopped/dagRuns/{quote(dag_run['dag_run_id'], safe='')}"
            airflow.patch(f"{task}/taskInstances/write", {"new_state": "failed"})
            wait_for(updates, ended)
            ended.result()
    finally:
        del mlflow.answers["*"]
    assert [update["status"] for update in updates()] == ["KILLED"]


def wait_for(condition, running):
    """Until it is so, for as long as a busy machine takes, or until what runs has failed."""

    def so_far():
        if running.done():
            running.result()
        return condition()

    wait_until(so_far, 120, pause=0.1)


@pytest.fixture(scope="module")
def links(airflow, story):
    result = airflow.run("links")
    base = f"/api/v2/dags/links/dagRuns/{quote(result['id'], safe='')}/taskInstances"
    return {task: airflow.get(f"{base}/{task}/links")["extra_links"] for task in result["tasks"]}


class TestLinks:
    """Buttons on the page of a task, as Airflow's API gives them to its UI."""

    def test_lead_from_a_task_to_the_run_that_it_opened(self, links):
        """Whatever operator it is."""
        url = "http://mlflow.example.local:5000/#/experiments/1/runs/abc"
        assert links["train"] == {"MLflow run": url}

    def test_lead_from_gates_and_refreshes_to_the_status_page(self, links, airflow):
        """By the plugin, so without an XCom, and also while a gate still waits."""
        page = f"{airflow.api}/plugin/hokusai-dns"
        assert links["gate"]["MLflow DNS"] == links["refresh"]["MLflow DNS"] == page

    def test_are_not_shown_where_there_is_no_run(self, links):
        """Airflow's UI leaves out what is null."""
        assert links["gate"]["MLflow run"] is None

    def test_lead_nowhere_but_to_the_web(self, links):
        """An XCom may hold a script."""
        assert links["pretend"] == {"MLflow run": None}

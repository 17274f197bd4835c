"""The refresh operator: real lookups, everything published, and only then a failure."""

from __future__ import annotations

import json
import re
import threading
import time

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, XComArg
from airflow.sdk.exceptions import AirflowException

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.config.connections import load_server
from airflow_provider_hokusai_dns.operators.dns_refresh import DNSRefreshOperator
from airflow_provider_hokusai_dns.refresh.names import refresh_names
from airflow_provider_hokusai_dns.resolver import LastKnownGood
from airflow_provider_hokusai_dns.resolver.lookup.live import LiveLookup
from airflow_provider_hokusai_dns.store.history import HistoryPoint, history_key
from airflow_provider_hokusai_dns.store.record import iso_seconds, render_record, variable_key
from airflow_provider_hokusai_dns.store.variable_store import VariableStore
from tests.conftest import HOSTNAME, Texts


class TaskInstance:
    """Takes what is pushed."""

    def __init__(self) -> None:
        self.pushed: dict[str, object] = {}

    def xcom_push(self, key: str, value: object) -> None:
        json.dumps(value)  # what XCom cannot take is an error here
        self.pushed[key] = value


@pytest.fixture
def ti():
    return TaskInstance()


@pytest.fixture
def refresh(ti, dns, monkeypatch):
    """Run the operator; plain hostnames are asked for at the test's name server."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)

    def run(**given):
        return DNSRefreshOperator(task_id="refresh", **given).execute({"ti": ti})

    return run


def test_a_connection_and_a_hostname_are_refreshed(usable, dns, tiny, refresh, ti):
    """And every XCom of the design is there."""
    dns.set_records("other.local", ["10.0.0.7", "10.0.0.8"])
    report = refresh(hostnames=["other.local"])
    first, second = report["resolutions"]
    assert (first["conn_id"], first["hostname"]) == ("mlflow_default", HOSTNAME)
    assert (first["addresses"], first["source"], first["health"]) == (
        [tiny.address], "dns", "healthy",
    )  # fmt: skip
    assert sorted(second["addresses"]) == ["10.0.0.7", "10.0.0.8"]
    assert ti.pushed.keys() == {"resolutions", "metrics", "health", "changes"}
    assert report["health"]["status"] == "healthy"
    assert report["metrics"]["misses"] == 2
    json.dumps(report)


def test_it_asks_dns_past_the_cache(usable, dns, refresh, clean_runtime):
    """That is what it is for."""
    clean_runtime.resolver().resolve(HOSTNAME)
    before = dns.count(HOSTNAME, "A")
    refresh()
    assert dns.count(HOSTNAME, "A") == before + 1


def test_the_listed_connections_are_the_default(connect, dns, refresh, monkeypatch, clean_runtime):
    """One list for everything that looks after connections."""
    dns.set_records("a.local", ["10.0.0.1"])
    dns.set_records("b.local", ["10.0.0.2"])
    connect("conn_a", host="a.local")
    connect("conn_b", host="b.local")
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__CONNECTIONS", "conn_a, conn_b")
    assert [row["hostname"] for row in refresh()["resolutions"]] == ["a.local", "b.local"]


class TestANameThatDoesNotResolve:
    """It fails the task, after all the others were refreshed and published."""

    @pytest.fixture(autouse=True)
    def names(self, usable, dns):
        dns.no_such_name("gone.local")
        dns.set_records("there.local", ["10.0.0.1"])

    def test_fails_after_everything_else_was_published(self, refresh, ti):
        """One typing error must not keep the fallback of the others cold."""
        with pytest.raises(AirflowException, match=r"1 of 3 .*gone\.local"):
            refresh(hostnames=["gone.local", "there.local"])
        gone, there = ti.pushed["return_value"]["resolutions"][1:]
        assert (gone["health"], gone["cause"]) == ("unhealthy", "nxdomain")
        assert "gone.local" in gone["error"]
        assert there["addresses"] == ["10.0.0.1"]
        assert ti.pushed["health"]["status"] == "unhealthy"

    def test_is_a_warning_in_the_log(self, refresh, dns, capfd):
        """So is a stale answer; a name that resolves is not."""
        refresh(hostnames=["gone.local", "there.local"], fail_on="never")
        dns.no_such_name("there.local")
        refresh(mlflow_conn_ids=[], hostnames=["there.local"])
        log = capfd.readouterr().out
        assert re.findall(r"\[(\w+) *\] gone\.local: ", log) == ["warning"]
        assert re.findall(r"\[(\w+) *\] there\.local: .* from", log) == ["info", "warning"]

    def test_does_not_fail_where_the_admin_does_not_want_it(self, refresh):
        """The XCom says it all the same."""
        report = refresh(hostnames=["gone.local"], fail_on="never")
        assert report["resolutions"][1]["health"] == "unhealthy"

    def test_is_told_from_a_stale_answer(self, refresh, dns, ti):
        """An old answer is something to serve; only fail_on='degraded' minds it."""
        refresh(hostnames=["there.local"])
        dns.no_such_name("there.local")
        row = refresh(hostnames=["there.local"])["resolutions"][1]
        assert (row["health"], row["source"], row["cause"]) == ("degraded", "stale", "nxdomain")
        with pytest.raises(AirflowException, match="because DNS returns no address right now"):
            refresh(hostnames=["there.local"], fail_on="degraded")

    @pytest.mark.parametrize("bad", ["a b", "1.2", "x" * 64, "http://"])
    def test_may_be_one_that_never_can(self, refresh, ti, bad):
        """The row says which and why; the others are refreshed. The form may give such a name."""
        task = DNSRefreshOperator(task_id="refresh", hostnames="{{ given }}")
        task.render_template_fields({"given": json.dumps([bad, "there.local"])})
        with pytest.raises(AirflowException, match="did not resolve"):
            task.execute({"ti": ti})
        assert ti.pushed["resolutions"][2]["health"] == "healthy"

    def test_may_be_a_connection_that_is_missing(self, refresh, ti):
        """With its id, and the hostnames are refreshed."""
        with pytest.raises(AirflowException, match="'nowhere'"):
            refresh(mlflow_conn_ids=["nowhere"], hostnames=["there.local"])
        assert ti.pushed["resolutions"][0]["cause"] == "config"
        assert ti.pushed["resolutions"][1]["health"] == "healthy"


class TestChanges:
    """Old address, new address, and how long the name was away."""

    def stored(self, monkeypatch, found_at, addresses, **given):
        record = LastKnownGood(HOSTNAME, addresses, found_at, **given)
        variable = f"AIRFLOW_VAR_{variable_key(HOSTNAME).upper()}"
        monkeypatch.setenv(variable, render_record(record))

    def test_name_the_old_and_the_new_address(self, usable, tiny, refresh, monkeypatch):
        """What the fleet had, and what it has now."""
        self.stored(monkeypatch, 1_700_000_000.0, ("127.0.0.7",))
        assert refresh()["changes"] == [
            {"hostname": HOSTNAME, "old": ["127.0.0.7"], "new": [tiny.address],
             "away_seconds": None}
        ]  # fmt: skip

    def test_say_how_long_the_name_was_away(self, usable, tiny, refresh, monkeypatch):
        """Counted from the first who saw it gone, also when the address is the same."""
        import time

        self.stored(monkeypatch, time.time() - 500, (tiny.address,),
                    no_name_since=time.time() - 300)  # fmt: skip
        (change,) = refresh()["changes"]
        assert change["old"] == change["new"] == [tiny.address]
        assert 299 <= change["away_seconds"] <= 303

    def test_are_none_when_an_address_is_still_the_same(
        self, usable, dns, tiny, refresh, monkeypatch
    ):
        """Cloud Map hands out 8 of N: a part in common is no change."""
        dns.set_records(HOSTNAME, [tiny.address, "127.0.0.10"])
        self.stored(monkeypatch, 1_700_000_000.0, (tiny.address, "127.0.0.11"))
        assert refresh()["changes"] == []

    def test_are_none_while_the_name_is_away(self, usable, dns, refresh, monkeypatch):
        """An old answer changes nothing."""
        import time

        self.stored(monkeypatch, time.time() - 100, ("10.0.0.1",))
        dns.no_such_name(HOSTNAME)
        report = refresh()
        assert report["changes"] == []
        assert report["resolutions"][0]["source"] == "store"


class TestTheArguments:
    """As a DAG, a form or a template gives them."""

    @pytest.mark.parametrize(
        "given",
        [["a.local", "b.local"], "a.local, b.local", '["a.local", "b.local"]',
         "['a.local', 'b.local']", ("a.local", "b.local", "a.local")],
    )  # fmt: skip
    def test_take_names_in_every_form_of_a_template(self, dns, refresh, given, clean_runtime):
        """A template that is not native gives a list as text."""
        dns.set_records("a.local", ["10.0.0.1"])
        dns.set_records("b.local", ["10.0.0.2"])
        rows = refresh(mlflow_conn_ids=[], hostnames=given)["resolutions"]
        assert [row["hostname"] for row in rows] == ["a.local", "b.local"]

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"fail_on": "degrade"}, "one of unresolved, degraded, never, not 'degrade'"),
            ({"fail_on": None}, "fail_on must be one of unresolved, degraded, never, not None"),
            ({"hostnames": "[a.local"}, "hostnames begins like a list"),
            ({"hostnames": [None]}, "hostnames must be a list of names, but contains None"),
            ({"hostnames": 5}, "hostnames must be a list of names, not 5"),
            ({"hostnames": {"a.local": 1}}, "hostnames must be a list of names, not an object"),
            ({"hostnames": ["a b"]}, "'a b' is neither a host nor a URL"),
            (
                {"mlflow_conn_ids": ["a", 7]},
                "mlflow_conn_ids must be a list of names, but contains 7",
            ),
        ],
    )
    def test_that_are_wrong_are_named_when_the_dag_is_parsed(self, given, told):
        """And by the task, if a template or another task gives them."""
        with pytest.raises(ValueError, match=told):
            DNSRefreshOperator(task_id="refresh", **given)
        task = DNSRefreshOperator(task_id="refresh", **dict.fromkeys(given, "{{ given }}"))
        task.render_template_fields({})
        for name, value in given.items():
            setattr(task, name, value)
        if value != ["a b"]:  # a name that does not resolve is one row of the report
            with pytest.raises(ValueError, match=told):
                task.execute({})

    def test_of_a_template_or_another_task_wait_for_it(self):
        """What they will be is not known when the DAG is parsed."""
        with DAG("refreshes"):
            other = XComArg(EmptyOperator(task_id="names"))
            forms = "{{ given }}", ["{{ given }}", "a b"], ["<< given >>"], other, [other]
            for number, given in enumerate(forms):
                DNSRefreshOperator(
                    task_id=f"refresh_{number}",
                    hostnames=given,
                    mlflow_conn_ids=given,
                    fail_on=given,
                )

    def test_of_an_iterator_are_there_when_the_task_runs(self, dns, refresh, clean_runtime):
        """Nothing reads it before."""
        dns.set_records("a.local", ["10.0.0.1"])
        rows = refresh(mlflow_conn_ids=[], hostnames=map(str, ["a.local"]))["resolutions"]
        assert [row["hostname"] for row in rows] == ["a.local"]

    def test_must_name_something(self, refresh):
        """Before anything is looked up."""
        with pytest.raises(ValueError, match="nothing to refresh"):
            refresh(mlflow_conn_ids=[], hostnames=[])


def test_the_dag_has_a_form(clean_runtime):
    """Parameters for the UI, no schedule, one task, and nothing is looked up while it is parsed."""
    from airflow_provider_hokusai_dns.refresh_dag import build_refresh_dag

    dag = build_refresh_dag()
    assert dag.schedule is None
    assert dag.task_ids == ["refresh"]
    assert dag.params["connections"] == ["mlflow_default"]
    assert dag.params["fail_on_unresolved"] is True
    assert clean_runtime._process.resolvers == {}
    scheduled = build_refresh_dag("other", schedule="@hourly", tags=["mine"])
    assert (scheduled.dag_id, scheduled.tags) == ("other", {"mine"})


def test_params_of_an_author_are_added_to_the_form(clean_runtime):
    """The task reads all three of its own: a run without one of them fails."""
    from airflow.sdk import Param
    from airflow.sdk.definitions.param import ParamsDict

    from airflow_provider_hokusai_dns.refresh_dag import build_refresh_dag

    dag = build_refresh_dag(params={"hostnames": ["a.local"], "ticket": "none"})
    assert dag.params.dump() == {
        "connections": ["mlflow_default"],
        "hostnames": ["a.local"],
        "fail_on_unresolved": True,
        "ticket": "none",
    }
    assert build_refresh_dag(params=None).params["fail_on_unresolved"] is True
    typed = ParamsDict(
        {"hostnames": Param([], type="array", title="Mine"), "ticket": Param(type="string")}
    )
    assert build_refresh_dag(params=typed).params.get_param("hostnames").schema["title"] == "Mine"


class TestTheHistory:
    """One more point per refresh and name, for the status page."""

    @pytest.fixture
    def texts(self, usable, clean_runtime):
        """Variables in memory: outside of a task no process may write Airflow's own."""

        variables = Texts()
        clean_runtime._process.store = VariableStore(variables=variables)
        return variables.texts

    @pytest.fixture
    def points(self, texts):
        """What is kept of a name."""
        return lambda hostname: json.loads(texts[history_key(hostname)])["points"]

    def test_holds_how_the_name_resolved_and_a_probe_of_mlflow(self, dns, refresh, points):
        """A plain hostname has no MLflow to look at."""
        dns.set_records("other.local", ["10.0.0.7"])
        row = refresh(hostnames=["other.local"])["resolutions"][0]
        (point,) = points(HOSTNAME)
        assert (point["state"], point["probe"]) == ("resolved", "healthy")
        assert point["lookup_ms"] == row["lookup_ms"] > 0
        assert point["probe_ms"] == row["probe_ms"] > 0
        (other,) = points("other.local")
        assert (other["state"], "probe" in other) == ("resolved", False)

    def test_grows_by_one_point_per_refresh(self, dns, tiny, refresh, points, clean_runtime):
        """Resolved an hour ago, now from the Variable, with a cause; and MLflow does not work."""
        earlier = HistoryPoint(
            at=iso_seconds(time.time() - 3600), state="resolved", addresses=[tiny.address],
            cause=None, lookup_ms=1.0, probe="healthy", probe_ms=2.0,
        )  # fmt: skip
        assert clean_runtime.store().remember(HOSTNAME, earlier)
        clean_runtime.resolver_for_server(load_server()).resolve(HOSTNAME)
        dns.no_such_name(HOSTNAME)
        tiny.answers["/health"] = (503, "down")
        row = refresh()["resolutions"][0]
        first, second = points(HOSTNAME)
        assert first["at"] == earlier["at"]
        assert (second["state"], second["cause"]) == ("stale", "nxdomain")
        assert (second["probe"], row["probe"]) == ("unhealthy", "unhealthy")

    def test_tells_of_a_name_with_nothing_to_serve(self, dns, refresh, points):
        """And the check has nowhere to go."""
        dns.no_such_name(HOSTNAME)
        with pytest.raises(AirflowException):
            refresh()
        (point,) = points(HOSTNAME)
        assert (point["state"], point["cause"], point["addresses"]) == ("failed", "nxdomain", [])

    def test_can_do_without_a_check(self, tiny, refresh, points):
        """Where the worker may not reach MLflow."""
        refresh(probe=False)
        assert not tiny.asked
        assert "probe" not in points(HOSTNAME)[0]


def test_the_duration_of_a_lookup_is_its_own_and_not_that_of_the_latest(
    refresh, dns, clean_runtime
):
    """Another thread may look up another name while the answer is stored."""

    class Busy(Texts):
        def set(self, key, value, description):
            super().set(key, value, description)
            runtime.resolver().refresh("slow.local")

    runtime.use_store(VariableStore(variables=Busy()))
    dns.set_records("quick.local", ["10.0.0.1"])
    dns.set_records("slow.local", ["10.0.0.2"])
    dns.delay("slow.local", 0.45)
    (row,) = refresh(mlflow_conn_ids=[], hostnames=["quick.local"])["resolutions"]
    assert dns.count("slow.local", "A")
    assert 0 < row["lookup_ms"] < 450


def test_it_waits_for_an_airflow_that_is_slow(clean_runtime, dns, refresh):
    """Other tasks go on without the Variable after two seconds; this one is there to store it."""

    class Slow(Texts):
        def get(self, key):
            threading.Event().wait(0.1)
            return super().get(key)

    slow = Slow()
    clean_runtime.use_store(VariableStore(patience=0.05, variables=slow))
    dns.set_records("there.local", ["10.0.0.1"])
    refresh(mlflow_conn_ids=[], hostnames=["there.local"])
    assert variable_key("there.local") in slow.texts


def test_silent_names_are_looked_up_at_the_same_time(clean_runtime, dns, refresh, monkeypatch):
    """Twenty at once; the rows are in the order of the names."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__TIMEOUT", "1")
    clean_runtime.use_store(VariableStore(variables=Texts()))
    names = [f"silent-{number}.local" for number in range(12)]
    for name in names:
        dns.silent(name)
    dns.set_records("there.local", ["10.0.0.1"])
    began = time.monotonic()
    rows = refresh(
        mlflow_conn_ids=[], hostnames=[*names, "there.local"], fail_on="never"
    )["resolutions"]  # fmt: skip
    assert time.monotonic() - began < 6, "one after the other they take 12 s"
    assert [row["hostname"] for row in rows] == [*names, "there.local"]
    assert [row["cause"] for row in rows] == ["timeout"] * 12 + [None]


@pytest.mark.parametrize("answer", ["0.0.0.0", "240.0.0.1", "169.254.7.7"])
def test_why_an_answer_is_never_stored_is_said_and_is_no_change(
    clean_runtime, dns, monkeypatch, answer
):
    """That of a captive portal or a filter; nothing is wrong with the Variable."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    clean_runtime.use_store(VariableStore(variables=Texts()))
    dns.set_records("portal.local", [answer])
    said: list[str] = []
    report = refresh_names([], ["portal.local"], warn=lambda _, line: said.append(line))
    assert report["changes"] == []
    assert "never replaces a last known good" in said[0]
    assert "Variable" not in said[0]


@pytest.mark.parametrize("source", ["dns", "hosts"])
def test_what_is_never_stored_is_no_change_each_time(
    clean_runtime, dns, monkeypatch, tmp_path, source
):
    """A Variable of a later version is never overwritten, and a hosts file is for one machine."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    text = render_record(LastKnownGood("kept.local", ("10.0.0.1",), time.time() - 60))
    if source == "hosts":
        (tmp_path / "hosts").write_text("10.0.0.2 kept.local\n")
        monkeypatch.setitem(LiveLookup.__init__.__kwdefaults__, "hosts", tmp_path / "hosts")
    else:
        dns.set_records("kept.local", ["10.0.0.2"])
        text = text.replace('"version": 1', '"version": 3')
    variables = Texts()
    variables.texts[variable_key("kept.local")] = text
    clean_runtime.use_store(VariableStore(variables=variables))
    report = refresh_names([], ["kept.local"])
    assert variables.texts[variable_key("kept.local")] == text
    (row,) = report["resolutions"]
    assert (row["addresses"], row["source"]) == (["10.0.0.2"], source)
    assert report["changes"] == []


@pytest.mark.parametrize(
    ("text", "first"), [(None, True), ("{", True), ('{"version": 3}', False), (OSError(), False)]
)
def test_an_address_is_the_first_known_only_where_none_was_stored(
    clean_runtime, dns, monkeypatch, text, first
):
    """Not where Airflow did not say what is stored; a broken Variable is repaired."""

    class Sometimes(Texts):
        def get(self, key):
            if isinstance(text, OSError) and not self.texts:
                self.texts[key] = render_record(LastKnownGood("kept.local", ("10.0.0.2",), 1e9))
                raise text
            return super().get(key)

    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    dns.set_records("kept.local", ["10.0.0.2"])
    variables = Sometimes()
    if isinstance(text, str):
        variables.texts[variable_key("kept.local")] = text
    clean_runtime.use_store(VariableStore(variables=variables))
    changes = refresh_names([], ["kept.local"])["changes"]
    assert [(change["old"], change["new"]) for change in changes] == [([], ["10.0.0.2"])] * first


def test_an_answer_that_cannot_be_read_back_is_not_said_to_be_lost(clean_runtime, dns, monkeypatch):
    """It was written; Airflow went away after that."""

    class Away(Texts):
        def get(self, key):
            if self.texts:
                raise OSError
            return super().get(key)

    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    dns.set_records("kept.local", ["10.0.0.2"])
    clean_runtime.use_store(VariableStore(variables=Away()))
    said: list[str] = []
    refresh_names([], ["kept.local"], warn=lambda _, line: said.append(line))
    assert said == [
        "kept.local resolves. It is not known whether it is stored as last known good: its "
        "Variable could not be read back."
    ]


def test_a_stored_answer_from_a_clock_that_is_ahead_is_said_to_be_the_reason(
    clean_runtime, dns, monkeypatch
):
    """The newer answer wins; nothing is wrong with the Variable, nor with who may write it."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    variables = Texts()
    ahead = LastKnownGood("moved.local", ("10.0.0.1",), time.time() + 200)
    variables.texts[variable_key("moved.local")] = render_record(ahead)
    clean_runtime.use_store(VariableStore(variables=variables))
    dns.set_records("moved.local", ["10.0.0.2"])
    said: list[str] = []
    refresh_names([], ["moved.local"], warn=lambda _, line: said.append(line))
    assert "is dated later than this one" in said[0]
    assert "could not be written" not in said[0]


def test_a_move_within_the_second_of_the_last_refresh_is_stored(clean_runtime, dns, monkeypatch):
    """The stored times are whole seconds; the answer of this refresh is the newer one."""
    monkeypatch.setenv("AIRFLOW__HOKUSAI_DNS__NAMESERVERS", dns.address)
    variables = Texts()
    clean_runtime.use_store(VariableStore(variables=variables))
    time.sleep(1.01 - time.time() % 1)
    said: list[str] = []
    for address in ("10.0.0.9", "10.0.0.2", "10.0.0.7"):
        dns.set_records("moved.local", [address])
        refresh_names([], ["moved.local"], warn=lambda _, line: said.append(line))
        text = json.loads(variables.texts[variable_key("moved.local")])
        assert text["addresses"] == [address]
    assert said == []


def test_an_address_in_brackets_is_no_list(refresh, ti):
    """As in the text of a setting."""
    refresh(mlflow_conn_ids=[], hostnames="[::1]:5000, [fd00::1]")

"""The commands, through Airflow's own parser, on a real database, with a real name server."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_hokusai_dns.resolver import LastKnownGood
from airflow_provider_hokusai_dns.store.record import render_record, variable_key
from tests.airflow_home import migrate
from tests.conftest import TinyMLflow
from tests.servers import is_installed, wait_until

HERE = Path(__file__).parent
NAME, GONE, STORED = "mlflow.cli-test.local", "gone.cli-test.local", "stored.cli-test.local"
SECRET = "hunter2-password"


pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not is_installed(), reason="Airflow finds us by our entry points alone"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A home of Airflow with a migrated database."""
    home = tmp_path_factory.mktemp("cli")
    given = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "COLUMNS": "300",
    }
    migrate(given)
    return given


@pytest.fixture(scope="module")
def seen(environment, tmp_path_factory):
    """What each command of :mod:`commands_on_a_database` gave."""
    home = tmp_path_factory.mktemp("seen")
    source = Path(environment["AIRFLOW_HOME"]) / "airflow.db"
    (home / "airflow.db").write_bytes(source.read_bytes())
    out = home / "seen.json"
    with TinyMLflow("127.0.0.9") as tiny:
        done = subprocess.run(
            [sys.executable, str(HERE / "commands_on_a_database.py"), str(tiny.port), str(out)],
            env={**environment, "AIRFLOW_HOME": str(home)},
            capture_output=True, text=True, timeout=200,
        )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    results = json.loads(out.read_text())
    assert not [name for name, result in results.items() if "error" in result], results
    return results


def document(call: dict[str, Any]) -> Any:
    return json.loads(call["out"])


def test_the_real_command_finds_the_connections_of_the_database(environment):
    """``airflow`` itself, in processes of its own: found, asked, and cleared in the database."""
    database = Path(environment["AIRFLOW_HOME"]) / "airflow.db"
    name = "no-such-name.invalid"
    record = render_record(LastKnownGood(name, ("127.0.0.78",), time.time() - 60))

    def airflow(*line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "airflow", "hokusai-dns", *line],
            env={**environment, "DNS_TIMEOUT": "5"}, capture_output=True, text=True, timeout=100,
        )  # fmt: skip

    with closing(sqlite3.connect(database)) as kept, kept:
        kept.execute(
            "insert into connection (conn_id, conn_type, host, port, is_encrypted, "
            "is_extra_encrypted) values ('kept', 'mlflow', ?, 1, 0, 0)",
            [name],
        )
        kept.execute(
            "insert into variable (key, val, is_encrypted) values (?, ?, 0)",
            [variable_key(name), record],
        )
    resolved = airflow("resolve", "--conn-id", "kept", "-o", "json")
    assert resolved.returncode == 0, resolved.stderr
    (one,) = json.loads(resolved.stdout)["targets"]
    assert (one["source"], one["addresses"]) == ("store", ["127.0.0.78"])
    cleared = airflow("clear", "--conn-id", "kept")
    assert cleared.returncode == 0, cleared.stderr
    assert "127.0.0.78" in cleared.stdout
    with closing(sqlite3.connect(database)) as kept:
        assert kept.execute("select count(*) from variable").fetchone() == (0,)


@pytest.mark.parametrize("command", ["status", "refresh", "resolve"])
def test_ctrl_c_ends_a_command_at_once_and_without_a_traceback(environment, dns, command):
    """With the exit code that a shell expects; while a server or DNS does not answer."""
    dns.set_records(NAME, ["127.0.0.9"])
    if command != "status":
        dns.silent(NAME)
    with socket.create_server(("127.0.0.9", 0)) as silent:
        silent.settimeout(60)
        extra = {"nameservers": dns.address}
        given = {"conn_type": "mlflow", "host": NAME, "port": silent.getsockname()[1]}
        asking = subprocess.Popen(
            [sys.executable, "-m", "airflow", "hokusai-dns", command, "--conn-id", "asked"],
            env={**environment, "AIRFLOW_CONN_ASKED": json.dumps({**given, "extra": extra})},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with asking, ExitStack() as open_until_then:
            if command == "status":
                open_until_then.enter_context(silent.accept()[0]).recv(1)
            else:
                wait_until(lambda: dns.count(NAME, "A"), 60)
            stopped = time.monotonic()
            asking.send_signal(signal.SIGINT)
            out, err = asking.communicate(timeout=60)
    assert time.monotonic() - stopped < 7
    assert (asking.returncode, out) == (-signal.SIGINT, "")  # 130 in a shell
    assert "Traceback" not in err


def test_a_reader_that_ends_early_is_no_error(environment):
    """``airflow hokusai-dns ... | head -1``: no traceback, and no exit code with another sense."""
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "airflow", "hokusai-dns", "resolve", "10.0.0.1", "-o", output],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for output in ("table", "json", "yaml", "plain")
    ]  # fmt: skip
    for command in commands:
        command.stdout.close()
    for command in commands:
        assert (command.stderr.read(), command.wait(100)) == ("", 128 + signal.SIGPIPE)
        command.stderr.close()


@pytest.mark.parametrize("is_interrupted", [True, False])
def test_a_database_that_does_not_answer_ends_in_words(environment, is_interrupted):
    """Also by Ctrl-C: its driver waits without a limit, and where Python sees no signal."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        database = f"postgresql+psycopg2://airflow@127.0.0.1:{silent.getsockname()[1]}/airflow"
        asking = subprocess.Popen(
            [sys.executable, "-m", "airflow", "hokusai-dns", "refresh", NAME],
            env={**environment, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with asking, silent.accept()[0]:
            if is_interrupted:
                asking.send_signal(signal.SIGINT)
            out, err = asking.communicate(timeout=60)
    assert (asking.returncode, out) == (-signal.SIGINT if is_interrupted else 3, "")
    assert "Traceback" not in err
    assert is_interrupted or "database has not answered within 15 s" in err


class TestStatus:
    """One look at each connection, as a gate does it."""

    def test_of_a_healthy_connection(self, seen):
        """One table, one sentence, exit code 0; nothing is written for a check."""
        table = seen["status_of_a_healthy_connection"]["table"]
        assert table["code"] == 0
        assert "mlflow_default" in table["out"]
        assert "an address that DNS returned just now" in table["out"]
        assert seen["status_of_a_healthy_connection"]["variable"] is None

    def test_as_json_has_the_keys_of_the_endpoint(self, seen):
        """A reader of ``/hokusai-dns/health/mlflow`` can read this, with numbers as numbers."""
        answer = document(seen["status_of_a_healthy_connection"]["json"])
        assert answer["version"] == 1
        (one,) = answer["connections"]
        assert set(one) == {
            "conn_id", "state", "dns", "mlflow", "cause", "sentence", "hostname", "history_name",
            "tracking_uri", "addresses", "source", "age", "ttl_left", "looked_at", "latency_ms",
            "last_known_good", "variable_problem", "verdict", "stale",
        }  # fmt: skip
        assert (one["state"], one["dns"], one["mlflow"]) == ("healthy", "healthy", "healthy")
        assert one["addresses"] == ["127.0.0.9"]
        assert 0 < one["ttl_left"] <= 10
        assert one["latency_ms"] > 0

    def test_gives_the_limit_of_a_stale_address_as_the_policy_has_it(self, seen):
        """As the endpoint does: not the limit that the policy has by default."""
        (one,) = document(seen["the_name_goes_away"]["stricter"])["connections"]
        assert (one["stale"]["rule"], one["stale"]["limit"]) == ("no_such_name", 600)
        assert 0 < one["stale"]["ends_in"] <= 600

    def test_says_that_a_stale_address_is_in_use(self, seen):
        """It works, so the exit code is 0; the state and the cause say the rest."""
        call = seen["the_name_goes_away"]["status"]
        (one,) = document(call)["connections"]
        assert (call["code"], one["state"], one["cause"]) == (0, "degraded", "nxdomain")
        assert one["last_known_good"]["addresses"] == ["127.0.0.9"]
        assert one["source"] == "store"

    def test_fails_when_one_of_several_is_not_usable(self, seen):
        """A script sees it by the exit code alone."""
        calls = seen["nothing_is_known"]
        assert (calls["status"]["code"], calls["both"]["code"]) == (1, 1)
        (one,) = document(calls["status"])["connections"]
        assert (one["state"], one["cause"]) == ("unhealthy", "nxdomain")

    def test_shows_a_variable_that_was_edited_into_nonsense(self, seen):
        """As what it is; MLflow works all the same."""
        call = seen["a_broken_variable"]["status"]
        (one,) = document(call)["connections"]
        assert (call["code"], one["state"]) == (0, "healthy")
        assert "not valid JSON" in one["variable_problem"]


class TestThePolicyVariable:
    """The command line judges as the fleet does."""

    def test_is_in_force_and_shown(self, seen):
        """With 0 seconds for a name that is gone, its stored address is not used."""
        calls = seen["the_policy_variable"]["right"]
        line = "hokusai_dns_policy changes the policy: max_stale_no_name = 0."
        assert line in calls["table"]["out"]
        assert document(calls["json"])["policy"]["values"] == {"max_stale_no_name": 0}
        assert (calls["table"]["code"], calls["resolve"]["code"]) == (1, 1)

    def test_is_refused_whole_and_said(self, seen):
        """On the standard error; the command continues with the settings."""
        calls = seen["the_policy_variable"]["broken"]
        for call in calls.values():
            assert (call["code"], "hokusai_dns_policy" in call["err"]) == (0, True)
        assert document(calls["json"])["policy"]["values"] == {}


class TestResolve:
    """How a name comes to its address, step by step."""

    def test_asks_every_source(self, seen):
        """In the order in which a task would come to them, each nameserver with its own answer."""
        (one,) = document(seen["resolve_a_connection"]["by_id"])["targets"]
        assert [step["source"] for step in one["steps"]] == [
            "memory", "hosts file", "nameserver", "nameserver", "system lookup", "stored",
            "static address",
        ]  # fmt: skip
        v4, v6 = (step for step in one["steps"] if step["source"] == "nameserver")
        assert (v4["addresses"], v4["ttl"], v4["cause"]) == (["127.0.0.9"], 10.0, None)
        assert (v6["addresses"], v6["cause"]) == ([], "nodata")
        assert v4["ms"] > 0
        assert "nameservers are configured" in one["steps"][4]["outcome"]

    @pytest.mark.parametrize("target", ["by_name", "by_absolute_name"])
    def test_goes_by_the_rules_of_the_connection_that_leads_to_the_name(self, seen, target):
        """A name alone is resolved as the tasks of the listed connection do."""
        (one,) = document(seen["resolve_a_connection"][target])["targets"]
        assert (one["conn_id"], one["source"]) == ("mlflow_default", "dns")

    def test_writes_nothing(self, seen):
        """Looking must not change what the fleet falls back on."""
        assert seen["resolve_a_connection"]["variable"] is None

    def test_says_why_the_stored_address_was_chosen(self, seen):
        """What it is, how old, and why not a fresh one."""
        calls = seen["the_name_goes_away"]
        (one,) = document(calls["resolve"])["targets"]
        assert (one["state"], one["source"], one["cause"]) == ("degraded", "store", "nxdomain")
        assert "stored last known good" in one["sentence"]
        (stored,) = (step for step in one["steps"] if step["source"] == "stored")
        assert "written by refresh" in stored["outcome"]
        assert calls["resolve"]["code"] == 0
        assert calls["strict"]["code"] == 1, "--min-health healthy insists on a fresh answer"
        lines = calls["plain"]["out"].splitlines()
        assert all(line.startswith(NAME) for line in lines[1:] if line.strip())

    def test_fails_when_nothing_can_be_served(self, seen):
        """With the cause as data, and what to do."""
        call = seen["nothing_is_known"]["resolve"]
        (one,) = document(call)["targets"]
        assert (call["code"], one["state"], one["cause"]) == (1, "unhealthy", "nxdomain")
        assert "for a typo" in one["sentence"]

    def test_works_without_a_database(self, seen):
        """In the worst night DNS can still be looked at; what is not known is said."""
        call = seen["no_database"]["resolve"]
        assert call["code"] == 0
        assert "database cannot be read" in call["out"]


class TestRefresh:
    """Real lookups, kept in the database."""

    def test_is_kept_as_last_known_good(self, seen):
        """Where every worker finds it."""
        calls = seen["refresh"]
        assert (calls["before"], calls["table"]["code"]) == (None, 0)
        assert json.loads(calls["after"])["addresses"] == ["127.0.0.9"]
        assert "first address known" in calls["table"]["out"]
        (row,) = document(calls["json"])["resolutions"]
        assert (row["health"], row["source"]) == ("healthy", "dns")

    def test_tells_the_fleet_that_the_name_is_away(self, seen):
        """The answer stays, with its age; the clock of policy rule 7 begins."""
        calls = seen["the_name_goes_away"]
        assert document(calls["refresh"])["health"]["status"] == "degraded"
        kept = json.loads(calls["variable"])
        assert kept["addresses"] == ["127.0.0.9"]
        assert kept["no_name_since"]

    def test_fails_for_a_name_without_an_answer(self, seen):
        """By its exit code."""
        assert seen["nothing_is_known"]["refresh"]["code"] == 1

    def test_repairs_a_broken_variable(self, seen):
        """Who asks for a refresh wants it to work."""
        calls = seen["a_broken_variable"]
        assert calls["refresh"]["code"] == 0
        assert json.loads(calls["after"])["addresses"] == ["127.0.0.9"]

    def test_that_is_not_the_only_first_one_is_kept(self, seen):
        """Of two that add the Variable at once, one came later; nothing is wrong with Airflow."""
        calls = seen["two_first_writers"]
        assert calls["was_late"]
        assert calls["refresh"]["code"] == 0
        assert "could not be written" not in calls["refresh"]["out"] + calls["refresh"]["err"]
        assert json.loads(calls["after"])["addresses"] == ["10.0.0.8"]

    def test_says_that_it_could_not_keep_the_answer(self, seen):
        """What belongs to another program is not overwritten, and that is no success."""
        calls = seen["somebody_elses_variable"]
        assert calls["refresh"]["code"] == 1
        assert "is not stored" in calls["refresh"]["err"]
        assert "correct or delete it under Admin, Variables" in calls["refresh"]["err"]
        assert json.loads(calls["after"])["hostname"] == "other.local"


class TestClear:
    """The stored last-known-good is taken away."""

    def test_shows_what_was_there(self, seen):
        """So that it can be put back; a second time there is nothing, and that is no error."""
        calls = seen["clear"]
        (row,) = document(calls["first"])["cleared"]
        assert (row["outcome"], row["addresses"]) == ("cleared", ["10.0.0.7"])
        assert calls["after"] is None
        assert calls["again"]["code"] == 0
        assert "nothing was stored" in calls["again"]["out"]
        assert calls["by_id"]["code"] == 0
        assert calls["after_by_id"] is None

    def test_says_what_it_cannot_clear(self, seen):
        """The environment goes before the database."""
        call = seen["clear"]["from_environment"]
        assert call["code"] == 1
        assert "still stored" in call["err"]

    def test_wants_to_be_told_what(self, seen):
        """It is the fallback of all workers: nothing is cleared by a slip."""
        assert seen["clear"]["nothing_named"]["code"] == 2

    def test_is_in_the_audit_log(self, seen):
        """And a login never gets there."""
        assert "cli_hokusai_dns_clear" in seen["clear"]["audit"]
        assert seen["clear"]["with_a_login"]["code"] == 2


def test_a_wrong_question_has_its_own_exit_code(seen):
    """2, and one sentence that names what is wrong; before anything is done."""
    calls = seen["wrong_questions"]
    login, explained = calls.pop("login in a target"), calls.pop("help")
    assert {name: call["code"] for name, call in calls.items()} == dict.fromkeys(calls, 2)
    assert "'missing'" in calls["missing connection"]["out"]
    assert "'missing'" in calls["missing connection, resolve"]["err"]
    assert "70000" in calls["wrong connection"]["err"]
    assert "0x7f.1" in calls["bad target, refresh"]["err"]
    assert login["code"] == 0
    assert "Exit code: 0 everything is usable" in explained["out"], (
        "it stands where one checks first"
    )
    assert "section hokusai_dns" in explained["out"]


def test_a_database_that_is_not_there_has_its_own_exit_code(seen):
    """3: Airflow itself would call each connection missing."""
    calls = dict(seen["no_database"])
    del calls["resolve"]
    assert {name: call["code"] for name, call in calls.items()} == dict.fromkeys(calls, 3)
    for call in calls.values():
        assert "database cannot be read" in call["out"] + call["err"]


def test_nothing_hostile_reaches_the_terminal(seen):
    """Escape sequences, markup, control and direction characters are shown, and not obeyed."""
    for name, call in seen["a_hostile_variable"].items():
        text = call["out"] + call["err"]
        foreign = {char for char in text if not char.isprintable() and char != "\n"}
        assert not foreign, f"{name}: {foreign}"
    assert "[red]<script>" in seen["a_hostile_variable"]["table"]["out"]


def test_no_secret_is_printed(seen):
    """Neither of a connection nor of a target."""
    assert SECRET not in json.dumps(seen)


@pytest.mark.parametrize("command", ["resolve", "status", "refresh", "no key"])
def test_a_connection_that_cannot_be_decrypted_is_told_as_it_is(seen, command):
    """Airflow calls it undefined; to add it once more would not help."""
    call = seen["another_fernet_key"][command]
    said = " ".join((call["out"] + call["err"]).split())
    assert "connection 'locked', password and extra: they are in airflow's database" in said.lower()
    assert "fernet_key" in said
    assert "Add it" not in said
    assert call["code"] == 2


def test_a_variable_that_is_still_encrypted_is_no_broken_json(seen):
    """A repair would lose what the old key still opens."""
    call = seen["another_fernet_key"]["variable"]
    said = " ".join((call["out"] + call["err"]).split())
    assert "encrypted with a Fernet key" in said
    assert "not valid JSON" not in said


def test_a_misspelt_connection_is_told_with_the_one_that_was_meant(seen):
    """Out of the database, which the command line may read."""
    call = seen["another_fernet_key"]["misspelt"]
    assert "Did you mean 'mlflow_default'?" in call["out"] + call["err"]

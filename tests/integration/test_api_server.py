"""The endpoints and the connection form in Airflow's own API server, with its own authorization."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_provider_hokusai_dns.fields import EXTRAS
from airflow_provider_hokusai_dns.records import render_record, variable_key
from airflow_provider_hokusai_dns.resolver import LastKnownGood
from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.conftest import HOSTNAME, TinyMLflow

HERE = Path(__file__).parent
SECRET = "hunter2-password"


def _is_installed() -> bool:
    try:
        importlib.metadata.distribution("airflow-provider-hokusai-dns")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not _is_installed(), reason="Airflow finds us by our entry points alone"),
]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What the endpoints answered."""
    home = tmp_path_factory.mktemp("api")
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({"viewer": "viewer-password", "admin": "admin-password"}))
    record = LastKnownGood(HOSTNAME, ("127.0.0.9",), time.time() - 60, written_by="refresh")
    with DNSServer() as dns, TinyMLflow("127.0.0.9") as tiny:
        dns.set_records(HOSTNAME, [tiny.address])
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "MLFLOW"))},
            "_AIRFLOW_PROCESS_CONTEXT": "server",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "viewer:viewer,admin:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-tests-but-long-enough-for-everybody",
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps(
                {
                    "conn_type": "mlflow",
                    "host": HOSTNAME,
                    "port": tiny.port,
                    "login": "me",
                    "password": SECRET,
                    "extra": {"nameservers": dns.address},
                }
            ),
            f"AIRFLOW_VAR_{variable_key(HOSTNAME).upper()}": render_record(record),
        }
        subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=environment, capture_output=True, check=True, timeout=200,
        )  # fmt: skip
        out = home / "seen.json"
        done = subprocess.run(
            [sys.executable, str(HERE / "ask_api_server.py"), str(out)],
            env=environment, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return json.loads(out.read_text())


def test_health_is_for_anybody_and_has_words_only(seen):
    """No name, no address; as last known, so nothing was probed before anybody asked."""
    before, after = seen["health_before"], seen["health_after"]
    assert (before["status"], after["status"]) == (200, 200)
    assert json.loads(before["body"]) == {
        "overall": "unknown",
        "dns": "healthy",
        "mlflow": "unknown",
    }
    assert json.loads(after["body"])["overall"] == "healthy"
    assert HOSTNAME not in before["body"] + after["body"]


def test_details_are_refused_to_strangers(seen):
    """Routes of a plugin are public unless a dependency guards them."""
    assert seen["details_anonymous"]["status"] == 401
    assert seen["details_nonsense"]["status"] in (401, 403)
    assert HOSTNAME not in seen["details_anonymous"]["body"] + seen["details_nonsense"]["body"]


def test_details_are_shown_to_those_who_may_view_plugins(seen):
    """Name, addresses and the verdict of a look; no secret."""
    assert seen["details_viewer"]["status"] == 200
    (one,) = json.loads(seen["details_viewer"]["body"])["connections"]
    assert (one["dns"], one["mlflow"]) == ("healthy", "healthy")
    assert one["last_known_good"]["addresses"] == ["127.0.0.9"]
    assert SECRET not in json.dumps(seen)


def test_the_shape_of_the_endpoints_is_not_public(seen):
    """Nobody needs it, and it would be open to all."""
    assert seen["openapi"]["status"] == 404


def test_the_form_has_our_connection_type(seen):
    """Every extra is an own field, with a label and help, and the standard fields have ours."""
    forms = json.loads(seen["form"]["body"])
    (ours,) = [form for form in forms if form["connection_type"] == "mlflow"]
    assert ours["hook_name"] == "MLflow"
    fields = ours["extra_fields"]
    assert fields.keys() == EXTRAS.keys()
    assert fields["verify"]["value"] is True
    assert fields["allow_stale_over_http"]["schema"]["enum"] == ["never", "checked", "always"]
    assert "bearer" in ours["standard_fields"]["password"]["title"]


def test_the_plugin_is_loaded_without_an_error(seen):
    """By its entry point."""
    names = [one["name"] for one in json.loads(seen["plugins"]["body"])["plugins"]]
    assert "hokusai_dns" in names
    assert "hokusai" not in seen["import_errors"]["body"]

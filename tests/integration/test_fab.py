"""The endpoints under FAB's auth manager, whose roles may lack the permission to view plugins."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.integration.api_server import ApiServer
from tests.servers import is_installed


def has_fab() -> bool:
    try:
        return importlib.util.find_spec("airflow.providers.fab") is not None
    except ModuleNotFoundError:
        return False


pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not has_fab(), reason="apache-airflow-providers-fab is not installed; no part of .venv"
    ),
    pytest.mark.skipif(not is_installed(), reason="Airflow finds us by our entry points alone"),
]

#: Users by their role; the one called public has no permission at all.
ROLES = {"admin": "Admin", "viewer": "Viewer", "public": "Public"}
DETAILS = ("/", "/health/mlflow", "/history", "/metrics", "/openapi.json", "/docs")


@pytest.fixture(scope="module")
def fab(tmp_path_factory) -> Iterator[ApiServer]:
    manager = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
    settings = {
        "AIRFLOW__CORE__AUTH_MANAGER": manager,
        "AIRFLOW__FAB__ENABLE_PROXY_FIX": "False",
        "AIRFLOW__API__SECRET_KEY": "only-for-tests-but-long-enough-for-everybody",
    }
    with ApiServer(tmp_path_factory.mktemp("fab"), settings) as api:
        for user, role in ROLES.items():
            subprocess.run(
                [sys.executable, "-m", "airflow", "users", "create", "--username", user,
                 "--password", f"{user}-password", "--role", role, "--email", f"{user}@x.local",
                 "--firstname", user, "--lastname", user],
                env=api.environment, capture_output=True, check=True, timeout=200,
            )  # fmt: skip
        yield api


@pytest.mark.parametrize("path", DETAILS)
def test_details_are_for_roles_that_may_view_plugins(fab, path):
    """403 for a user who may not; 401 without a login."""
    assert fab.get(path).status_code == 401
    assert fab.get(path, "public").status_code == 403
    assert fab.get(path, "admin").status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_words_are_for_anybody(fab, path):
    """As under every auth manager."""
    for user in (None, "public", "admin"):
        assert fab.get(path, user).status_code in (200, 503)


def test_a_viewer_sees_what_the_role_says(fab):
    """FAB's own role decides; the answer is whole or nothing."""
    answers = {path: fab.get(path, "viewer").status_code for path in DETAILS}
    assert len(set(answers.values())) == 1
    assert set(answers.values()) <= {200, 403}

"""The faults of the former system on its MLflow side; ``tests/resolver`` has those of its resolver.

Each stands here by its name, with the tests that show that it did not come back.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

import airflow_provider_hokusai_dns
from airflow_provider_hokusai_dns.plugins.endpoints import add_endpoints
from airflow_provider_hokusai_dns.plugins.health_cache import HealthCache

TESTS = Path(__file__).parent
SHOWN_BY = {
    "its retry multiplies MLflow's own": [
        "matrix/test_hangs.py::test_a_call_with_nothing_to_serve_ends_within_its_deadline",
        "client/test_transport.py::test_whatever_is_away_is_waited_for_until_the_deadline_and_no_longer",
    ],
    "an error of the author's code reported as another one": [
        "client/test_run.py::test_the_author_s_exception_comes_out_unchanged",
    ],
    "an error of the author's code counted against the breaker": [
        "hooks/test_mlflow_hook.py::test_the_authors_own_errors_do_not_close_the_entrance",
    ],
    "runs never ended": [
        "client/test_run.py::test_each_way_out_has_its_status",
        "integration/test_tasks_at_the_api.py::test_a_task_that_is_marked_failed_ends_its_run",
    ],
    "a half-open breaker that lets every caller through": [
        "health/test_breaker.py::test_half_open_lets_exactly_one_try",
    ],
    "event loop blocked by a health request": [
        "plugins/test_endpoints.py::test_200_callers_wait_for_nothing_while_a_check_hangs",
        "integration/test_api_server.py::test_airflow_answers_and_mlflow_is_asked_once_per_interval",
    ],
}


@pytest.mark.parametrize("fault", SHOWN_BY)
def test_a_fault_has_the_tests_that_show_its_end(fault: str) -> None:
    """A test that is renamed takes its place here along."""
    for place in SHOWN_BY[fault]:
        file, _, name = place.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, functions)}, place


def test_no_endpoint_resets_anything() -> None:
    """There is none: every endpoint only reads, and a breaker is reset in code."""
    app = FastAPI(openapi_url=None)
    add_endpoints(app, HealthCache(patience=30.0), [])
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    assert len(routes) > 4
    assert {method for route in routes for method in route.methods} == {"GET"}


def test_the_package_makes_no_file_for_a_private_key() -> None:
    """A key stays where the connection says: the package makes no files of its own."""
    sources = list(Path(airflow_provider_hokusai_dns.__file__).parent.rglob("*.py"))
    assert len(sources) > 50
    makers = {"open", "write_text", "write_bytes", "mkstemp", "NamedTemporaryFile", "mkdtemp"}
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                assert name not in makers, f"{source}:{node.lineno} makes a file"

"""The page where it belongs: in the frame of a real Airflow UI, behind its login.

Real DNS server, real MLflow, real scheduler; Airflow is served under a path, as behind a proxy.
The tests go through one story in the order in which they stand. With ``PICTURES`` set to a folder,
each state is photographed for the docs (``make screenshots``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_hokusai_dns.plugins.page import REFRESH_DAG
from airflow_provider_hokusai_dns.provider_info import get_provider_info
from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from airflow_provider_hokusai_dns.store.record import variable_key
from tests.conftest import HOSTNAME
from tests.page.conftest import PATIENCE_MS
from tests.page.real_airflow import RealAirflow
from tests.servers import MLflowProcess

ADDRESS = "127.0.0.8"
#: A Variable is read each 10 s, a connection looked at each 3; the rest is for a busy machine.
CHANGE_SECONDS = 90

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Everything that runs."""
    home = tmp_path_factory.mktemp("airflow")
    mlflow = MLflowProcess(tmp_path_factory.mktemp("mlflow"), host=ADDRESS)
    with DNSServer() as dns, ThreadPoolExecutor(1) as beside, contextlib.ExitStack() as stack:
        stack.callback(mlflow.stop)
        started = beside.submit(mlflow.start)
        dns.set_records(HOSTNAME, [ADDRESS], ttl=2)
        connection = {
            "conn_type": "mlflow",
            "host": HOSTNAME,
            "port": mlflow.port,
            "schema": "http",
        }
        settings = {
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps(connection),
            "AIRFLOW__HOKUSAI_DNS__NAMESERVERS": dns.address,
            "AIRFLOW__HOKUSAI_DNS__LOOK_EVERY": "3",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        }
        airflow = stack.enter_context(RealAirflow(home, settings))
        started.result()
        yield SimpleNamespace(airflow=airflow, dns=dns, mlflow=mlflow)


def sign_in(context: Any, airflow: RealAirflow, user: str) -> Any:
    """Through Airflow's own login form; gives the window."""
    page = context.new_page()
    page.goto(f"{airflow.url}/")
    page.locator("input[name=username]").fill(user)
    page.locator("input[name=password]").fill(airflow.passwords[user])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="MLflow DNS").wait_for()
    return page


def open_frame(page: Any) -> Any:
    """By the entry in the navigation; gives the frame with the page, after its first answer."""
    page.get_by_role("link", name="MLflow DNS").click()
    frame = page.frame_locator("iframe[title='MLflow DNS']")
    frame.locator(".connection").first.wait_for()
    return frame


@pytest.fixture(scope="module")
def admin(browser: Any, world: SimpleNamespace) -> Iterator[Any]:
    """The window of an administrator, with the page in its frame."""
    context = browser.new_context(viewport={"width": 1280, "height": 560}, timezone_id="UTC")
    context.set_default_timeout(PATIENCE_MS)
    window = sign_in(context, world.airflow, "admin")
    yield SimpleNamespace(window=window, frame=open_frame(window))
    context.close()


def picture(admin: Any, name: str) -> None:
    """Photograph a state for the docs, in both themes, and only when PICTURES is set."""
    if not (folder := os.environ.get("PICTURES")):
        return
    for theme in ("dark", "light"):
        choose_theme(admin, theme)
        photograph(admin.window, folder, name, theme)


def photograph(window: Any, folder: str, name: str, theme: str) -> None:
    """After whatever is fading or sliding in has come to rest."""
    path = Path(folder) / f"{name}{'-dark' if theme == 'dark' else ''}.png"
    window.evaluate(
        """() => Promise.allSettled(
            document.getAnimations()
                .filter((one) => one.effect.getComputedTiming().endTime !== Infinity)
                .map((one) => one.finished)
        )"""
    )
    window.screenshot(path=path)
    assert path.stat().st_size < 300_000


def choose_theme(admin: Any, theme: str) -> None:
    """As Airflow's own menu does it; both documents follow."""
    admin.window.evaluate(
        """(theme) => {
            localStorage.setItem("theme", theme);
            // Airflow's window hears of it as it would from another tab.
            dispatchEvent(new StorageEvent("storage", { key: "theme", newValue: theme }));
        }""",
        theme,
    )
    admin.frame.locator(f"html[data-theme={theme}]").wait_for(state="attached")


def until(admin: Any, where: str, text: str) -> None:
    """Wait until a text is there, and let the page ask more often meanwhile."""
    from playwright.sync_api import Error

    wanted = admin.frame.locator(where, has_text=text)
    end = time.monotonic() + CHANGE_SECONDS
    while not wanted.is_visible():
        assert time.monotonic() < end, f"{text!r} did not come: {told(admin, 'body')}"
        # Airflow's window may load the frame again; then it asks by itself.
        with contextlib.suppress(Error):
            admin.window.frames[-1].evaluate("dispatchEvent(new Event('online'))")
        admin.window.wait_for_timeout(500)


def told(admin: Any, where: str) -> str:
    """What stands there, with every gap as one space."""
    return " ".join(admin.frame.locator(where).inner_text().split())


def test_strangers_get_nothing(world):
    """Neither the page nor a file of it; and what is no file of it is not there."""

    def status(path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        request = urllib.request.Request(world.airflow.url + path, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers
        except urllib.error.HTTPError as error:
            error.close()
            return error.code, error.headers

    viewer = {"Authorization": f"Bearer {world.airflow.token('viewer')}"}
    assert status("/hokusai-dns/")[0] == 401
    assert status("/hokusai-dns/page/main.js")[0] == 401
    assert status("/hokusai-dns/", {"Authorization": "Bearer nonsense"})[0] in (401, 403)
    assert status("/hokusai-dns/page/main.js", viewer)[0] == 200
    for path in ("index.html", "routes.py", "__init__.py", "..%2Fapp.py", "%2e%2e/app.py"):
        assert status(f"/hokusai-dns/page/{path}", viewer)[0] == 404
    code, headers = status("/hokusai-dns/", viewer)
    assert code == 200
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
    assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]


def test_healthy(world, admin):
    """State, sentence, address, source, age and time to live of a real answer."""
    until(admin, ".badge", "Healthy")
    assert HOSTNAME in told(admin, ".sentence")
    assert re.search(
        rf"Address {ADDRESS} Source DNS(, cached)?, \d+ s old, TTL (\d s left|expired) "
        r"DNS resolves MLflow works, [\d.]+ ms, checked \d+ s ago",
        told(admin, ".facts"),
    ), told(admin, ".facts")


def test_the_button_runs_the_refresh_dag(world, admin):
    """With the cookie of the login alone; the run's own words come back, and the history grows."""
    admin.frame.get_by_role("button", name="Refresh DNS").click()
    said = admin.frame.locator("#refresh-said")
    said.get_by_text("1 name resolved in").wait_for(timeout=1000 * CHANGE_SECONDS)
    (run,) = world.airflow.ask("GET", f"/api/v2/dags/{REFRESH_DAG}/dagRuns")["dag_runs"]
    assert (run["state"], run["run_type"]) == ("success", "manual")
    until(admin, ".summary", "1 check")
    assert admin.frame.locator("rect.resolved").count() == 1
    assert "1 check, 100 % resolved" in told(admin, ".summary")
    picture(admin, "status-healthy")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_follows_the_theme_of_airflow(admin, axe_source, theme):
    """The colours behind the frame are those in it; and axe finds nothing in either."""
    choose_theme(admin, theme)
    frame = admin.window.frames[-1]
    # A canvas makes one notation of all: the same colour may be written in many ways.
    ground = """(node) => {
        const dot = document.createElement("canvas").getContext("2d");
        dot.fillStyle = getComputedStyle(node).backgroundColor;
        dot.fillRect(0, 0, 1, 1);
        return [...dot.getImageData(0, 0, 1, 1).data];
    }"""
    around, within = admin.window.locator("html").first, frame.locator("body")
    assert around.evaluate(ground) == within.evaluate(ground)
    frame.evaluate(axe_source)
    found = frame.evaluate("axe.run()")["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_forms_name_their_keys_and_the_test_button_says_what_to_do(world, browser, theme):
    """The connection form, what its Test button found, and the form of the refresh DAG."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 1000}, timezone_id="UTC", color_scheme=theme
    )
    context.set_default_timeout(PATIENCE_MS)
    page = sign_in(context, world.airflow, "admin")

    def pictured(name: str) -> None:
        if folder := os.environ.get("PICTURES"):
            photograph(page, folder, name, theme)

    page.goto(f"{world.airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").click()
    page.locator("input[name=connection_id]").fill(f"mlflow_{theme}")
    page.get_by_role("combobox").last.click()
    page.keyboard.type("MLflow")
    page.keyboard.press("Enter")
    page.locator("input[name=host]").fill(HOSTNAME)
    page.locator("input[name=port]").fill("1")
    page.locator("input[name=schema]").fill("http")
    page.get_by_text("Extra Fields").first.click()
    page.locator("input[name=element_nameservers]").fill(world.dns.address)
    (connection,) = get_provider_info()["connection-types"]
    for key in connection["conn-fields"]:
        assert page.get_by_text(f"({key})").count() == 1
    page.get_by_text("Extra Fields").first.scroll_into_view_if_needed()
    pictured("connection-form")
    page.get_by_role("button", name="Save").click()
    page.set_viewport_size({"width": 1280, "height": 440})
    row = page.get_by_role("row", name=f"mlflow_{theme}")
    row.get_by_role("button", name="Test Connection").click()
    said = page.get_by_text("nothing listens at")
    said.wait_for()
    assert f"http://{HOSTNAME}:1 cannot be reached" in said.inner_text()
    pictured("test-button")

    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{world.airflow.url}/dags/{REFRESH_DAG}")
    page.get_by_role("button", name="Trigger").first.click()
    for key in ("connections", "hostnames", "fail_on_unresolved"):
        page.get_by_text(f"({key})").wait_for()
    pictured("trigger-form")
    context.close()


def test_degraded(world, admin):
    """The name is gone, the stale address works: the page says which, how old, and why."""
    world.dns.no_such_name(HOSTNAME)
    until(admin, ".badge", "Degraded")
    facts = told(admin, ".facts")
    assert re.search(rf"Address {ADDRESS} Source .+, \d+ s old DNS no such name", facts), facts
    assert "MLflow works, " in facts
    assert "nxdomain" in told(admin, ".sentence")
    until(admin, ".limit:visible", "limit: 15 min")
    assert re.search(r"Used for another 1[45] min", told(admin, ".limit"))
    picture(admin, "status-degraded")
    admin.frame.get_by_role("link", name="no such name").click()
    admin.frame.locator("h3:target", has_text="nxdomain").wait_for()
    admin.frame.get_by_role("link", name="Back to the status page").click()
    until(admin, ".badge", "Degraded")


def test_down(world, admin):
    """MLflow itself is away."""
    world.dns.heal(HOSTNAME)
    world.mlflow.stop()
    until(admin, ".badge", "Unhealthy")
    assert "cannot be reached" in told(admin, ".sentence")
    assert "MLflow unreachable, connection refused" in told(admin, ".facts")
    picture(admin, "status-down")


def test_a_variable_that_was_edited_into_nonsense(world, admin):
    """Shown as such, on the page that an admin reads."""
    key = variable_key(HOSTNAME)
    nonsense = {"key": key, "value": "<b>nonsense</b>"}
    world.airflow.ask("PATCH", f"/api/v2/variables/{key}", nonsense)
    until(admin, ".problem:visible", "JSON")
    assert key in told(admin, ".problem:visible")


def test_a_paused_dag_is_said(world, admin):
    """And the button starts nothing that would wait for ever."""
    path = f"/api/v2/dags/{REFRESH_DAG}"
    world.airflow.ask("PATCH", path, {"is_paused": True})
    admin.window.reload()
    said = admin.frame.locator("#refresh-said").get_by_text("is paused: unpause it")
    said.wait_for()
    assert admin.frame.get_by_role("button", name="Refresh DNS").get_attribute("aria-disabled")
    world.airflow.ask("PATCH", path, {"is_paused": False})


def test_a_viewer_sees_all_and_starts_nothing(world, browser):
    """Airflow's own rights decide."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    token = world.airflow.token("viewer")
    context.add_cookies([{"name": "_token", "value": token, "url": world.airflow.url}])
    page = context.new_page()
    page.goto(f"{world.airflow.url}/hokusai-dns/")
    page.locator(".badge", has_text="Unhealthy").wait_for()
    page.locator("#refresh-said").get_by_text("You need the permission to trigger").wait_for()
    assert page.get_by_role("button", name="Refresh DNS").count() == 0
    context.close()


def test_an_api_server_that_is_away_is_said(world, admin):
    """What was known stays, with its age; when the server is back, the page goes on."""
    admin.frame.locator(".connection").wait_for()
    world.airflow.stop("api-server")
    again = "dispatchEvent(new Event('online'))"
    frame = admin.window.frames[-1]
    frame.evaluate(again)
    trouble = admin.frame.locator("#trouble")
    trouble.get_by_text("The API server does not answer").wait_for()
    assert admin.frame.locator(".connections.old .connection").count() == 1


def test_fifty_connections(world, admin, axe_source):
    """Real ones: the worst first, each with what the refresh DAG saw of it."""
    airflow, mlflow, dns = world.airflow, world.mlflow, world.dns
    hosts = {f"mlflow_team_{n:02}": f"mlflow-{n:02}.hokusai-test.local" for n in range(50)}
    for conn_id, host in hosts.items():
        dns.set_records(host, [ADDRESS], ttl=2)
        port = 1 if conn_id == "mlflow_team_03" else mlflow.port
        airflow.environment[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(
            {
                "conn_type": "mlflow",
                "host": host,
                "port": port,
                "schema": "http",
                "extra": {"nameservers": dns.address},
            }
        )
    airflow.environment["AIRFLOW__HOKUSAI_DNS__CONNECTIONS"] = ",".join(hosts)
    # Before the API server is there: it looks up the listed names as it starts.
    dns.no_such_name(hosts["mlflow_team_40"])
    mlflow.start()
    airflow.stop("scheduler")
    for part in ("api-server", "scheduler"):
        airflow.start(part)
    airflow.wait()
    run = {"logical_date": None, "conf": {"connections": list(hosts), "fail_on_unresolved": False}}
    path = f"/api/v2/dags/{REFRESH_DAG}/dagRuns"
    run_id = airflow.ask("POST", path, run)["dag_run_id"]
    end = time.monotonic() + 2 * CHANGE_SECONDS
    while airflow.ask("GET", f"{path}/{run_id}")["state"] not in ("success", "failed"):
        assert time.monotonic() < end
        time.sleep(1)
    for conn_id in ("mlflow_team_17", "mlflow_team_31"):
        dns.no_such_name(hosts[conn_id])

    admin.window.goto(f"{airflow.url}/")
    admin.frame = open_frame(admin.window)
    until(admin, "#overall", "46 of 50 connections are healthy; 2 unhealthy, 2 degraded.")
    names = admin.frame.locator(".connection h2").all_inner_texts()
    assert names[:4] == ["mlflow_team_03", "mlflow_team_40", "mlflow_team_17", "mlflow_team_31"]
    admin.frame.locator("rect").nth(40).wait_for(state="attached")
    admin.window.set_viewport_size({"width": 1280, "height": 760})
    picture(admin, "status-many")
    frame = admin.window.frames[-1]
    frame.evaluate(axe_source)
    found = frame.evaluate("axe.run()")["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []

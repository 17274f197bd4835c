"""Break one thing after the other; every way of looking shows the same cause."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from airflow_provider_hokusai_dns.plugins.prometheus import CONNECTION_CAUSE, CONNECTION_STATE
from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.certificates import Authority
from tests.integration.api_server import ApiServer
from tests.integration.conftest import LOOK_EVERY
from tests.page.conftest import chromium, without_chromium
from tests.servers import MLflowProcess, has_basic_auth

NAME = "mlflow.drill.local"
OTHER_NAME = "other.drill.local"
TLS_NAME = "tls.drill.local"
ADDRESS = "127.0.0.47"
ADMIN = ("admin", "a-Secret-of-the-drill-1")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(500),
    pytest.mark.skipif(not has_basic_auth(), reason="MLflow's basic-auth app needs mlflow[auth]"),
]


@dataclass
class Drill:
    """What is broken, and those who look."""

    api: ApiServer
    names: DNSServer
    mlflow: MLflowProcess
    expired_port: int
    ca_file: str
    window: Any = None
    read_log_from: int = 0

    def connect(self, **changes: object) -> None:
        """Lead the connection somewhere."""
        extra = {"nameservers": self.names.address, "cache_ttl": 0.1, **changes.pop("extra", {})}
        self.body = self.api.connect(
            **{"host": NAME, "port": self.mlflow.port, "login": ADMIN[0], "password": ADMIN[1],
               "extra": extra, **changes}
        )  # fmt: skip

    def well(self) -> None:
        """As it should be."""
        self.names.set_records(NAME, [ADDRESS], ttl=1)
        self.connect()


# --- how things are broken


def name_gone(drill: Drill) -> None:
    drill.names.no_such_name(NAME)


def dns_silent(drill: Drill) -> None:
    drill.names.silent(NAME)


def wrong_password(drill: Drill) -> None:
    drill.connect(password="not-the-password")


def host_check(drill: Drill) -> None:
    drill.connect(host=OTHER_NAME)


def certificate_expired(drill: Drill) -> None:
    drill.connect(host=TLS_NAME, port=drill.expired_port, schema="https",
                  extra={"ca_file": drill.ca_file})  # fmt: skip


def database_gone(drill: Drill) -> None:
    with contextlib.closing(sqlite3.connect(drill.mlflow.folder / "mlflow.db")) as database:
        database.execute("PRAGMA foreign_keys = OFF")
        database.execute("DROP TABLE experiments")
        database.commit()


def mlflow_down(drill: Drill) -> None:
    drill.mlflow.stop(kill=True)


@dataclass(frozen=True)
class Breakage:
    """One thing to break, and what every user must find.

    :param phrase: what people read in a sentence.
    :param from_health: whether all was well before.
    """

    broken_by: Callable[[Drill], None]
    level: str
    state: str
    cause: str
    phrase: str
    from_health: bool = True


#: In this order: what the last two break stays broken.
BREAKAGES = [
    Breakage(name_gone, "degraded", "degraded", "nxdomain", "nxdomain"),
    Breakage(dns_silent, "degraded", "degraded", "timeout", "timeout"),
    Breakage(wrong_password, "unhealthy", "unauthenticated", "http_401", "login and password"),
    Breakage(host_check, "unhealthy", "host_rejected", "invalid_host_header", "--allowed-hosts"),
    Breakage(certificate_expired, "unhealthy", "tls_error", "certificate_expired", "expired"),
    Breakage(database_gone, "unhealthy", "backend_down", "http_503", "database behind MLflow"),
    Breakage(mlflow_down, "unhealthy", "unreachable", "refused", "MLflow is down", False),
]


# --- who looks; each returns the text it was given


def endpoint(drill: Drill) -> str:
    (one,) = drill.api.get("/health/mlflow", "viewer").json()["connections"]
    verdict = one["verdict"] or {}
    return f"{one['state']} {verdict.get('state')} {one['cause']} {one['sentence']}"


def metrics(drill: Drill) -> str:
    families = {
        family.name: family.samples
        for family in text_string_to_metric_families(drill.api.get("/metrics", "viewer").text)
    }
    words = [s.labels["state"] for s in families[CONNECTION_STATE] if s.value == 1]
    for sample in families[CONNECTION_CAUSE]:
        words += [sample.labels["state"], sample.labels["cause"]]
    return " ".join(words)


def ready(drill: Drill) -> str:
    answer = drill.api.get("/ready")
    level = answer.json()["mlflow"]
    assert answer.status_code == (503 if level in ("unhealthy", "unknown") else 200)
    return str(level)


def test_button(drill: Drill) -> str:
    return str(drill.api.api("POST", "/api/v2/connections/test", drill.body)["message"])


test_button.__test__ = False  # type: ignore[attr-defined]


def log(drill: Drill) -> str:
    lines = drill.api.log[drill.read_log_from :].splitlines()
    return "\n".join(line for line in lines if "mlflow_default" in line)


def command_line(drill: Drill) -> str:
    done = run_command(drill, "status", "--output", "json")
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def run_command(drill: Drill, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``airflow hokusai-dns``, in a process that remembers nothing."""
    return subprocess.run(
        [sys.executable, "-m", "airflow", "hokusai-dns", *arguments],
        env=drill.api.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def page(drill: Drill) -> str:
    drill.window.evaluate("dispatchEvent(new Event('online'))")  # it asks again
    drill.window.wait_for_timeout(300)
    card = drill.window.locator(".connection")
    return " ".join([card.get_attribute("data-state"), card.inner_text()])


def says(breakage: Breakage) -> dict[Callable[[Drill], str], tuple[str, ...]]:
    """What each observer must say: machines read the words, people the sentence."""
    words = (breakage.level, breakage.state, breakage.cause)
    return {
        endpoint: (*words, breakage.phrase),
        metrics: words,
        ready: (breakage.level,),
        test_button: (breakage.phrase,),
        log: (*words, breakage.phrase),
        command_line: (*words, breakage.phrase),
        page: (breakage.level, breakage.phrase),
    }


#: Who is asked; each must be in :func:`says`.
OBSERVERS: list[Callable[[Drill], str]] = [
    endpoint, metrics, ready, test_button, log, command_line,
]  # fmt: skip
if (WHY_NO_PAGE := without_chromium()) is None:
    OBSERVERS.append(page)


@pytest.fixture(scope="module")
def expired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """A listener with a certificate of yesterday; its port, and the CA to trust."""
    authority = Authority(tmp_path_factory.mktemp("ca"))
    certificate, key = authority.issue(TLS_NAME, days=-1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server((ADDRESS, 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.settimeout(5)
            with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True):
                pass  # no caller gets further
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1], str(authority.file)
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


@pytest.fixture(scope="module")
def drill(
    api_server: ApiServer,
    names: DNSServer,
    expired: tuple[int, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Drill]:
    """Everything in order."""
    hosts = (f"{NAME}:*", f"{ADDRESS}:*")
    folder = tmp_path_factory.mktemp("drill")
    with MLflowProcess(folder, host=ADDRESS, allowed_hosts=hosts, admin=ADMIN) as mlflow:
        for name in (OTHER_NAME, TLS_NAME):
            names.set_records(name, [ADDRESS], ttl=1)
        drill = Drill(api_server, names, mlflow, *expired)
        drill.well()
        # Without it, a command line that starts while DNS is dead would know no address.
        assert run_command(drill, "refresh", "--conn-id", "mlflow_default").returncode == 0
        with contextlib.ExitStack() as stack:
            if WHY_NO_PAGE is None:
                drill.window = stack.enter_context(chromium()).new_page()
                cookie = {"name": "_token", "value": api_server.token("viewer")}
                drill.window.context.add_cookies([{**cookie, "url": api_server.url}])
                drill.window.goto(f"{api_server.url}/hokusai-dns/")
                drill.window.locator(".connection").wait_for()
            yield drill


def find_out(drill: Drill, observer: Callable[[Drill], str], words: tuple[str, ...]) -> str:
    """Ask until it says so, as looks come once per interval; the last text in any case."""
    end = time.monotonic() + 25
    while True:
        text = observer(drill)
        if all(word in text for word in words) or time.monotonic() > end:
            return text
        time.sleep(LOOK_EVERY / 3)


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda one: one.broken_by.__name__)
def test_everybody_finds_the_same_cause(drill: Drill, breakage: Breakage) -> None:
    """In the browser, by curl, in Prometheus, in the log: one thing is wrong, and has one name."""
    drill.well()
    if breakage.from_health:
        assert "healthy healthy None" in find_out(drill, endpoint, ("healthy healthy None",))
    drill.read_log_from = len(drill.api.log)
    breakage.broken_by(drill)
    expected = says(breakage)
    found = {
        observer.__name__: find_out(drill, observer, expected[observer]) for observer in OBSERVERS
    }
    for observer in OBSERVERS:
        for word in expected[observer]:
            assert word in found[observer.__name__], found
    assert all(ADMIN[1] not in text for text in found.values())


@pytest.mark.skipif(WHY_NO_PAGE is not None, reason=str(WHY_NO_PAGE))
def test_the_page_takes_part() -> None:
    """Without Chromium the drill is held without it, and this says so."""
    assert page in OBSERVERS

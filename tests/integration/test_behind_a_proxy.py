"""Two workers of Airflow's API server behind nginx, under a prefix and with https."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.certificates import Authority
from tests.conftest import HOSTNAME, TinyMLflow
from tests.integration.api_server import ApiServer
from tests.nginx import MISSING, nginx
from tests.servers import free_port, has_program, is_installed

PREFIX = "/airflow"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not has_program("nginx"), reason=MISSING),
    pytest.mark.skipif(not is_installed(), reason="Airflow finds us by our entry points alone"),
]

#: As Airflow's documentation has it ("Running Airflow behind a reverse proxy").
NGINX = """
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location {prefix}/ {{
            proxy_pass {behind};
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
            proxy_redirect off;
        }}
        location / {{ return 404; }}
    }}
"""


class Front:
    """nginx, and what a browser gets through it."""

    def __init__(self, api: ApiServer, url: str, ca: Path) -> None:
        self.api, self.url = api, url
        self._session = requests.Session()
        self._session.verify = str(ca)
        self._session.trust_env = False

    def ask(self, path: str, user: str | None = None, method: str = "GET") -> requests.Response:
        """One of our endpoints, on a connection of its own, so that any worker may get it."""
        headers = {"Connection": "close"}
        if user is not None:
            headers["Authorization"] = f"Bearer {self.api.token(user)}"
        return self._session.request(
            method, f"{self.url}/hokusai-dns{path}", headers=headers, timeout=60,
            allow_redirects=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def front(names, tmp_path_factory) -> Iterator[Front]:
    folder, port = tmp_path_factory.mktemp("front"), free_port()
    authority = Authority(folder)
    url = f"https://localhost:{port}{PREFIX}"
    settings = {
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "2",
        "AIRFLOW__HOKUSAI_DNS__LOOK_EVERY": "1",
        "FORWARDED_ALLOW_IPS": "*",
    }
    certificate, key = authority.issue("localhost")
    with (
        TinyMLflow("127.0.0.9") as tiny,
        ApiServer(tmp_path_factory.mktemp("api"), settings, PREFIX) as api,
        nginx(
            folder,
            NGINX.format(
                port=port,
                prefix=PREFIX,
                behind=f"http://127.0.0.1:{api.port}",
                certificate=certificate,
                key=key,
            ),
            "127.0.0.1",
            port,
        ),
    ):
        names.set_records(HOSTNAME, ["127.0.0.9"])
        api.connect(host=HOSTNAME, port=tiny.port, extra={"nameservers": names.address})
        yield Front(api, url, authority.file)


@pytest.mark.parametrize("path", ["/health", "/ready"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_words_for_anybody_are_there(front, path, method):
    """As a load balancer asks for them."""
    answer = front.ask(path, method=method)
    assert answer.status_code in (200, 503)
    assert bool(answer.content) == (method == "GET")


@pytest.mark.parametrize("path", ["/", "/health/mlflow", "/history", "/metrics", "/docs"])
def test_details_are_for_those_who_may_see_them(front, path):
    """The prefix opens no other way in."""
    assert front.ask(path).status_code == 401
    assert front.ask(path, "viewer").status_code == 200


def test_the_page_asks_for_nothing_outside_of_its_prefix(front):
    """Every reference is relative, and is there under the prefix."""
    page = front.ask("/", "viewer")
    references = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert references
    for reference in references:
        assert not reference.startswith(("/", "http:", "https:")), reference
        assert front.ask(f"/{reference}", "viewer").status_code == 200, reference


def test_a_path_without_its_slash_leads_to_the_same_place(front):
    """By https, under the prefix; or the browser would be sent around the proxy."""
    answer = front.ask("", "viewer")
    if answer.is_redirect:
        assert answer.headers["Location"] == f"{front.url}/hokusai-dns/"


def test_the_plugin_is_where_airflows_ui_looks_for_it(front):
    """Its link is relative to the base that Airflow sets."""
    headers = {"Authorization": f"Bearer {front.api.token('admin')}"}
    answer = requests.get(
        f"{front.url}/api/v2/plugins", headers=headers, verify=str(front._session.verify),
        timeout=60,
    )  # fmt: skip
    (ours,) = [one for one in answer.json()["plugins"] if one["name"] == "hokusai_dns"]
    (view,) = ours["external_views"]
    assert view["href"] == "hokusai-dns/"


def test_two_workers_see_the_same_and_each_says_who_it_is(front):
    """Each checks for itself; who reads the numbers can tell them apart."""
    seen: dict[int, dict[str, str]] = {}
    end = time.monotonic() + 90
    while len(seen) < 2 or {one["state"] for one in seen.values()} != {"healthy"}:
        assert time.monotonic() < end, seen
        answer = front.ask("/health/mlflow", "viewer").json()
        seen[answer["seen_by"]["pid"]] = answer["connections"][0]
    assert {one["addresses"][0] for one in seen.values()} == {"127.0.0.9"}
    for _ in range(20):
        assert front.ask("/ready").status_code == 200

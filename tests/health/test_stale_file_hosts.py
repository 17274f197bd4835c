"""Old addresses of hosts for presigned artifacts."""

from __future__ import annotations

import pytest

from airflow_provider_hokusai_dns.config.server import StaleOverHTTP
from airflow_provider_hokusai_dns.health.stale_addresses import check_stale_file_host
from airflow_provider_hokusai_dns.resolver.model import Source
from tests.values import a_server, an_address


@pytest.mark.parametrize(
    ("choice", "age", "port", "objection"),
    [
        (StaleOverHTTP.NEVER, 10.0, 9000, "never"),
        (StaleOverHTTP.CHECKED, 10.0, 9000, None),
        (StaleOverHTTP.CHECKED, 901.0, 9000, "901 s old"),
        (StaleOverHTTP.ALWAYS, 90_000.0, 9000, None),
        (StaleOverHTTP.NEVER, 90_000.0, 443, None),
    ],
)
def test_the_authors_choice_and_the_age_decide_over_http(
    choice: StaleOverHTTP, age: float, port: int, objection: str | None
) -> None:
    """Over https the certificate does."""
    resolution = an_address("10.0.0.1", source=Source.STALE, age=age, hostname="files.test")
    server = a_server(allow_stale_over_http=choice, also_pin=("files.test",))
    why = check_stale_file_host(server, resolution, "10.0.0.1", port)
    if objection is None:
        assert why is None
    else:
        assert why is not None
        assert objection in why

"""What others say, and what may be a secret, in messages of the resolver's own parts."""

from __future__ import annotations

import pytest

from airflow_provider_hokusai_dns.resolver import ResolverConfig
from airflow_provider_hokusai_dns.resolver.target import Target, quoted


def test_what_a_server_says_is_one_bounded_line_in_quotes():
    """A line break would forge a line of the log."""
    said = quoted("no\n[2026-11-26] INFO all is well\x1b[2J" + "x" * 20_000)
    assert said.startswith(r"'no\n[2026-11-26] INFO all is well\x1b[2Jxxx")
    assert said.isprintable()
    assert len(said) < 300
    assert said.endswith("x'...")
    assert quoted(ValueError("no")) == "'no'"


@pytest.mark.parametrize(
    "server",
    [
        "10.0.0.2/24",
        "[fd00::2",
        "u:hunter2@10.0.0.2",
        "dns://u:hunter2@10.0.0.2",
        "u:hunter2",
        "10.0.0.2:hunter2",
    ],
)
def test_a_wrong_nameserver_is_told_without_what_may_be_a_password(server: str):
    """The field is named, and the host where one can be told."""
    with pytest.raises(ValueError, match=r"^nameservers: ") as error:
        ResolverConfig(nameservers=(server,))
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("address", ["http://u:hunter2@10.0.0.1", "u:hunter2@10.0.0.1"])
def test_a_wrong_static_address_is_told_without_what_may_be_a_password(address: str):
    """People paste the whole URL."""
    with pytest.raises(ValueError, match="is not an IP address") as error:
        ResolverConfig(static_addresses={"mlflow.local": (address,)})
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("text", ["bob:hunter2", "http://bob:hunter2", "http://bob:hun:ter2/x"])
def test_a_login_without_a_host_is_not_told(text: str):
    """The host was forgotten, so the password stands where a port would."""
    with pytest.raises(ValueError, match=r"bob:\.\.\.") as error:
        Target.parse(text)
    assert "ter2" not in str(error.value)

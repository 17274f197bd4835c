"""The axes of the matrix, and the cells that are not green with the reason why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.servers import OTHER_CLIENT

#: Every name ends like this; only the tests' own name servers know one.
DOMAIN = "matrix.test"
FILE_HOST = f"files.{DOMAIN}"
EXPERIMENT = "matrix"
LOGIN, PASSWORD = "admin", "a-Secret-of-the-matrix-1"
TOKEN = "a-token-of-the-matrix"
WORKSPACE = "team-a"
CLIENT = "task"


@dataclass(frozen=True)
class Setup:
    """One way to reach one kind of server.

    :param server: which MLflow process is behind it.
    :param front: ``direct``, or what nginx does before it: ``sni`` or ``vhost``.
    """

    server: str
    front: str = "direct"
    schema: str = "http"
    login: str | None = None
    password: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def needs_nginx(self) -> bool:
        return self.front != "direct"

    @property
    def needs_basic_auth(self) -> bool:
        return self.server == "basic-auth"


_SIGNED_IN = {"login": LOGIN, "password": PASSWORD}
SETUPS = {
    "http, allowed hosts, bearer": Setup("plain", password=TOKEN),
    "https, own CA": Setup("tls", schema="https"),
    "https, nginx, SNI, client certificate": Setup("plain", "sni", "https"),
    "http, nginx, vhost": Setup("plain", "vhost"),
    "http, basic-auth": Setup("basic-auth", **_SIGNED_IN),
    "https, nginx, SNI, client certificate, basic-auth": Setup(
        "basic-auth", "sni", "https", **_SIGNED_IN
    ),
    "http, workspace": Setup("workspaces", extra={"workspace": WORKSPACE}),
}

#: What DNS does in a column, and where the address then has to come from. ``memory``: the process
#: has resolved the name before. ``store``: it starts now, and only the shared Variable knows.
COLUMNS = {
    "healthy": ("fresh", None),
    "no such name, memory": ("stale", "nxdomain"),
    "SERVFAIL, memory": ("stale", "servfail"),
    "silent, memory": ("stale", "timeout"),
    "no such name, store": ("store", "nxdomain"),
    "SERVFAIL, store": ("store", "servfail"),
    "silent, store": ("store", "timeout"),
}

if OTHER_CLIENT is not None:
    # The resolver does not know the version of MLflow's client: one fault of each kind is enough.
    COLUMNS = {name: COLUMNS[name] for name in ("healthy", "SERVFAIL, memory", "silent, store")}

FLOWS = (
    "REST",
    "light REST",
    "fluent",
    "async logging",
    "proxied artifacts",
    "presigned artifacts on another host",
    "registry",
    "tracing",
)

#: Cells that cannot be green: by setup and flow, in every column, the reason. README.md's limits
#: say the same. The test fails when one of these works, so that nothing stands here too long.
NOT_GREEN: dict[tuple[str, str], str] = {}

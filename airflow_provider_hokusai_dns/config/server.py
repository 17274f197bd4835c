"""One MLflow server, as parsed from one Airflow connection.

Created by :mod:`~airflow_provider_hokusai_dns.config.connections`. Reads no configuration itself.
"""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_provider_hokusai_dns.config.errors import TLSFileError
from airflow_provider_hokusai_dns.config.origin import origin_of
from airflow_provider_hokusai_dns.resolver.target import Target

if TYPE_CHECKING:
    import ssl

WORKSPACE_HEADER = "X-MLFLOW-WORKSPACE"
_TOKEN = re.compile(r"[\x21-\x7e]+\Z")
#: The API of workspaces, which belongs to no workspace.
_WORKSPACES = re.compile(r".*/(?:ajax-)?api/\d+\.\d+/mlflow/workspaces(?:/.*)?\Z")


class StaleOverHTTP(StrEnum):
    """Whether an address that is not fresh may be used over plain http."""

    NEVER = "never"
    CHECKED = "checked"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The login. Neither part is shown by ``repr``.

    :param username: set for basic authentication, together with ``secret`` as the password.
    :param secret: the password, or the bearer token when there is no user name.
    :raises ValueError: a part is invalid; the error names it, but not its value.
    """

    username: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        return bool(self.secret)

    def __post_init__(self) -> None:
        # The HTTP library quotes an invalid header value in its exception: reject it before that.
        if self.username and ":" in self.username:
            raise ValueError("the login must not contain a colon (basic authentication, RFC 7617)")
        if self.secret and not self.username and not _TOKEN.match(self.secret):
            raise ValueError(
                "the bearer token may contain visible ASCII characters only: check for a space or "
                "a line break at its end"
            )

    @property
    def kind(self) -> str:
        """``basic``, ``bearer`` or ``none``."""
        if not self:
            return "none"
        return "basic" if self.username else "bearer"

    def authorization(self) -> str | None:
        """The value of the ``Authorization`` header, or ``None`` without credentials."""
        if not self:
            return None
        if self.username:
            pair = f"{self.username}:{self.secret}".encode()
            return "Basic " + base64.b64encode(pair).decode("ascii")
        return f"Bearer {self.secret}"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How names are resolved for one connection: all of its name settings.

    An answer belongs to a view. Connections with equal views share answers; the settings of one
    connection never decide where the requests of another go. The default view has no settings.
    Durations are seconds.

    :param hostname: the normalised name to which all settings but the nameservers apply; empty if
        there are none but nameservers.
    """

    hostname: str = ""
    nameservers: tuple[str, ...] = ()
    srv: str = ""
    fallback_addresses: tuple[str, ...] = ()
    cache_ttl: float | None = None
    max_stale: float | None = None

    @property
    def asked(self) -> tuple[str, ...]:
        """The nameservers and the SRV name to query instead of the system's and the hostname.

        The fleet's shared records are kept separate by this.
        """
        return (*self.nameservers, f"SRV {self.srv}") if self.srv else self.nameservers

    def difference(self, other: View) -> str:
        """The first field in which two views differ; empty if they are equal."""
        names = [item.name for item in fields(self) if item.name != "hostname"]
        return next((n for n in names if getattr(self, n) != getattr(other, n)), "")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy between this machine and a server. It resolves the server's name.

    :param authorization: the value of the ``Proxy-Authorization`` header.
    """

    hostname: str
    port: int
    authorization: str | None = field(default=None, repr=False)

    @property
    def uri(self) -> str:
        """The proxy's URL, without a login."""
        return f"http://{_in_url(self.hostname)}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MLflowServer:
    """One MLflow server as a connection describes it. Durations are seconds.

    :param conn_id: the Airflow connection id; credentials are stored under it.
    :param scheme: ``http`` or ``https``.
    :param hostname: as given on the connection, a name or an address without brackets.
    :param port: ``None`` for the scheme's default.
    :param path_prefix: empty, or begins with a slash and does not end with one.
    :param srv: the SRV name (RFC 2782) to look up for addresses and port, instead of the address
        records of the hostname; empty for none.
    :param verify: whether a server certificate is verified.
    :param deadline: how long a call inside a run waits while nothing gets through.
    :param request_timeout: how long one call outside a run may take.
    :param proxy: the HTTP proxy to the server, if any. Then the proxy's name is resolved here, and
        the connection's settings for the server's name (``srv``, ``nameservers``,
        ``fallback_addresses`` ...) have no effect.
    """

    conn_id: str
    scheme: str
    hostname: str
    port: int | None = None
    path_prefix: str = ""
    credentials: Credentials = field(default=Credentials(), repr=False)
    ca_file: str | None = None
    client_cert: str | None = None
    verify: bool = True
    workspace: str | None = None
    registry_uri: str | None = None
    experiment: str | None = None
    request_timeout: float = 30.0
    max_retries: int | None = None
    deadline: float = 600.0
    fallback_addresses: tuple[str, ...] = ()
    also_pin: tuple[str, ...] = ()
    max_stale: float | None = None
    cache_ttl: float | None = None
    nameservers: tuple[str, ...] = ()
    srv: str = ""
    allow_stale_over_http: StaleOverHTTP = StaleOverHTTP.CHECKED
    proxy: Proxy | None = None

    @property
    def named(self) -> str:
        """The connection, for a sentence; a connection under test is not named by its id."""
        return f"connection {self.conn_id!r}" if self.conn_id else "this connection"

    @property
    def authority(self) -> str:
        """Host and port as written in a URL."""
        host = _in_url(self.hostname)
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def uri(self) -> str:
        """The tracking URI with the hostname, without a tag or a secret."""
        return f"{self.scheme}://{self.authority}{self.path_prefix}"

    def headers(self, path: str) -> dict[str, str]:
        """The login and the workspace, as a request to this server has them.

        The server resolves the workspace before it routes, so workspaces themselves are listed and
        created without it, as by MLflow's client.

        :param path: with or without the query.
        """
        headers = {}
        if (authorization := self.credentials.authorization()) is not None:
            headers["Authorization"] = authorization
        if self.workspace is not None and not _WORKSPACES.match(path.partition("?")[0]):
            headers[WORKSPACE_HEADER] = self.workspace
        return headers

    @property
    def registry_prefix(self) -> str | None:
        """The path of the model registry below :attr:`uri`; ``None`` if it is elsewhere."""
        registry = self.registry_uri or self.uri
        path = urlsplit(registry).path.rstrip("/")
        below = f"{path}/".startswith(f"{self.path_prefix}/")
        is_here = below and origin_of(registry) == origin_of(self.uri)
        return path.removeprefix(self.path_prefix) if is_here else None

    @property
    def own_port(self) -> int:
        """The TCP port that the server listens on."""
        return self.port or (443 if self.scheme == "https" else 80)

    @property
    def connect_host(self) -> str:
        """The host to connect to: the proxy's, else the server's own."""
        return self.hostname if self.proxy is None else self.proxy.hostname

    @property
    def connect_uri(self) -> str:
        """The URI whose host is resolved here: the proxy's, else the server's own."""
        return self.uri if self.proxy is None else self.proxy.uri

    @property
    def connect_name(self) -> str:
        """That host in a sentence."""
        return f"{'' if self.proxy is None else 'the proxy '}{self.connect_host!r}"

    @property
    def name_in_dns(self) -> str:
        """What DNS is asked about in a sentence: that host, or the SRV record instead of it."""
        srv = self.view.srv
        return f"the SRV record {srv!r}" if srv else self.connect_name

    @property
    def connect_port(self) -> int:
        """The TCP port to connect to."""
        return self.own_port if self.proxy is None else self.proxy.port

    @property
    def view(self) -> View:
        """How the name of the host to connect to is resolved."""
        target = Target.parse(self.hostname)
        if self.proxy is not None or target.literal is not None:
            return View()
        view = View(
            nameservers=self.nameservers,
            srv=self.srv,
            fallback_addresses=self.fallback_addresses,
            cache_ttl=self.cache_ttl,
            max_stale=self.max_stale,
        )
        if view == self.view_beside:
            return view
        return replace(view, hostname=target.hostname.removesuffix("."))

    @property
    def view_beside(self) -> View:
        """How the names of ``also_pin`` are resolved: they are in the same private zone."""
        return View(nameservers=self.nameservers)


def tls_context(server: MLflowServer) -> ssl.SSLContext | None:
    """The TLS settings of a connection, as ``requests`` takes them; ``None`` for plain http.

    :raises TLSFileError: a file is wrong; the error names it and says why.
    """
    if server.scheme != "https":
        return None
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if server.verify:
        bundle = server.ca_file or _default_bundle()
        try:
            if os.path.isdir(bundle):  # noqa: PTH112
                context.load_verify_locations(capath=bundle)
            else:
                context.load_verify_locations(cafile=bundle)
        except (OSError, ssl.SSLError) as error:
            what = "the ca_file" if server.ca_file else "the CA bundle"
            raise TLSFileError(_unusable(what, bundle, server, error)) from None
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if server.client_cert:
        try:
            context.load_cert_chain(server.client_cert, password=_refuse_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise TLSFileError(
                _unusable("the client_cert", server.client_cert, server, error)
            ) from None
    return context


def _in_url(hostname: str) -> str:
    return f"[{hostname}]" if ":" in hostname else hostname


def _unusable(what: str, path: str, server: MLflowServer, error: Exception) -> str:
    why = getattr(error, "strerror", None) or "it is not a PEM file with the required content"
    return f"{what} {path!r} of {server.named} cannot be used here: {why}"


def _refuse_password() -> str:
    raise ValueError("the key needs a passphrase")


def _default_bundle() -> str:
    """The CA bundle that ``requests``, and so MLflow's client, uses by default."""
    import certifi

    return (
        os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where()
    )

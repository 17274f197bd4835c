"""Turns Airflow's connections, or ``MLFLOW_TRACKING_URI``, into MLflow servers.

A connection is validated completely before it is used. An error names the field and the value, but
never a value that could be a secret.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote

from airflow_provider_hokusai_dns import supervisor
from airflow_provider_hokusai_dns.config import missing, proxies
from airflow_provider_hokusai_dns.config.errors import (
    ConnectionMissingError,
    ConnectionUndefinedError,
    SettingError,
)
from airflow_provider_hokusai_dns.config.fields import (
    EXTRAS,
    checked,
    described,
    did_you_mean,
    read_flag,
    read_http_target,
    read_http_uri,
    read_path_prefix,
    read_srv,
)
from airflow_provider_hokusai_dns.config.overrides import original_value
from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer
from airflow_provider_hokusai_dns.config.settings import (
    CONN_TYPES,
    DEFAULT_CONN_ID,
    TRACKING_VARIABLE,
    listed_connections,
    option,
)
from airflow_provider_hokusai_dns.resolver.target import Target, quoted, shown

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

_SCHEMES = ("http", "https")


def server_from_connection(connection: Connection) -> MLflowServer:
    """Read a connection of type ``mlflow`` or ``http``.

    :raises SettingError: names the field and what is wrong with it.
    """
    where = f"connection {connection.conn_id!r}"
    conn_type = (connection.conn_type or "mlflow").lower()
    if conn_type not in CONN_TYPES:
        raise SettingError(where, "type", f"{described(conn_type)} is not a connection to MLflow; "
                           "use the type mlflow (or http)")  # fmt: skip
    scheme, hostname, port, path = _location(where, connection, conn_type)
    extras = _extras(where, connection.extra)
    if path and extras.get("path_prefix", path) != path:
        raise SettingError(where, "path_prefix", f"the host already names {path!r}")
    extras.setdefault("path_prefix", path)
    if scheme == "https" and extras.get("verify", True):
        # The machine's proxy. MLflow's client uses it too: gate, run and REST calls see one server.
        extras.setdefault("ca_file", original_value("MLFLOW_TRACKING_SERVER_CERT_PATH") or None)
    if extras.pop("srv_lookup", False):
        if "srv" in extras:
            raise SettingError(where, "extra 'srv'", "srv_lookup already uses the host as the SRV "
            "name; leave one of the two empty")  # fmt: skip
        extras["srv"] = checked(where, "host", read_srv, hostname)
        hostname = _without_service(hostname)
    if "srv" in extras and Target.parse(hostname).literal is not None:
        raise SettingError(where, "extra 'srv'", "the host is an address, which has no SRV "
        "record; give a hostname")  # fmt: skip
    return MLflowServer(
        conn_id=connection.conn_id,
        scheme=scheme,
        hostname=hostname,
        port=port,
        credentials=_credentials(where, connection),
        **extras,
    )


def _without_service(name: str) -> str:
    """The part of an SRV name after its service and protocol, if it has them (RFC 2782)."""
    service, _, rest = name.partition(".")
    protocol, _, domain = rest.partition(".")
    return domain if service.startswith("_") and protocol.startswith("_") and domain else name


def _credentials(where: str, connection: Connection) -> Credentials:
    login, password = connection.login or None, connection.password or None
    if login and not password:
        raise SettingError(where, "password", "a login needs a password; for a bearer token, "
                           "leave the login empty and put the token into the password")  # fmt: skip
    field = "login" if login else "password"
    return checked(where, field, lambda _: Credentials(login, password), password)


def _location(
    where: str, connection: Connection, conn_type: str
) -> tuple[str, str, int | None, str]:
    """Scheme, hostname, port and path prefix."""
    host = (connection.host or "").strip()
    scheme = (connection.schema or "").strip().lower()
    if not host:
        raise SettingError(where, "host", "it is empty; give the hostname of the MLflow server")
    if "@" in host:
        raise SettingError(where, "host", "it contains a user name or password; they have their "
        "own fields, login and password")  # fmt: skip
    if "/" in host and "://" not in host:
        raise SettingError(
            where, "host", f"{shown(host)!r} contains a path; put it into path_prefix"
        )
    if scheme and scheme not in _SCHEMES:
        raise SettingError(where, "schema", f"{described(scheme)} is neither http nor https")
    try:
        target = Target.parse(host)
        if target.prefix:
            read_http_uri(host)
    except ValueError as error:
        raise SettingError(where, "host", f"{error}") from None
    path = ""
    if target.prefix:
        given = target.prefix.partition("://")[0].lower()
        if scheme and scheme != given:
            raise SettingError(where, "schema", f"{scheme!r}, but the host begins with {given}://")
        scheme = given
        path = checked(where, "host", read_path_prefix, host.partition("://")[2].partition("/")[2])
    port = _port(where, connection.port)
    if port is not None and target.port is not None and port != target.port:
        raise SettingError(where, "port", f"{port}, but the host names port {target.port}")
    hostname = target.literal or target.host_text
    scheme = scheme or ("https" if conn_type == "https" else "http")
    return scheme, hostname, target.port if port is None else port, path


def _port(where: str, value: object) -> int | None:
    if value is None or value == "":
        return None
    text = str(value).strip()
    is_number = not isinstance(value, bool) and text.isascii() and text.isdigit()
    if not is_number or len(text) > 5 or not 1 <= int(text) <= 65535:
        raise SettingError(where, "port", f"{described(value)} is not from 1 to 65535")
    return int(text)


def _extras(where: str, extra: str | None) -> dict[str, Any]:
    if not extra:
        return {}
    try:
        given = json.loads(extra)
    except (ValueError, RecursionError):
        raise SettingError(where, "extra", "it is not valid JSON") from None
    if not isinstance(given, dict):
        raise SettingError(where, "extra", "it must be a JSON object")
    read: dict[str, Any] = {}
    for name, value in given.items():
        if name not in EXTRAS:
            # Only the name: an unknown field may hold a secret.
            raise SettingError(
                where,
                f"extra {quoted(name, 60)}",
                f"there is no such field. {did_you_mean(name, EXTRAS)}Known are "
                f"{', '.join(EXTRAS)}",
            )
        if value is None or value == "":  # a form leaves an untouched field like this
            continue
        read[name] = checked(where, f"extra {name!r}", EXTRAS[name], value)
    return read


def load_server(conn_id: str = DEFAULT_CONN_ID) -> MLflowServer:
    """Read the connection ``conn_id`` from Airflow, on a worker or API server.

    If ``mlflow_default`` does not exist, ``MLFLOW_TRACKING_URI`` is used instead.

    :raises ConnectionMissingError: the connection does not exist or cannot be read;
        :class:`ConnectionUndefinedError` if Airflow reports clearly that it does not exist.
    :raises SettingError: names the field and what is wrong with it; or ``conn_id`` is no id.
    """
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

    check_id(conn_id)
    with supervisor.withheld_from_child():
        try:
            return _given(BaseHook.get_connection(conn_id))
        except AirflowNotFoundException:
            pass
        except PermissionError:
            raise _no_access(conn_id) from None
        return _stand_in(conn_id) or _raise_missing(conn_id, missing.why(conn_id))


async def aload_server(conn_id: str = DEFAULT_CONN_ID) -> MLflowServer:
    """The same as :func:`load_server`, for triggers."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

    check_id(conn_id)
    try:
        return _given(await BaseHook.aget_connection(conn_id))
    except AirflowNotFoundException:
        pass
    except PermissionError:
        raise _no_access(conn_id) from None
    return _stand_in(conn_id) or _raise_missing(conn_id, await missing.why_async(conn_id))


def check_id(conn_id: object) -> None:
    """Refuse what is no id: Airflow would fail in the middle of reading, or find nothing.

    :raises SettingError: it is not a text, or empty.
    """
    if not isinstance(conn_id, str) or not conn_id.strip():
        wrong = repr(conn_id) if isinstance(conn_id, str) else described(conn_id)
        reason = f"the id of a connection must be a string such as {DEFAULT_CONN_ID!r}, not {wrong}"
        raise SettingError("arguments", "connection id", reason)


#: Connections that this process has read. If one is missing now, it has probably become unreadable,
#: and work that was started on its server must not continue on another.
_found: set[str] = set()


def _given(connection: Connection) -> MLflowServer:
    _found.add(connection.conn_id)
    return _as_reached(server_from_connection(connection))


def _as_reached(server: MLflowServer) -> MLflowServer:
    """The server with the proxy that this process uses to reach it, if any."""
    proxy = proxies.proxy_for(server.uri)
    return server if proxy is None else replace(server, proxy=proxy)


def _no_access(conn_id: str) -> SettingError:
    reason = "the secrets backend says that this process may not read it; correct its policy"
    return SettingError(f"connection {conn_id!r}", "access", reason)


def _stand_in(conn_id: str) -> MLflowServer | None:
    uri = (original_value(TRACKING_VARIABLE) or "").strip()
    if conn_id == DEFAULT_CONN_ID and uri and conn_id not in _found:
        return _as_reached(_server_from_uri(uri))
    return None


def _raise_missing(conn_id: str, reason: missing.Reason) -> NoReturn:
    if reason is missing.Reason.ENCRYPTED:
        raise SettingError(
            f"connection {conn_id!r}",
            "password and extra",
            "they are in Airflow's database, and this process cannot decrypt them: [core] "
            "fernet_key is not the key that they were encrypted with. Put that key back (after the "
            "new one, with a comma, then run 'airflow rotate-fernet-key'), or enter them again",
        )
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    if is_set := variable in os.environ:
        # Airflow ignores a connection that it cannot read, and calls it missing.
        hint = (
            f"{variable} is set, but Airflow cannot read it: check its quoting, the names of its "
            "fields, and its port."
        )
    elif not re.fullmatch(r"[\w.-]+", conn_id):
        hint = (
            "Check the id: in Airflow's UI it may contain letters, digits, '_', '.' and '-' only."
        )
    else:
        hint = "Add it in the Airflow UI under Admin, Connections, with the type MLflow"
        hint += f", or set {variable}" if variable.isidentifier() else ""  # a shell can set it
        hint += f", or {TRACKING_VARIABLE}." if conn_id == DEFAULT_CONN_ID else "."
    if not is_set:
        hint = did_you_mean(conn_id, _known_connections()) + hint
    if reason is missing.Reason.UNDEFINED:
        raise ConnectionUndefinedError(conn_id, hint)
    if supervisor.belongs_to_parent():
        hint = (
            "A forked child cannot read one from Airflow, which answers only the task: use the "
            "task's hook, and call hook.get_conn() before the fork."
        )
    elif not is_set:
        hint += (
            " If it exists, Airflow cannot read it right now: check its API server, database and "
            "[secrets] backend."
        )
    raise ConnectionMissingError(conn_id, hint)


def _known_connections() -> set[str]:
    known = {*_found, *missing.known_connections()}
    if option("connections"):
        with contextlib.suppress(ValueError):
            known |= set(listed_connections())
    return known


def _server_from_uri(uri: str) -> MLflowServer:
    """Read ``MLFLOW_TRACKING_URI`` and the other variables that MLflow's client reads."""
    where = "environment"
    target = checked(where, TRACKING_VARIABLE, read_http_target, uri)
    scheme, _, userinfo = target.prefix.partition("://")
    login, _, password = userinfo.removesuffix("@").partition(":")
    path = target.suffix.removeprefix(target.port_text)
    insecure = (original_value("MLFLOW_TRACKING_INSECURE_TLS") or "").strip() or "false"
    return MLflowServer(
        conn_id=DEFAULT_CONN_ID,
        scheme=scheme.lower(),
        hostname=target.literal or target.host_text,
        port=target.port,
        path_prefix=checked(where, TRACKING_VARIABLE, read_path_prefix, path),
        credentials=_from_environment(TRACKING_VARIABLE, unquote(login), unquote(password))
        if password
        else _credentials_from_environment(),
        ca_file=original_value("MLFLOW_TRACKING_SERVER_CERT_PATH") or None,
        client_cert=original_value("MLFLOW_TRACKING_CLIENT_CERT_PATH") or None,
        verify=not checked(where, "MLFLOW_TRACKING_INSECURE_TLS", read_flag, insecure),
    )


def _credentials_from_environment() -> Credentials:
    """The credentials that MLflow's own client would use, in its order of precedence."""
    from configparser import ConfigParser, Error

    file, path = ConfigParser(), "~/.mlflow/credentials"
    try:
        with contextlib.suppress(RuntimeError):  # there is no home directory
            file.read(Path(path).expanduser(), encoding="utf-8")
        saved = [
            file.get("mlflow", name, fallback="")
            for name in ("mlflow_tracking_username", "mlflow_tracking_password")
        ]
    except (Error, UnicodeError):  # whose texts may quote the password
        reason = "it is not valid: correct it (configparser reads %% as a percent sign)"
        raise SettingError("environment", path, reason) from None
    username = original_value("MLFLOW_TRACKING_USERNAME") or saved[0]
    password = original_value("MLFLOW_TRACKING_PASSWORD") or saved[1]
    if username and password:
        origin = path if username == saved[0] else "MLFLOW_TRACKING_USERNAME"
        return _from_environment(origin, username, password)
    token = original_value("MLFLOW_TRACKING_TOKEN")
    return _from_environment("MLFLOW_TRACKING_TOKEN", None, token) if token else Credentials()


def _from_environment(origin: str, username: str | None, secret: str) -> Credentials:
    return checked("environment", origin, lambda _: Credentials(username, secret), secret)

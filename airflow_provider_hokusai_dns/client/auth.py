"""Credentials per connection for MLflow's own client.

MLflow calls a ``request_auth_provider`` plugin for every request. Ours finds the connection by a
harmless tag in the tracking URI (``http://<connection id>@host:5000``) and the secret in this
process's memory: there is no secret in the environment, a URI, a log or an exception.

MLflow imports this module by its entry point, in every process that talks to a server. So it
imports nothing that could fail: an exception here would break MLflow for all clients.
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from airflow_provider_hokusai_dns.client.errors import AuthProviderError, NotSignedInError
from airflow_provider_hokusai_dns.config.origin import origin_of, with_userinfo
from airflow_provider_hokusai_dns.config.overrides import original_value, put
from airflow_provider_hokusai_dns.resolver import forks

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_hokusai_dns.config.server import Credentials, MLflowServer

#: The name of our plugin, and ``MLFLOW_TRACKING_AUTH`` while a connection is signed in.
PROVIDER = "hokusai_dns"

VARIABLE = "MLFLOW_TRACKING_AUTH"

_lock = forks.free_in_child(threading.Lock())
#: By connection: its login, and the only server that it is sent to.
_signed_in: dict[str, MLflowServer] = {}
_signed_out: set[str] = set()
_previous: str | None = None


def sign_in(server: MLflowServer, renew: Callable[[], Credentials | None] = lambda: None) -> str:
    """Keep the credentials of a connection in memory, and return the URI that uses them.

    Signing in again replaces them. The URI contains the connection id and no secret.

    :param renew: reads the credentials from the connection again, if it can; called when the
        server answers 401, because a token may expire during a run.
    :raises AuthProviderError: MLflow would send requests without these credentials.
    """
    from airflow_provider_hokusai_dns.client import adapters

    _check_registered()
    signs_with_aws = os.environ.get("MLFLOW_TRACKING_AWS_SIGV4", "").lower() in ("true", "1")
    if server.credentials and signs_with_aws:
        raise AuthProviderError(
            f"{server.named} has credentials, but MLFLOW_TRACKING_AWS_SIGV4 is set "
            "in the environment and MLflow would sign every request with AWS keys instead: "
            "unset it, or remove the login from the connection"
        )
    with _lock:
        _signed_in[server.conn_id] = server
        _signed_out.discard(server.conn_id)
        _take_slot()
    adapters.mount(server, partial(_renewed, server.conn_id, renew))
    return tagged_uri(server)


def _renewed(conn_id: str, renew: Callable[[], Credentials | None]) -> str | None:
    """Read the login of a connection again; later requests use it too."""
    if (login := renew()) is None:
        return None
    with _lock:
        if (server := _signed_in.get(conn_id)) is not None:
            _signed_in[conn_id] = replace(server, credentials=login)
    return login.authorization()


def tagged_uri(server: MLflowServer) -> str:
    """The tracking URI with the connection id as its tag; :func:`sign_in` makes it work."""
    return f"{server.scheme}://{tag_of(server.conn_id)}@{server.authority}{server.path_prefix}"


def registry_uri(server: MLflowServer) -> str | None:
    """The model registry of a connection; with our tag if it is on the same server.

    If the connection sets none, ``MLFLOW_REGISTRY_URI`` applies, as for MLflow's own client.
    """
    named = server.registry_uri or original_value("MLFLOW_REGISTRY_URI")
    if not named or origin_of(named) != origin_of(server.uri):
        return named or None
    return with_userinfo(named, tag_of(server.conn_id))


def tag_of(conn_id: str) -> str:
    """A connection id as it is written in a URI."""
    return quote(conn_id, safe="")


def forget(conn_id: str) -> None:
    """Remove the credentials of a connection.

    Its clients raise :class:`NotSignedInError` from now on. After the last one,
    ``MLFLOW_TRACKING_AUTH`` gets its previous value.
    """
    global _previous
    with _lock:
        if _signed_in.pop(conn_id, None) is None:
            return
        _signed_out.add(conn_id)
        if not _signed_in and os.environ.get(VARIABLE) == PROVIDER:
            put(VARIABLE, _previous)
            _previous = None
    from airflow_provider_hokusai_dns.client import adapters

    adapters.drop(conn_id)


class ConnectionAuthProvider:
    """MLflow's ``request_auth_provider`` plugin, registered as an entry point.

    It has the methods of ``mlflow.tracking.request_auth.RequestAuthProvider`` without deriving
    from it, so that importing this module does not import MLflow.
    """

    def get_name(self) -> str:
        """The name of the plugin in ``MLFLOW_TRACKING_AUTH``."""
        return PROVIDER

    def get_auth(self) -> Authorize:
        """A ``requests`` auth object; which connection it is for is decided per request."""
        return Authorize()


class Authorize:
    """Sets the right ``Authorization`` header on one request, and removes any other."""

    def __call__(self, request: Any) -> Any:
        """Sign one request."""
        parts = urlsplit(request.url)
        conn_id = unquote(parts.username or "") if parts.password is None else ""
        server = _signed_in.get(conn_id)
        if server is None:
            if conn_id in _signed_out:
                raise NotSignedInError(conn_id)
            return _signed_in_without_us(request)
        # MLflow fills this in from MLFLOW_TRACKING_TOKEN, _USERNAME and _PASSWORD before it asks
        # us: those belong to another server.
        request.headers.pop("Authorization", None)
        if not server.credentials and _previous is not None:
            # Another plugin signs in where the connection does not.
            request = _signed_in_without_us(request)
        if origin_of(request.url) == origin_of(server.uri):
            request.headers.update(server.headers(parts.path))
        return request


def _signed_in_without_us(request: Any) -> Any:
    """Treat a request of another client as MLflow would without this package."""
    from requests.utils import get_netrc_auth

    if _previous is None:
        request.prepare_auth(get_netrc_auth(request.url))  # if there is none, that of the URL
        return request
    from mlflow.tracking.request_auth import registry

    fetch: Any = registry.fetch_auth
    if (auth := fetch(_previous)) is not None:
        request.prepare_auth(auth)
    return request


def _take_slot() -> None:
    """Set our plugin in the process's only slot, and save its previous value."""
    global _previous
    named = os.environ.get(VARIABLE)
    if named != PROVIDER:
        # An exported relay has removed it.
        if (theirs := original_value(VARIABLE)) != PROVIDER:
            _previous = theirs or None
        os.environ[VARIABLE] = PROVIDER


def _check_registered() -> None:
    """Check that MLflow finds our plugin: for an unknown name it only logs a warning."""
    from mlflow.tracking.request_auth import registry as mlflow_registry

    from airflow_provider_hokusai_dns.client import mlflow_private

    registry: Any = mlflow_registry
    try:
        providers = mlflow_private.AUTH.find()
        ours = [provider for provider in providers if provider.get_name() == PROVIDER]
        if not ours:
            # The package runs without its metadata (from a source folder): no entry point.
            providers.register(ConnectionAuthProvider)
        found = registry.fetch_auth(PROVIDER)
    except (AttributeError, TypeError) as error:
        raise AuthProviderError(
            "this version of MLflow has no request_auth_provider plugins as this package knows "
            f"them ({error}): use mlflow-skinny 3.10.1 or newer"
        ) from error
    if not isinstance(found, Authorize):
        raise AuthProviderError(
            f"another package has registered an MLflow request_auth_provider named {PROVIDER!r} "
            f"({type(found).__module__}): remove it, or credentials would go nowhere"
        )

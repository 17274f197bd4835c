"""The TLS settings of one connection, for all that dials its server itself."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_hokusai_dns.server import MLflowServer


class TLSFileError(ValueError):
    """A CA file or a client certificate of the connection cannot be used."""


def tls_context(server: MLflowServer) -> ssl.SSLContext | None:
    """The TLS settings of a connection, as ``requests`` would take them; ``None`` for plain http.

    :raises TLSFileError: names the file and what is wrong with it.
    """
    if server.scheme != "https":
        return None
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


def _unusable(what: str, path: str, server: MLflowServer, error: Exception) -> str:
    why = getattr(error, "strerror", None) or "it is no PEM file with what is needed"
    return f"{what} {path!r} of {server.named} cannot be used here: {why}"


def _refuse_password() -> str:
    raise ValueError("the key asks for a pass phrase")


def _default_bundle() -> str:
    """The CA bundle that ``requests``, and so MLflow's client, uses by default."""
    import certifi

    return (
        os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or certifi.where()
    )

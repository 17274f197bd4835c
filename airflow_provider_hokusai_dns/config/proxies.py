"""The HTTP proxy that the environment sets for a server, selected as ``requests`` does.

MLflow's client and ``hook.rest`` use it automatically. It resolves the server's name; this package
then resolves, pins and probes the proxy's name.
"""

from __future__ import annotations

import base64
import urllib.request
from urllib.parse import unquote, urlsplit

from airflow_provider_hokusai_dns.config.server import Proxy


def proxy_for(uri: str) -> Proxy | None:
    """The proxy for a URL by ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``.

    ``None`` without one, and for a proxy that does not speak plain http: MLflow's client still uses
    such a proxy, and a warning says that it is not covered.
    """
    if not urllib.request.getproxies():
        return None
    from requests.utils import get_environ_proxies, select_proxy

    chosen = select_proxy(uri, get_environ_proxies(uri, no_proxy=None))
    if not chosen:
        return None
    try:
        parts = urlsplit(chosen if "://" in chosen else f"http://{chosen}")
        hostname, port = parts.hostname, parts.port or 80
    except ValueError:  # requests refuses it with the first request
        return None
    if parts.scheme != "http" or not hostname:
        return None
    login = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        login = "Basic " + base64.b64encode(pair.encode("latin-1", "replace")).decode("ascii")
    return Proxy(hostname, port, login)

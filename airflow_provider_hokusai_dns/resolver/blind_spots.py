"""What the pin cannot cover in this process, as far as that can be detected."""

from __future__ import annotations

import logging
import sys
import urllib.request

log = logging.getLogger(__name__)

_warned: set[str] = set()


def warn_about_blind_spots(hostname: str) -> None:
    """Log what a pin does not cover, each case once per process."""
    for sentence in blind_spots(hostname):
        if sentence not in _warned:
            _warned.add(sentence)
            log.warning("Not covered by the pin of %s: %s.", hostname, sentence)


def blind_spots(hostname: str) -> list[str]:
    """One sentence for each way in which this process may bypass the pin of a name.

    The README lists what cannot be detected here: processes started by ``subprocess`` or
    ``spawn``, and a name passed to ``connect`` of a socket.
    """
    found = []
    proxies = urllib.request.getproxies()
    named = [scheme for scheme in ("http", "https", "all") if proxies.get(scheme)]
    if named and not urllib.request.proxy_bypass(hostname):
        # The URLs stay out of the sentence: a proxy's may hold a password.
        variables = ", ".join(f"{scheme}_proxy" for scheme in named)
        found.append(
            f"{variables} names a proxy, which resolves {hostname} itself: "
            f"add {hostname} to no_proxy if MLflow can be reached without it"
        )
    if "uvloop" in sys.modules:
        found.append(
            f"uvloop is loaded, whose event loops resolve names themselves: coroutines that "
            f"connect to {hostname} are not covered, threads are"
        )
    if _aiodns_is_used():
        found.append(
            f"aiohttp resolves {hostname} by aiodns in this process: give its connector the "
            "resolver of MLflowHook.aiohttp_resolver()"
        )
    for module, name in (("gevent.monkey", "gevent"), ("eventlet.green.socket", "eventlet")):
        if module in sys.modules:
            found.append(
                f"{name} has a create_connection of its own, which resolves {hostname} itself: "
                "requests and MLflow's client are covered, http.client is not"
            )
    return found


def _aiodns_is_used() -> bool:
    """Whether a session of aiohttp has a resolver of aiodns; Airflow loads both in every task.

    aiohttp counts them itself (since 3.12), in private attributes. Without these the answer is no.
    """
    manager = getattr(sys.modules.get("aiohttp.resolver"), "_DNSResolverManager", None)
    return bool(getattr(getattr(manager, "_instance", None), "_loop_data", None))

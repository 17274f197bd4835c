"""What the pin cannot cover in this process, found out where that is possible."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Container, Mapping


def blind_spots(
    hostname: str,
    *,
    proxies: Mapping[str, str] | None = None,
    modules: Container[str] | None = None,
) -> list[str]:
    """One sentence for each way in which this process may resolve a name past the pin.

    Processes started by ``subprocess`` or ``spawn`` cannot be seen from here; the README names
    them.

    :param hostname: the pinned name.
    :param proxies: proxy URLs by scheme; those of the environment by default.
    :param modules: names of loaded modules; those of this process by default.
    """
    proxies = urllib.request.getproxies() if proxies is None else proxies
    modules = sys.modules if modules is None else modules
    found = []
    named = [scheme for scheme in ("http", "https", "all") if proxies.get(scheme)]
    if named and not urllib.request.proxy_bypass(hostname, dict(proxies)):
        # The URLs stay out of the sentence: a proxy's may hold a password.
        variables = ", ".join(f"{scheme}_proxy" for scheme in named)
        found.append(
            f"{variables} names a proxy, which resolves {hostname} itself: "
            f"add {hostname} to no_proxy if MLflow can be reached without it"
        )
    if "uvloop" in modules:
        found.append(
            f"uvloop is loaded, whose event loops resolve names themselves: coroutines that "
            f"connect to {hostname} are not covered, threads are"
        )
    if "aiodns" in modules:
        found.append(
            f"aiodns is loaded, with which aiohttp resolves {hostname} itself: give its connector "
            "the resolver of MLflowHook.aiohttp_resolver()"
        )
    return found

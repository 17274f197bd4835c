"""Readers of one setting each: take the raw value, return the checked one.

A raw value comes from a form (a string), from JSON (a string, number, flag or list), from the
environment or from ``airflow.cfg`` (a string). Each reader raises :class:`ValueError` with one
sentence, which contains the value unless it may be a secret; the caller adds the field's name.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from airflow_provider_hokusai_dns.config.errors import SettingError
from airflow_provider_hokusai_dns.config.server import StaleOverHTTP
from airflow_provider_hokusai_dns.resolver.config import HARD_MAX_STALE, LONGEST, split_nameserver
from airflow_provider_hokusai_dns.resolver.target import Target, parse_address, shown

T = TypeVar("T")


def checked(where: str, field: str, read: Callable[[object], T], value: object) -> T:
    """A value as ``read`` reads it.

    :raises SettingError: names the field and what is wrong with it.
    """
    try:
        return read(value)
    except ValueError as error:
        raise SettingError(where, field, f"{error}") from None
    except (OverflowError, RecursionError):
        raise SettingError(where, field, "it is too large") from None


_LONGEST_PATH = 1000
#: Seconds that the system's functions can wait: threading.TIMEOUT_MAX is little more.
LONGEST_WAIT = 9e9
#: What need not be percent-encoded.
_USUAL = re.compile(r"[A-Za-z0-9._~:/-]*")
#: A number, perhaps with a unit, or a word: typical mistakes, which a message may repeat.
_PLAIN = re.compile(r"[+-]?[0-9]{1,12}([.,][0-9]{1,9})?[a-z]{0,3}|[A-Za-z]{1,10}")


def described(value: object) -> str:
    """A wrong value, for a message: the value if it is a number or a plain word, else its kind.

    A secret entered in the wrong field must not get into a log.
    """
    if isinstance(value, str):
        return repr(value) if _PLAIN.fullmatch(value) else f"a string of {len(value)} characters"
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list | tuple) else repr(value)[:40]


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """``"Did you mean 'x'? "`` for an unknown name; empty if no known name is similar."""
    import difflib

    others = [name for name in known if name != given]
    match = difflib.get_close_matches(given[:250], others, n=1, cutoff=0.75)
    return f"Did you mean {match[0]!r}? " if match else ""


def read_text(value: object) -> str:
    """A text without control characters."""
    if not isinstance(value, str):
        raise ValueError(f"{described(value)} is not a string")
    if not value.isprintable():
        raise ValueError("it contains a control character, for example a line break")
    return value.strip()


def read_header_text(value: object) -> str:
    """A text that is sent in a header of HTTP."""
    text = read_text(value)
    if not text.isascii():
        raise ValueError(
            f"{described(text)} contains a letter that is not ASCII, but is sent in a header"
        )
    return text


def read_seconds(value: object, *, most: float = LONGEST) -> float:
    """A number of seconds within bounds."""
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
    if not 0 <= number <= most:  # NaN is not either
        raise ValueError(f"{described(value)} is not a number of seconds from 0 to {most:.0f}")
    return number


def read_seconds_above_zero(value: object, *, most: float = LONGEST) -> float:
    """A number of seconds above 0."""
    number = read_seconds(value, most=most)
    if number == 0:
        raise ValueError(f"{described(value)} leaves no time at all; give seconds above 0")
    return number


def check_seconds(name: str, value: Any, *, may_be_zero: bool = False) -> None:
    """Check an argument that is a number of seconds, of Python and not of a form.

    :raises ValueError: it is not, or it cannot be waited for; the error names it and its value.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= LONGEST_WAIT or not (value or may_be_zero):
        least = "at least" if may_be_zero else "above"
        raise ValueError(
            f"{name} must be a number of seconds {least} 0 and at most {LONGEST_WAIT:.0f}, "
            f"not {value!r}"
        )


def read_count(value: object) -> int:
    """A whole number from 0, of at most nine digits."""
    text = str(value).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{described(value)} is not a whole number from 0 to 999999999")
    return int(text)


def read_flag(value: object) -> bool:
    """Yes or no."""
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise ValueError(f"{described(value)} is neither true nor false")


#: How an IPv6 address in brackets begins.
IPV6 = re.compile(r"\[[0-9A-Fa-f]*:")


def read_items(value: object) -> tuple[str, ...]:
    """A JSON list, or one text with commas between the items, as a form field has it."""
    if isinstance(value, str):
        value = value.strip()
        if value.startswith("[") and not IPV6.match(value):
            try:
                value = json.loads(value)
            except ValueError:
                raise ValueError("it begins like a JSON list but is not one") from None
        else:
            value = value.replace(",", " ").split()
    if not isinstance(value, list | tuple):
        raise ValueError(f"{described(value)} is not a list of strings")
    for item in value:
        if not isinstance(item, str):
            raise ValueError(f"it must be a list of strings, but contains {described(item)}")
    return tuple(value)


def _looks_like_host(item: str) -> bool:
    return "." in item or ":" in item


def _host(item: str) -> str:
    """An item of a list of hosts, for a message; a word without a dot may be a secret."""
    return repr(shown(item)) if _looks_like_host(item) else described(item)


def read_addresses(value: object) -> tuple[str, ...]:
    """IP addresses in their usual form."""
    items = read_items(value)
    for item in items:
        if parse_address(item) is None:
            raise ValueError(
                f"{_host(item)} is not an IP address in its usual form (10.0.1.221, fd00::1)"
            )
    return items


def read_hostnames(value: object) -> tuple[str, ...]:
    """Hostnames alone, normalised."""
    return tuple(map(_hostname, read_items(value)))


def _hostname(item: str) -> str:
    target = Target.parse(item)
    if target.text != target.host_text:
        raise ValueError(f"{shown(item)!r} is not just a hostname: leave out scheme, port and path")
    return target.hostname


def read_nameservers(value: object) -> tuple[str, ...]:
    """Nameservers as ``address`` or ``address:port``."""
    items = read_items(value)
    for item in items:
        if not _looks_like_host(item):
            raise ValueError(f"{described(item)} is not a nameserver: give an IP address")
        split_nameserver(item)
    return items


def read_srv(value: object) -> str:
    """An SRV name, for example ``_mlflow._tcp.service.consul``."""
    names = read_hostnames(read_text(value))
    if len(names) != 1:
        raise ValueError("it must be one name, such as _mlflow._tcp.service.consul")
    (hostname,) = names
    if Target.parse(hostname).literal is not None:
        raise ValueError(f"{hostname} is an address; give the name of an SRV record")
    return hostname


def read_path_prefix(value: object) -> str:
    """A path that begins with a slash and does not end with one, or nothing."""
    path = read_text(value)
    if any(character in path for character in "?# \\") or "://" in path:
        # Without the value: what stands after a question mark is a token more often than not.
        raise ValueError(
            "it is not just a path; write it as /mlflow, without host, query and fragment"
        )
    if len(path) > _LONGEST_PATH:
        raise ValueError(f"it is {len(path)} characters long; the limit is {_LONGEST_PATH}")
    path = _as_sent(path.strip("/"))
    return f"/{path}" if path else ""


def _as_sent(text: str) -> str:
    """A path or URI as MLflow's client sends it, percent-encoded."""
    if _USUAL.fullmatch(text):
        return text
    from requests.utils import requote_uri

    return requote_uri(text)


def read_http_target(value: object) -> Target:
    """An http or https URL without query and fragment, parsed."""
    uri = read_text(value)
    if not uri.lower().startswith(("http://", "https://")):
        example = "give one such as http://mlflow.example.local:5000"
        raise ValueError(f"{_host(uri)} is not an http or https URL; {example}")
    target = Target.parse(uri)
    if "?" in uri or "#" in uri:
        raise ValueError(
            "it contains a query or fragment: MLflow uses none, and it may be a secret"
        )
    return target


def read_http_uri(value: object) -> str:
    """An http or https URL without userinfo."""
    target = read_http_target(value)
    if "@" in target.prefix:
        raise ValueError("it contains a user name or password: a secret has no place in a URI")
    uri = target.text
    scheme, _, rest = uri.rstrip("/").partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority}{slash}{_as_sent(path)}"


def read_stale_over_http(value: object) -> StaleOverHTTP:
    """``never``, ``checked`` or ``always``."""
    try:
        return StaleOverHTTP(str(value).strip().lower())
    except ValueError:
        known = ", ".join(choice.value for choice in StaleOverHTTP)
        raise ValueError(f"{described(value)} is none of {known}") from None


#: Every extra of a connection, and how it is read. A new one also needs a field of ``MLflowServer``
#: (of ``View``, if it changes how names are resolved) and of the form in ``provider_info``, and a
#: line in README.md and docs/connection.md; tests name what is missing.
EXTRAS: Mapping[str, Callable[[object], Any]] = {
    "path_prefix": read_path_prefix,
    "ca_file": read_text,
    "client_cert": read_text,
    "verify": read_flag,
    "workspace": read_header_text,
    "registry_uri": read_http_uri,
    "experiment": read_text,
    "request_timeout": partial(read_seconds_above_zero, most=LONGEST_WAIT),
    "max_retries": read_count,
    "deadline": partial(read_seconds, most=LONGEST_WAIT),
    "fallback_addresses": read_addresses,
    "also_pin": read_hostnames,
    "max_stale": partial(read_seconds, most=HARD_MAX_STALE),  # policy rule 6
    "cache_ttl": read_seconds,
    "nameservers": read_nameservers,
    "srv": read_srv,
    "srv_lookup": read_flag,
    "allow_stale_over_http": read_stale_over_http,
}

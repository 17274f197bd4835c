"""Telling a DNS server in another process what to do: one command per line, one JSON per answer.

::

    set mlflow.local 10.0.0.1 fd00::1 ttl=10     ->  {"ok": true}
    no_such_name mlflow.local                    ->  {"ok": true}
    flapping mlflow.local answer servfail        ->  {"ok": true}
    count mlflow.local A                         ->  {"ok": true, "count": 3}
    set mlflow.local 10.0.0                      ->  {"ok": false, "error": "..."}
"""

from __future__ import annotations

import json
import shlex
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from airflow_provider_hokusai_dns.resolver.testing.faults import ANY, Fault
from airflow_provider_hokusai_dns.resolver.testing.zone import Zone

_Handler = Callable[[Zone, list[str], dict[str, int]], dict[str, Any] | None]


def _fault(kind: Fault, zone: Zone, words: list[str], _: dict[str, int]) -> None:
    zone.fault(words[0] if words else ANY, kind, rdtype=words[1] if len(words) > 1 else None)


def _named(verb: str, zone: Zone, words: list[str], _: dict[str, int]) -> None:
    getattr(zone, verb)(words[0] if words else ANY)


#: What a line may begin with.
COMMANDS: dict[str, _Handler] = {
    "set": lambda zone, words, options: zone.set_records(words[0], words[1:], **options),
    "cname": lambda zone, words, options: zone.set_cname(words[0], words[1], **options),
    "rdata": lambda zone, words, options: zone.set_rdata(words[0], words[1], words[2:], **options),
    "delay": lambda zone, words, _: zone.delay(words[0], float(words[1])),
    "flapping": lambda zone, words, options: zone.flapping(
        words[0], words[1:], every=options.get("every", 1)
    ),
    "count": lambda zone, words, _: {"count": zone.count(*words)},
    "queries": lambda zone, *_: {"queries": [query._asdict() for query in zone.queries]},
    "clear": lambda zone, *_: zone.clear_queries(),
    **{verb: partial(_named, verb) for verb in ("remove", "hold", "release", "heal")},
    **{kind.value: partial(_fault, kind) for kind in Fault},
}


def run_command(zone: Zone, line: str) -> str:
    """Carry out one line, and return its answer: one line of JSON. Never raises."""
    try:
        verb, *words = shlex.split(line) or [""]
        if verb not in COMMANDS:
            known = ", ".join(sorted([*COMMANDS, "stop"]))
            raise ValueError(f"unknown command {verb!r}; known are {known}")
        options = {}
        for word in [word for word in words if "=" in word]:
            key, _, value = word.partition("=")
            options[key] = int(value)
            words.remove(word)
        result = COMMANDS[verb](zone, words, options) or {}
    except (ValueError, TypeError, IndexError) as error:
        return json.dumps({"ok": False, "error": f"{line.strip()!r}: {error}"})
    return json.dumps({"ok": True, **result})


def send_command(control: str | int | Path, line: str, timeout: float = 10.0) -> dict[str, Any]:
    """Send one line to a server that was started with ``--control``.

    :param control: what it was started with: a port of 127.0.0.1, or the path of a Unix socket
        (which can be reached from another network namespace).
    :param timeout: seconds.
    :returns: the answer without its ``ok``.
    :raises ValueError: when the server says that the line is wrong.
    :raises OSError: when the server cannot be reached, or ends without an answer.
    """
    family, address = control_address(control)
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(address)
        with connection.makefile("rw", encoding="utf-8") as stream:
            stream.write(line + "\n")
            stream.flush()
            if not (told := stream.readline()).endswith("\n"):
                raise ConnectionResetError(f"the server at {control} ended without an answer")
    answer: dict[str, Any] = json.loads(told)
    if not answer.pop("ok"):
        raise ValueError(answer["error"])
    return answer


def control_address(control: str | int | Path) -> tuple[socket.AddressFamily, Any]:
    """The family and address of a control socket.

    :raises ValueError: for what is neither a port nor a path.
    """
    text = str(control)
    if text.isdigit() and int(text) < 65536:
        return socket.AF_INET, ("127.0.0.1", int(text))
    if "/" in text:
        return socket.AF_UNIX, text
    raise ValueError(f"--control takes a port or the path of a Unix socket, not {text!r}")

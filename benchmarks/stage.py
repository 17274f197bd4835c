"""A machine of our own: a DNS server in another process, and where the system allows it a private
network in which it is the system's nameserver too.

Only in there can ``getaddrinfo``, and whatever is built on it, be measured beside the others.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_hokusai_dns.resolver.testing import send_command

_INSIDE = "--inside"
_RESOLV_CONF = Path("/etc/resolv.conf")
_HOSTS = Path("/etc/hosts")
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


@dataclass(frozen=True)
class Nameserver:
    """The server under which everything is measured.

    :param is_the_systems: ``getaddrinfo`` asks it too.
    :param why_not: why it is not the system's.
    """

    host: str
    port: int
    control: Path
    is_the_systems: bool
    why_not: str = ""

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def tell(self, line: str) -> dict[str, Any]:
        """Have it do something; see ``resolver/testing/control.py`` for the words."""
        return send_command(self.control, line)

    def count(self, name: str, rdtype: str = "") -> int:
        """Queries that arrived for a name."""
        return int(self.tell(f"count {name} {rdtype}")["count"])

    def per_type(self, name: str) -> int:
        """Queries for a name, of the type that was asked most."""
        return max(self.count(name, "A"), self.count(name, "AAAA"))


def enter_private_network(arguments: Sequence[str]) -> str:
    """Start this program again in a network of its own; returns only if that is not possible.

    :returns: why not.
    """
    unshare = shutil.which("unshare")
    if unshare is None or shutil.which("mount") is None:
        return "unshare or mount is not installed"
    flags = "-nm" if os.geteuid() == 0 else "-rnm"
    probe = subprocess.run([unshare, flags, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        return f"no private network: {probe.stderr.strip()}"
    command = [unshare, flags, sys.executable, "-m", "benchmarks", _INSIDE, *arguments]
    os.execv(unshare, command)


@contextmanager
def nameserver(*, inside: bool, why_not: str) -> Iterator[Nameserver]:
    """The DNS server in its own process, as the system's nameserver when ``inside``."""
    with tempfile.TemporaryDirectory() as folder:
        control = Path(folder) / "control"
        host, port = "127.0.0.1", 0
        if inside:
            host, port = "127.0.0.53", 53
            _prepare(Path(folder), host)
        with subprocess.Popen(
            [sys.executable, "-m", "airflow_provider_hokusai_dns.resolver.testing",
             "--host", host, "--port", str(port), "--control", str(control)],
            stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                words = process.stdout.readline().split()
                yield Nameserver(host, int(words[3]), control, inside, why_not)
            finally:
                process.terminate()


def _prepare(folder: Path, host: str) -> None:
    """Bring up loopback, and put our own ``resolv.conf`` and hosts file in place."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        flags = struct.unpack("16sH14s", fcntl.ioctl(control, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", flags | _IFF_UP, b""))
    for target, text in (
        (_RESOLV_CONF, f"nameserver {host}\n"),
        (_HOSTS, f"127.0.0.1 localhost {socket.gethostname()}\n::1 localhost\n"),
    ):
        source = folder / target.name
        source.write_text(text, encoding="utf-8")
        subprocess.run(["mount", "--bind", source, target], check=True)

"""Nameservers of the field as processes of ours: nsd, knot, unbound in front of nsd, dnsmasq.

They come from Debian; where one is missing its tests are skipped with that reason.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from os import killpg
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import pytest

from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from tests.servers import session_members, wait_until

ZONE = "hokusai.test"
NAME = f"mlflow.{ZONE}"
TTL = 10
MANY = tuple(f"10.1.0.{i}" for i in range(1, 201))
RECORDS = {
    "mlflow": ("10.0.0.1", "10.0.0.2", "fd00::1"),
    "v4only": ("10.0.0.3",),
    "v6only": ("fd00::3",),
    "many": MANY,
}

#: As Kubernetes has them for a named port, Consul for a service, and RFC 2782 for "no service".
SERVICES = {
    "_http._tcp.mlflow": (f"0 100 5000 v4only.{ZONE}",),
    "_mlflow._tcp.service": (
        f"1 10 5001 v4only.{ZONE}",
        f"1 90 5002 v6only.{ZONE}",
        f"2 1 5003 alias.{ZONE}",
    ),
    "_gone._tcp": ("0 0 0 .",),
}


_LINES = [
    "alias CNAME mlflow", "nowhere CNAME gone", "loop CNAME pool", "pool CNAME loop",
    'text TXT "no address"',
    *(f"{name} {'AAAA' if ':' in address else 'A'} {address}"
      for name, addresses in RECORDS.items() for address in addresses),
    *(f"{name} SRV {text.replace(f'.{ZONE}', '')}"
      for name, records in SERVICES.items() for text in records),
]  # fmt: skip


def _is_stopped(pid: int) -> bool:
    """Whether each thread is: one of several may still answer for a moment."""
    stats = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


class RealServer(ABC):
    """A nameserver of the field as a process of ours, on a free port of loopback."""

    #: The program, and the Debian package that has it.
    program: str
    package: str
    #: A name that it answers.
    known = NAME

    def __init__(self, folder: Path) -> None:
        # Debian's sbin is not on an ordinary user's path.
        found = shutil.which(self.program) or shutil.which(self.program, path="/usr/sbin")
        if found is None:
            pytest.skip(f"{self.program} is not installed (Debian: {self.package})")
        self.path = found
        self.folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @abstractmethod
    def command(self) -> list[str]:
        """Write the configuration, and say how to run in the foreground."""

    def start(self) -> None:
        log = (self.folder / f"{self.program}.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_it_answers()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):  # one that could not start; its log says why
            killpg(process.pid, signal.SIGCONT)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server takes packets and answers nothing."""
        assert self._process is not None
        leader = self._process.pid
        killpg(leader, signal.SIGSTOP)
        try:
            wait_until(lambda: all(map(_is_stopped, session_members(leader))))
            yield
        finally:
            killpg(leader, signal.SIGCONT)

    def ask(self, name: str, rdtype: str) -> str:
        """What it says to one question, as text; empty where it says nothing."""
        question = dns.message.make_query(name, rdtype)
        try:
            return str(dns.query.udp(question, "127.0.0.1", timeout=0.5, port=self.port))
        except (dns.exception.DNSException, OSError):
            return ""

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            if self.ask(self.known, "A").count(f"{self.known}.") > 1:  # the question, and an answer
                return
            time.sleep(0.05)
        log = (self.folder / f"{self.program}.log").read_text(errors="replace")
        self.stop()
        pytest.fail(f"{self.program} does not answer:\n{log[-3000:]}")


class Nsd(RealServer):
    """A server that knows one zone.

    :param zone: its name.
    :param lines: of its zone file, those of the constants above by default.
    """

    program = "nsd"
    package = "nsd"

    def __init__(self, folder: Path, zone: str = ZONE, lines: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self.zone, self.known = zone, f"ns.{zone}"
        self._write(lines or _LINES)

    def _write(self, lines: Sequence[str]) -> None:
        head = [f"$ORIGIN {self.zone}.", f"$TTL {TTL}", "@ SOA ns hostmaster 1 3600 600 86400 1",
                "@ NS ns", "ns A 127.0.0.1"]  # fmt: skip
        (self.folder / "zone").write_text("\n".join([*head, *lines]) + "\n")

    def publish(self, *lines: str) -> None:
        """Replace the zone while the server runs."""
        assert self._process is not None
        self._write(lines)
        os.kill(self._process.pid, signal.SIGHUP)

    def command(self) -> list[str]:
        config = self.folder / "nsd.conf"
        config.write_text(
            f"""
server:
  ip-address: 127.0.0.1@{self.port}
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: "{self.folder}"
  database: ""
  zonelistfile: "{self.folder}/zone.list"
  xfrdfile: ""
  xfrdir: "{self.folder}"
  pidfile: ""
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: {self.zone}
  zonefile: zone
"""
        )
        return [self.path, "-d", "-c", str(config)]


class Knot(Nsd):
    """Another one, of other makers."""

    program = "knotd"
    package = "knot"

    def command(self) -> list[str]:
        config = self.folder / "knot.conf"
        config.write_text(
            f"""
server:
  listen: 127.0.0.1@{self.port}
  rundir: "{self.folder}"
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: "{self.folder}"
zone:
- domain: {self.zone}
  file: "{self.folder}/zone"
  journal-content: none
"""
        )
        return [self.path, "-c", str(config)]


class Unbound(RealServer):
    """A resolver with a cache of its own in front of the server that knows the zone."""

    program = "unbound"
    package = "unbound"

    def __init__(self, folder: Path, behind: Nsd) -> None:
        super().__init__(folder)
        self.behind, self.known = behind, behind.known

    def command(self) -> list[str]:
        config = self.folder / "unbound.conf"
        config.write_text(
            f"""
server:
  directory: "{self.folder}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  interface: 127.0.0.1
  port: {self.port}
  do-not-query-localhost: no
  module-config: "iterator"
  local-zone: "test." nodefault
  num-threads: 1
  infra-host-ttl: 0
  cache-max-ttl: 1
  cache-max-negative-ttl: 1
remote-control:
  control-enable: no
stub-zone:
  name: {self.behind.zone}
  stub-addr: 127.0.0.1@{self.behind.port}
"""
        )
        return [self.path, "-d", "-c", str(config)]


class Dnsmasq(RealServer):
    program = "dnsmasq"
    package = "dnsmasq-base"

    def command(self) -> list[str]:
        hosts = self.folder / "hosts"
        lines = [f"{a} {name}.{ZONE}" for name, addresses in RECORDS.items() for a in addresses]
        hosts.write_text("\n".join(lines) + "\n")
        return [
            self.path, "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=",
            "--group=", "--no-resolv", "--no-hosts", "--log-facility=-", f"--port={self.port}",
            "--listen-address=127.0.0.1", "--bind-interfaces", f"--local=/{ZONE}/",
            f"--addn-hosts={hosts}", f"--local-ttl={TTL}", f"--cname=alias.{ZONE},{NAME}",
            f"--txt-record=text.{ZONE},no address",
            *(f"--srv-host={name}.{ZONE},{_dnsmasq(text)}"
              for name, records in SERVICES.items() for text in records),
        ]  # fmt: skip


def _dnsmasq(record: str) -> str:
    """``priority weight port target`` as dnsmasq wants it."""
    priority, weight, port, target = record.split()
    return "" if target == "." else ",".join((target, port, priority, weight))


def free_port() -> int:
    """A port that is free for UDP and TCP just now."""
    with DNSServer() as server:
        return server.port

"""The little DNS server as a process of its own."""

from __future__ import annotations

import argparse
import signal
import socketserver
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from airflow_provider_hokusai_dns.resolver.testing import control
from airflow_provider_hokusai_dns.resolver.testing.server import DNSServer
from airflow_provider_hokusai_dns.resolver.testing.zone import Zone

_DESCRIPTION = """\
A DNS server for tests that misbehaves on demand. It prints "listening on ADDRESS PORT" when it
answers, and then takes commands, one per line, from its standard input (whose end ends the
server) or, with --control, over a socket.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the end of the input, ``stop``, SIGINT or SIGTERM; returns the exit code."""
    options = _parser().parse_args(arguments)
    server = DNSServer(options.host, options.port, negative_ttl=options.negative_ttl)
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        for record in options.record:
            name, _, addresses = record.partition("=")
            server.set_records(name, addresses.split(","), ttl=options.ttl)
        with server:
            if options.control is None:
                _say(f"listening on {server.host} {server.port}")
                threading.Thread(target=_serve_stdin, args=(server, stop), daemon=True).start()
                stop.wait()
            else:
                with _control_socket(server, options.control, stop) as address:
                    _say(f"listening on {server.host} {server.port} control {address}")
                    stop.wait()
    except (OSError, ValueError) as error:
        _say(f"the DNS server cannot start: {error}", file=sys.stderr)
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _say(line: str, file: TextIO | None = None) -> None:
    print(line, file=file or sys.stdout, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_hokusai_dns.resolver.testing",
        description=_DESCRIPTION,
        epilog=f"Commands: {', '.join(sorted([*control.COMMANDS, 'stop']))}.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    parser.add_argument("--record", action="append", default=[], metavar="NAME=ADDRESS,...")
    parser.add_argument("--ttl", type=int, default=10, help="of these records, in seconds")
    parser.add_argument("--negative-ttl", type=int, default=5, help='of "no such name"')
    parser.add_argument(
        "--control",
        help="take commands on this port of 127.0.0.1 (0: a free one), or this Unix socket",
    )
    return parser


def _serve_stdin(zone: Zone, stop: threading.Event) -> None:
    for line in sys.stdin:
        if line.strip() == "stop":
            break
        if line.strip():
            _say(control.run_command(zone, line))
    stop.set()


@contextmanager
def _control_socket(zone: Zone, where: str, stop: threading.Event) -> Iterator[str]:
    """Take commands over a socket; gives its port or path."""
    family, address = control.control_address(where)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for raw in self.rfile:
                line = raw.decode("utf-8", "replace").strip()
                if line == "stop":
                    self.wfile.write(b'{"ok": true}\n')
                    stop.set()
                    return
                self.wfile.write(control.run_command(zone, line).encode() + b"\n")

    class Server(socketserver.ThreadingTCPServer):
        address_family = family
        allow_reuse_address = True
        daemon_threads = True
        request_queue_size = 256  # A Unix socket with a full queue refuses at once.

    with Server(address, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield str(address if isinstance(address, str) else server.server_address[1])
        finally:
            server.shutdown()
            thread.join()
            if isinstance(address, str):
                Path(address).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())

"""nginx as a process of the test's own, without root and without anything outside of its folder."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.servers import wait_until

MISSING = "nginx is not installed (Debian: nginx-light)"

_CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    proxy_http_version 1.1;
{http}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, http: str, host: str, port: int) -> Iterator[None]:
    """Run it until the block ends.

    :param folder: for its files; it exists.
    :param http: what its section ``http`` says beside the paths of those.
    :param host: with ``port``, where it listens when it is ready.
    """
    config, log = folder / "nginx.conf", folder / "log"
    config.write_text(_CONFIG.format(folder=folder, http=http))
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["nginx", "-c", str(config), "-p", str(folder)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), timeout=1).close()
            return True
        return False

    try:
        wait_until(listens, 20, pause=0.05, told=log.read_text)
        yield
    finally:
        process.terminate()
        process.wait(10)

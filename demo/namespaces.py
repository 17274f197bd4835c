"""A private corner of the machine: own loopback, own resolver settings, own process numbers.

In there the outage of the demo is a real one of the operating system's resolver: ``resolv.conf``
names the demo's DNS server, for every process and every library, and the machine outside notices
nothing. It needs Linux that lets ordinary users make namespaces; root needs nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from demo.layout import DNS_ADDRESS, REPOSITORY

_UNSHARE = (
    "unshare",
    "--map-root-user",
    "--mount",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


def why_not() -> str | None:
    """Return the reason why this machine does not allow private namespaces, or ``None``."""
    if shutil.which(_UNSHARE[0]) is None:
        return "there is no unshare command (util-linux, on Linux)"
    with tempfile.TemporaryDirectory(prefix="hokusai-demo-") as folder:
        attempt = subprocess.run(
            wrapped([sys.executable, "-m", "demo.namespaces", folder]),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    if attempt.returncode == 0:
        return None
    lines = attempt.stderr.strip().splitlines()
    return lines[-1] if lines else f"unshare ended with exit code {attempt.returncode}"


def wrapped(command: list[str]) -> list[str]:
    """Return the command that runs this one as the first process of new namespaces."""
    return [*_UNSHARE, "--", *command]


def move_in(folder: Path) -> None:
    """Furnish the new namespaces: to be called inside, before anything else.

    :param folder: where the private copies of the system's files are kept.
    :raises OSError, subprocess.CalledProcessError: the system does not let us.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _bring_loopback_up()
    # Airflow looks up the machine's own name when it starts.
    _cover("/etc/hosts", folder, f"127.0.0.1 localhost {socket.gethostname()}\n")
    _cover("/etc/resolv.conf", folder, f"nameserver {DNS_ADDRESS}\n")
    # nss-resolve and nscd would ask a daemon outside, over a socket in the file system.
    _cover("/etc/nsswitch.conf", folder, "passwd: files\ngroup: files\nhosts: files dns\n")
    if Path("/run/nscd").is_dir():
        empty = folder / "empty"
        empty.mkdir(exist_ok=True)
        _bind(empty, Path("/run/nscd"))


def _cover(path: str, folder: Path, text: str) -> None:
    if not Path(path).exists():
        return
    own = folder / Path(path).name
    own.write_text(text)
    _bind(own, Path(path))


def _bind(source: Path, target: Path) -> None:
    subprocess.run(
        ["mount", "--bind", str(source), str(target)], check=True, capture_output=True, text=True
    )


def _bring_loopback_up() -> None:
    # By ioctl, because the ip command is not on every machine.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", asked)[1] | _IFF_UP
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))


def _try() -> int:
    """Enter the namespaces, check them, and report in one line what does not work."""
    try:
        move_in(Path(sys.argv[1]))
        for address, port in ((DNS_ADDRESS, 53), ("127.0.0.11", 5000)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind((address, port))
    except subprocess.CalledProcessError as error:
        print(error.stderr.strip(), file=sys.stderr)
        return 1
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if os.getpid() == 1 else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(_try())

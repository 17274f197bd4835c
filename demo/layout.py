"""Where everything of one demo lives: its folder, its addresses, its ports."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from demo.errors import DemoError

REPOSITORY = Path(__file__).resolve().parent.parent
MLFLOW_NAME = "mlflow.hokusai-development.local"
FIRST_ADDRESS = "127.0.0.11"
SECOND_ADDRESS = "127.0.0.12"
DNS_ADDRESS = "127.0.0.53"
AIRFLOW_ADDRESS = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Layout:
    """The fixed facts of one demo.

    :param root: its own folder below ``.demo/``.
    :param private: whether it runs in namespaces of its own, so that the outage is the operating
        system's.
    :param airflow_url: where a person's browser finds Airflow.
    """

    root: Path
    private: bool
    airflow_port: int
    mlflow_port: int
    dns_port: int
    airflow_url: str = ""

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.root / "logs"

    @property
    def mlflow_host(self) -> str:
        """The Host header of MLflow: the name with its port, whatever the address."""
        return f"{MLFLOW_NAME}:{self.mlflow_port}"

    @property
    def airflow_base(self) -> str:
        """Where the demo itself finds Airflow."""
        return f"http://{AIRFLOW_ADDRESS}:{self.airflow_port}"


def private_layout(root: Path, airflow_url: str = "") -> Layout:
    """In a network namespace every port is ours."""
    return Layout(root, True, 8080, 5000, 53, airflow_url)


def shared_layout(root: Path, airflow_url: str = "") -> Layout:
    """On the machine's own loopback we take what is free."""
    return Layout(
        root,
        False,
        free_port(AIRFLOW_ADDRESS),
        free_port(FIRST_ADDRESS, SECOND_ADDRESS),
        free_port(DNS_ADDRESS),
        airflow_url,
    )


def free_port(*addresses: str) -> int:
    """Return a port that no process listens on, the same on each of these addresses.

    :raises DemoError: an address cannot be used on this machine.
    """
    for _ in range(50):
        port = 0
        try:
            for address in addresses:
                with socket.socket() as probe:
                    probe.bind((address, port))
                    port = probe.getsockname()[1]
        except OSError as error:
            if port:
                continue  # taken on the second address: try another one
            raise DemoError(
                f"This machine cannot use the loopback address {address} ({error.strerror}); "
                "on Linux all of 127.0.0.0/8 works without further setting up."
            ) from error
        return port
    raise DemoError(f"No port is free on all of {', '.join(addresses)}.")

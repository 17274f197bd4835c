"""The servers of the matrix: MLflow in four tempers, nginx before two of them, a file host."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.certificates import Authority
from tests.matrix import axes
from tests.matrix.file_host import FileHost
from tests.nginx import MISSING, nginx
from tests.servers import (
    OTHER_CLIENT,
    MLflowProcess,
    free_port,
    has_basic_auth,
    has_program,
    session_members,
)

HERE = Path(__file__).parent
_ADDRESSES = {"plain": "127.0.0.61", "tls": "127.0.0.62", "basic-auth": "127.0.0.63",
              "workspaces": "127.0.0.64"}  # fmt: skip
_FRONTS = {"sni": "127.0.0.65", "vhost": "127.0.0.66"}
_FILE_HOST_ADDRESS = "127.0.0.67"
#: Seconds for all cases together; two idle cores need a quarter of it.
_PATIENCE = 700.0
#: Refuses every Host but the names of the matrix, so every address as well.
_ALLOWED = (f"*.{axes.DOMAIN}", f"*.{axes.DOMAIN}:*")
_AUTH_CONFIG = """
[mlflow]
default_permission = READ
database_uri = sqlite:///basic_auth.db
admin_username = {login}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
# A password costs a server half a second of hashing, which is not what is tested here.
auth_cache_ttl_seconds = 600
"""


@dataclass(frozen=True)
class Place:
    """Where a setup's name leads, and the connection to it."""

    hostname: str
    address: str
    connection: dict[str, Any]


class Landscape:
    """Everything that runs, and what leads to it."""

    def __init__(
        self, servers: dict[str, MLflowProcess], fronts: dict[str, int], authority: Authority,
        file_host: FileHost,
    ) -> None:  # fmt: skip
        self.servers = servers
        self.file_host = file_host
        self._fronts = fronts
        self._authority = authority

    def missing(self, setup: axes.Setup) -> str:
        """Why a setup cannot be had on this machine; empty when it can."""
        if setup.needs_nginx and not self._fronts:
            return MISSING
        if setup.server not in self.servers:
            return "MLflow's basic-auth app needs Flask-WTF (mlflow[auth])"
        return ""

    def place(self, setup: axes.Setup) -> Place:
        server = self.servers[setup.server]
        hostname = f"{setup.server}.{axes.DOMAIN}"
        address, port = server.host, server.port
        if setup.needs_nginx:
            address, port = _FRONTS[setup.front], self._fronts[setup.front]
        extra: dict[str, Any] = {
            "also_pin": axes.FILE_HOST, "request_timeout": 15, "deadline": 40, **setup.extra,
        }  # fmt: skip
        if setup.schema == "https":
            extra["ca_file"] = str(self._authority.file)
        if setup.front == "sni":
            extra["client_cert"] = str(self._authority.folder / f"{axes.CLIENT}.pem")
        return Place(hostname, address, {
            "conn_type": "mlflow", "host": hostname, "port": port, "schema": setup.schema,
            "login": setup.login, "password": setup.password, "extra": extra,
        })  # fmt: skip

    def case(self, name: str, columns: list[str]) -> dict[str, Any]:
        """What ``cases.py`` wants to know."""
        place = self.place(axes.SETUPS[name])
        return {
            "setup": name,
            "server": axes.SETUPS[name].server,
            "columns": columns,
            "connection": place.connection,
            "addresses": {place.hostname: place.address, axes.FILE_HOST: _FILE_HOST_ADDRESS},
        }

    def run(self, cases: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
        """Run cases in their processes. Gives what they saw, and what they have printed."""
        folder.mkdir()
        spec, log, seen = folder / "cases.json", folder / "log.txt", folder / "seen"
        seen.mkdir()
        spec.write_text(json.dumps(cases))
        environment = {
            **{k: v for k, v in os.environ.items()
               if not k.startswith(("AIRFLOW", "MLFLOW")) and not k.lower().endswith("_proxy")},
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",  # 3.10 has it off
            "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": "100000",
            "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": "100000",
            "MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE": "100000",
            "PYTHONPATH": os.pathsep.join(
                [str(HERE.parents[1]), *filter(None, [OTHER_CLIENT, os.environ.get("PYTHONPATH")])]
            ),
        }  # fmt: skip
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.matrix.cases", str(spec), str(seen)],
                cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        try:
            code = process.wait(_PATIENCE)
        finally:  # the processes of the cases too
            for pid in session_members(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        text = log.read_text(errors="replace")
        if code:
            raise RuntimeError(f"the cases ended with {code}:\n{text[-5000:]}")
        setups: dict[str, Any] = {}
        for file in seen.iterdir():
            setups |= json.loads(file.read_text())
        return {"log": text, "setups": setups}


@contextmanager
def landscape(folder: Path) -> Iterator[Landscape]:
    """Start everything that can be had here, and stop it again."""
    authority = Authority(folder)
    authority.issue_combined(axes.CLIENT)
    with ExitStack() as stack:
        (folder / "files").mkdir()
        file_host = stack.enter_context(FileHost(folder / "files", _FILE_HOST_ADDRESS))
        servers = _servers(folder, authority, file_host.port)
        with ThreadPoolExecutor(2) as starting:
            for future in [starting.submit(stack.enter_context, s) for s in servers.values()]:
                future.result()
        _create_workspace(servers["workspaces"])
        fronts: dict[str, int] = {}
        if has_program("nginx"):
            fronts = {name: free_port(address) for name, address in _FRONTS.items()}
            stack.enter_context(_nginx(folder / "nginx", fronts, servers, authority))
        yield Landscape(servers, fronts, authority, file_host)


def _servers(folder: Path, authority: Authority, file_port: int) -> dict[str, MLflowProcess]:
    plugin = _plugin(folder / "plugin")
    environment = {
        "MATRIX_FILE_HOST": f"http://{axes.FILE_HOST}:{file_port}",
        "PYTHONPATH": os.pathsep.join([str(plugin), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    auth_config = folder / "basic_auth.ini"
    auth_config.write_text(_AUTH_CONFIG.format(login=axes.LOGIN, password=axes.PASSWORD))
    special: dict[str, dict[str, Any]] = {
        "plain": {},
        "tls": {"tls": authority.issue(f"tls.{axes.DOMAIN}")},
        "workspaces": {"workspaces": True},
    }
    if has_basic_auth():
        special["basic-auth"] = {"admin": (axes.LOGIN, axes.PASSWORD)}
        environment["MLFLOW_AUTH_CONFIG_PATH"] = str(auth_config)
    return {
        name: MLflowProcess(
            folder / name,
            host=_ADDRESSES[name],
            allowed_hosts=_ALLOWED,
            environment=environment,
            # The last one of an option counts.
            arguments=["--artifacts-destination", f"filehost://{folder / 'files'}"],
            **options,
        )
        for name, options in special.items()
    }


def _plugin(folder: Path) -> Path:
    """A folder that Python takes for an installed package with an entry point."""
    metadata = folder / "matrix_file_host-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: matrix-file-host\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(
        "[mlflow.artifact_repository]\nfilehost = matrix_file_host:FileHostRepository\n"
    )
    shutil.copy(HERE / "plugin" / "matrix_file_host.py", folder)
    return folder


def _create_workspace(server: MLflowProcess) -> None:
    request = urllib.request.Request(
        f"{server.uri}/api/3.0/mlflow/workspaces",
        data=json.dumps({"name": axes.WORKSPACE}).encode(),
        headers={"Content-Type": "application/json", "Host": f"workspaces.{axes.DOMAIN}"},
    )
    urllib.request.urlopen(request, timeout=20).close()


_FRONT = """
    client_max_body_size 0;
    proxy_set_header Host $http_host;
    keepalive_timeout 5s;

    # A client that uses an address, or another name, gets a wrong certificate and a wrong page.
    server {{
        listen {sni} ssl default_server;
        ssl_certificate {wrong[0]};
        ssl_certificate_key {wrong[1]};
        return 404;
    }}
    server {{ listen {vhost} default_server; return 404; }}
{virtual_hosts}
"""
_VIRTUAL_HOST = """
    server {{
        listen {sni} ssl;
        server_name {name};
        ssl_certificate {certificate[0]};
        ssl_certificate_key {certificate[1]};
        ssl_client_certificate {ca};
        ssl_verify_client on;
        location / {{ proxy_pass {uri}; }}
    }}
    server {{ listen {vhost}; server_name {name}; location / {{ proxy_pass {uri}; }} }}
"""


@contextmanager
def _nginx(
    folder: Path, fronts: dict[str, int], servers: dict[str, MLflowProcess], authority: Authority
) -> Iterator[None]:
    folder.mkdir()
    listen = {name: f"{_FRONTS[name]}:{port}" for name, port in fronts.items()}
    hosts = [
        _VIRTUAL_HOST.format(
            **listen,
            name=f"{name}.{axes.DOMAIN}",
            certificate=authority.issue(f"{name}.{axes.DOMAIN}"),
            ca=authority.file,
            uri=servers[name].uri,
        )
        for name in ("plain", "basic-auth")
        if name in servers
    ]
    http = _FRONT.format(
        **listen,
        wrong=authority.issue(f"another.{axes.DOMAIN}"),
        virtual_hosts="".join(hosts),
    )
    with nginx(folder, http, _FRONTS["sni"], fronts["sni"]):
        yield


def spellings_of(secret: str, login: str | None = None) -> tuple[str, ...]:
    """A secret as it is, and as a header holds it."""
    if login is None:
        return (secret,)
    return secret, base64.b64encode(f"{login}:{secret}".encode()).decode()

"""What users install: the built wheel, in an environment that has never seen this repository.

Reinstalling Airflow's two hundred packages would take minutes and prove nothing about ours. So the
empty environment borrows everything *else* from the one the tests run in, through a ``.pth`` file;
every file of this package comes from the wheel, and a test holds that.
"""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DISTRIBUTION = "airflow-provider-hokusai-dns"
PACKAGE = "airflow_provider_hokusai_dns"

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the working tree as `make build` does."""
    folder = tmp_path_factory.mktemp("dist")
    _run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder],
        cwd=REPOSITORY,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("user") / "env"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    # Before the loan below, so that pip sees an empty environment and touches nothing else.
    _run([sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "-q", wheel])
    (packages,) = folder.glob("lib/python3*/site-packages")
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
    return python


@pytest.fixture(scope="module")
def airflow_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which Airflow finds no configuration but its defaults."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    return kept | {
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "NO_COLOR": "1",
        "COLUMNS": "400",
    }


def test_wheel_holds_the_package_and_nothing_of_the_repository(wheel: Path) -> None:
    """Typing marker, refresh DAG and status page are in; tests, demo and benchmarks are not."""
    names = zipfile.ZipFile(wheel).namelist()
    assert f"{PACKAGE}/py.typed" in names
    assert f"{PACKAGE}/refresh_dag.py" in names
    assert f"{PACKAGE}/plugins/failures.md" in names, "the failure guide of the API server"
    page = REPOSITORY / PACKAGE / "plugins" / "page"
    files = [
        file.name for file in page.iterdir() if file.suffix in (".css", ".html", ".js", ".svg")
    ]
    assert len(files) > 5
    assert {f"{PACKAGE}/plugins/page/{name}" for name in files} <= set(names)
    tops = {name.split("/", 1)[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {PACKAGE}
    assert not [name for name in names if "/tests/" in name or name.endswith((".pyc", ".pth"))]


def test_wheel_describes_itself(wheel: Path) -> None:
    """Licence, floor versions and the three entry points are in the metadata."""
    archive = zipfile.ZipFile(wheel)

    def read(file: str) -> str:
        (name,) = [each for each in archive.namelist() if each.endswith(f".dist-info/{file}")]
        return archive.read(name).decode()

    metadata = Parser().parsestr(read("METADATA"))
    assert metadata["Name"] == DISTRIBUTION
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Apache License" in read("licenses/LICENSE")
    assert "apache-airflow>=3.2" in metadata.get_all("Requires-Dist", [])
    entry_points = read("entry_points.txt")
    for group in ("apache_airflow_provider", "airflow.plugins", "mlflow.request_auth_provider"):
        assert f"[{group}]" in entry_points


def test_package_comes_from_the_wheel(installed: Path, wheel: Path) -> None:
    """Not one module is taken from the repository: the proof of the loan's honesty."""
    script = (
        "import importlib.metadata, json, pathlib, sys\n"
        f"import {PACKAGE} as package\n"
        f"found = importlib.metadata.distribution({DISTRIBUTION!r})\n"
        "print(json.dumps([package.__file__, found.version, str(found.locate_file('')),"
        " sys.prefix]))"
    )
    answer = json.loads(_run([installed, "-c", script], cwd=wheel.parent))
    file, version, location, prefix = answer
    assert Path(file).is_relative_to(prefix)
    assert Path(location).is_relative_to(prefix)
    assert version == wheel.name.split("-")[1]


def test_airflow_lists_the_provider(installed: Path, airflow_env: dict[str, str]) -> None:
    """`airflow providers list` shows the installed wheel with its version."""
    output = _airflow(installed, airflow_env, "providers", "list", "--output", "json")
    providers = {each["package_name"]: each for each in _json(output)}
    assert DISTRIBUTION in providers


def test_airflow_knows_the_connection_type(installed: Path, airflow_env: dict[str, str]) -> None:
    """The `mlflow` connection type comes with the wheel."""
    output = _airflow(installed, airflow_env, "providers", "hooks", "--output", "json")
    hooks = {each["connection_type"]: each for each in _json(output)}
    assert hooks["mlflow"]["package_name"] == DISTRIBUTION


def test_airflow_loads_the_plugin(installed: Path, airflow_env: dict[str, str]) -> None:
    """The plugin is found by its entry point, and nothing is reported as an import error."""
    output = _airflow(installed, airflow_env, "plugins", "--output", "json")
    assert "hokusai_dns" in {each["name"] for each in _json(output)}
    errors = _airflow(installed, airflow_env, "plugins", "-v")
    assert "ImportError" not in errors
    assert "Failed to import plugin" not in errors


def test_mlflow_finds_the_credentials_plugin(installed: Path, tmp_path: Path) -> None:
    """MLflow's own registry of request auth providers holds ours after the install."""
    script = (
        "from mlflow.tracking.request_auth.registry import "
        "_request_auth_provider_registry as known\n"
        "print([each.get_name() for each in known])"
    )
    assert "hokusai_dns" in _run([installed, "-c", script], cwd=tmp_path)


def _airflow(python: Path, env: dict[str, str], *arguments: str) -> str:
    return _run([python, "-m", "airflow", *arguments], env=env, cwd=Path(env["AIRFLOW_HOME"]))


def _json(output: str) -> list[dict[str, str]]:
    # Warnings of foreign packages may come before it.
    return json.loads(output[output.index("[{") :])


def _run(
    command: list[str | Path], *, env: dict[str, str] | None = None, cwd: Path | None = None
) -> str:
    done = subprocess.run(
        command, env=env, cwd=cwd, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout

"""Every flow over every way to MLflow, while DNS does its worst."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.matrix import axes
from tests.matrix.servers import Landscape, landscape, spellings_of

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("default"),
]
_IN_MEMORY = [column for column in axes.COLUMNS if not column.endswith("store")]
_FROM_STORE = [column for column in axes.COLUMNS if column.endswith("store")]


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Landscape]:
    with landscape(tmp_path_factory.mktemp("matrix")) as running:
        yield running


@pytest.fixture(scope="module")
def seen(land: Landscape, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything at once: one process per setup for what memory knows, one per cold start."""
    cases = [
        land.case(name, columns)
        for columns in (_IN_MEMORY, *([column] for column in _FROM_STORE))
        for name, setup in axes.SETUPS.items()
        if not land.missing(setup)
    ]
    return land.run(cases, tmp_path_factory.mktemp("cases") / "all")


@pytest.mark.parametrize("column", axes.COLUMNS)
@pytest.mark.parametrize("name", axes.SETUPS)
def test_every_flow_works_or_is_listed_with_its_reason(
    land: Landscape, seen: dict[str, Any], name: str, column: str
) -> None:
    """Green, on an address from where it had to come from; what is listed does not work."""
    if reason := land.missing(axes.SETUPS[name]):
        pytest.skip(reason)
    found = seen["setups"][name][column]
    assert "error" not in found, found["error"]
    failed = {flow: why for flow, why in found["cells"].items() if why != "ok"}
    unexpected = {flow: why for flow, why in failed.items() if (name, flow) not in axes.NOT_GREEN}
    assert not unexpected, "\n".join(f"{flow}: {why}" for flow, why in unexpected.items())
    healed = [f for n, f in axes.NOT_GREEN if n == name and f not in failed]
    assert not healed, f"take these out of NOT_GREEN, they work: {healed}"
    assert found["cells"].keys() == set(axes.FLOWS)
    assert (found["source"], found["cause"]) == axes.COLUMNS[column]
    assert found["only_the_pin"], "the system's own lookup knows this name: nothing is shown"


def test_no_credential_came_to_the_file_host(land: Landscape, seen: dict[str, Any]) -> None:
    """It was used, in parts, and is another host than MLflow."""
    import mlflow

    methods = {method for method, _ in land.file_host.requests}
    downloads = set() if mlflow.__version__.startswith("3.10.") else {"GET"}  # through MLflow
    assert methods == {"PUT"} | downloads
    for _, headers in land.file_host.requests:
        assert not {"authorization", "x-mlflow-workspace"} & {name.lower() for name in headers}


def test_no_secret_was_printed(seen: dict[str, Any]) -> None:
    """By anything in any of the processes."""
    for secret in (*spellings_of(axes.PASSWORD, axes.LOGIN), axes.TOKEN):
        assert secret not in seen["log"]


def test_the_listed_cells_exist() -> None:
    """A typing error in the list would hide nothing, and mislead its readers."""
    for name, flow in axes.NOT_GREEN:
        assert name in axes.SETUPS
        assert flow in axes.FLOWS

"""The errors that others catch, in one place, each defined beside what raises it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from airflow_provider_hokusai_dns import exceptions
from airflow_provider_hokusai_dns.exceptions import Loss, PicklableError
from airflow_provider_hokusai_dns.resolver import Attempt, Cause

OURS = "airflow_provider_hokusai_dns"
PACKAGES = ["client", "config", "health", "hooks", "resolver"]
_VALUES: dict[str, Any] = {
    "addresses": ("10.0.0.1", "10.0.0.2"),
    "cause": Cause.NXDOMAIN,
    "conn_ids": ("one", "other"),
    "losses": (Loss("metrics", 3, ("OSError: x",)),),
    "retry_in": 2.5,
    "status": 503,
    "tried": (Attempt("hosts file", "no entry"),),
}
PICKLABLE = [
    error
    for error in vars(exceptions).values()
    if isinstance(error, type) and issubclass(error, PicklableError) and error is not PicklableError
]


def _is_defined_in(module: ModuleType, value: object) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__


@pytest.mark.parametrize("error", PICKLABLE)
def test_an_error_comes_out_of_a_pickle_with_its_sentence_and_its_fields(error: type) -> None:
    code = error.__init__.__code__
    names = code.co_varnames[1 : code.co_argcount]
    made = error(*(_VALUES.get(name, f"some {name}") for name in names))
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is error
    assert (str(again), vars(again)) == (str(made), vars(made))
    assert set(names) <= set(vars(again))


@pytest.mark.parametrize("package", PACKAGES)
def test_each_error_of_a_package_is_importable_from_the_one_place(package: str) -> None:
    module = import_module(f"{OURS}.{package}.errors")
    here = {name: value for name, value in vars(module).items() if _is_defined_in(module, value)}
    assert here
    assert {name: getattr(exceptions, name) for name in here} == here
    assert here.keys() <= set(exceptions.__all__)


@pytest.mark.parametrize("name", exceptions.__all__)
def test_a_pickle_that_was_made_before_the_errors_moved_finds_its_class(name: str) -> None:
    """A worker of an older version names the one place as the module."""
    assert pickle.loads(f"c{OURS}.exceptions\n{name}\n.".encode()) is getattr(exceptions, name)


def test_importing_the_errors_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import airflow_provider_hokusai_dns.exceptions; "
        "print(*sorted(m for m in set(sys.modules) - before if 'hokusai' in m))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = [f"{OURS}.{package}" for package in PACKAGES]
    errors = [f"{package}.errors" for package in packages]
    assert done.stdout.split() == sorted([OURS, f"{OURS}.exceptions", *packages, *errors])

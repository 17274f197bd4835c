"""The errors that others catch."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest

from airflow_provider_hokusai_dns import exceptions
from airflow_provider_hokusai_dns.exceptions import Loss, PicklableError
from airflow_provider_hokusai_dns.resolver import Attempt, Cause

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


@pytest.mark.parametrize("error", PICKLABLE)
def test_an_error_comes_out_of_a_pickle_with_its_sentence_and_its_fields(error: type) -> None:
    code = error.__init__.__code__
    names = code.co_varnames[1 : code.co_argcount]
    made = error(*(_VALUES.get(name, f"some {name}") for name in names))
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is error
    assert (str(again), vars(again)) == (str(made), vars(made))
    assert set(names) <= set(vars(again))


def test_importing_the_errors_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import airflow_provider_hokusai_dns.exceptions; "
        "print(sorted(m for m in set(sys.modules) - before if 'hokusai' in m))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = "airflow_provider_hokusai_dns"
    assert done.stdout.strip() == f"['{ours}', '{ours}.exceptions']"

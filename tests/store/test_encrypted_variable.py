"""A Variable that another Fernet key encrypted: not "invalid JSON", and never overwritten."""

from __future__ import annotations

import json

from cryptography.fernet import Fernet

from airflow_provider_hokusai_dns.resolver import LastKnownGood
from airflow_provider_hokusai_dns.store.record import render_record, variable_key
from airflow_provider_hokusai_dns.store.variable_store import VariableStore
from tests.store.test_variable_store import Kept

NAME = "mlflow.example.local"
RECORD = LastKnownGood(NAME, ("10.0.0.1",), 1_795_417_100.0, written_by="refresh")


def test_the_key_is_named_and_a_refresh_leaves_the_text_alone():
    """A component with the right key can read it: repairing it here would lose it there."""
    token = Fernet(Fernet.generate_key()).encrypt(render_record(RECORD).encode()).decode()
    kept = Kept()
    kept.texts[variable_key(NAME)] = token
    store = VariableStore(variables=kept, now=lambda: 1_795_417_200.0)
    problem = store.examine(NAME).problem
    assert problem is not None
    assert "encrypted with a Fernet key that this process does not have" in problem
    assert "[core] fernet_key" in problem
    assert "JSON" not in problem
    assert store.write(RECORD) is False
    assert kept.texts == {variable_key(NAME): token}


def test_any_other_text_is_still_called_invalid_json():
    """And a refresh repairs it."""
    kept = Kept()
    kept.texts[variable_key(NAME)] = "nonsense"
    store = VariableStore(variables=kept, now=lambda: 1_795_417_200.0)
    assert "it is not valid JSON" in str(store.examine(NAME)[1])
    assert store.write(RECORD) is True
    assert json.loads(kept.texts[variable_key(NAME)])["addresses"] == ["10.0.0.1"]

"""Variables that a run or an exported relay has in force, seen by a reader without the lock."""

from __future__ import annotations

import os

import pytest

from airflow_provider_hokusai_dns.config import overrides

NAME = "MLFLOW_TRACKING_URI"


@pytest.mark.parametrize("exported", [False, True])
def test_at_no_moment_is_ours_taken_for_the_authors(
    monkeypatch: pytest.MonkeyPatch, exported: bool
) -> None:
    """Another thread may read a setting before, between and after each of the steps."""
    monkeypatch.setenv(NAME, "http://authors:5000")
    seen: list[str | None] = []

    class Watched(dict[str, str]):
        def __setitem__(self, name: str, value: str) -> None:
            seen.append(overrides.original_value(NAME))
            super().__setitem__(name, value)
            seen.append(overrides.original_value(NAME))

    monkeypatch.setattr(os, "environ", Watched(os.environ))
    changes = overrides.begin("ml", {NAME: "http://ours:1"}, exported=exported)
    assert os.environ[NAME] == "http://ours:1"
    overrides.end(changes)
    assert os.environ[NAME] == "http://authors:5000"
    assert seen == ["http://authors:5000"] * 4


@pytest.mark.parametrize("exported", [False, True])
def test_a_reader_that_is_interrupted_by_an_end_does_not_take_ours(
    monkeypatch: pytest.MonkeyPatch, exported: bool
) -> None:
    """It has read the variable, and not yet whose it is."""
    monkeypatch.setenv(NAME, "http://authors:5000")
    changes = overrides.begin("ml", {NAME: "http://ours:1"}, exported=exported)

    class Interrupted(dict[str, str]):
        def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
            value = super().get(name, default)
            if changes in overrides._open:
                overrides.end(changes)
            return value

    monkeypatch.setattr(os, "environ", Interrupted(os.environ))
    assert overrides.original_value(NAME) == "http://authors:5000"

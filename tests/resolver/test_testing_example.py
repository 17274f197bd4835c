"""The example in the documentation of the doubles is true."""

from __future__ import annotations

import textwrap
from typing import Any

from airflow_provider_hokusai_dns.resolver import testing


def test_the_documented_example_runs():
    """What a DAG author copies from the module's docstring is a passing test."""
    text = testing.__doc__ or ""
    example = text[text.index("    from airflow") : text.index("* :class:")]
    names: dict[str, Any] = {}
    exec(compile(textwrap.dedent(example), "example", "exec"), names)
    names["test_training_survives_a_redeploy_of_mlflow"]()


def test_every_double_is_exported():
    """``from ...resolver.testing import X`` is all that a test needs."""
    for name in ("ManualClock", "ScriptedLookup", "MemoryStore", "DNSServer", "Fault"):
        assert name in testing.__all__
        assert getattr(testing, name).__doc__

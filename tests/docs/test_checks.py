"""A page that is wrong is caught: the checks of blocks do not let everything pass."""

from __future__ import annotations

import pytest

from tests.docs import checks, sentences
from tests.docs.blocks import Block, commands

WRONG = {
    "a make target that is not there": ("console", "", "$ make everything\n"),
    "a verb that the demo does not know": ("console", "", "$ python -m demo dns broken\n"),
    "a command that does not exist": ("console", "", "$ hokusai --help\n"),
    "a command of Airflow that is not there": ("console", "", "$ airflow mlflow ping\n"),
    "an endpoint that is not there": (
        "console",
        "",
        "$ curl http://localhost:8080/hokusai-dns/nothing\n",
    ),
    "a variable that is not read": ("console", "", "$ export DNS_CACHE_TIME=3\n"),
    "an option that does not exist": ("ini", "", "[hokusai_dns]\ncache_time = 3\n"),
    "a value that is refused": ("ini", "", "[hokusai_dns]\ncache_ttl = soon\n"),
    "an option that Airflow does not have": ("ini", "", "[core]\nhokusai = 1\n"),
    "an unknown extra": ("json", "connection", '{"host": "m", "extra": {"pin": []}}'),
    "an unknown field": ("json", "connection", '{"host": "m", "path": "/"}'),
    "a Variable without an address": (
        "json",
        "variable",
        '{"version": 1, "hostname": "m", "addresses": [], "resolved_at": "2026-01-01T00:00:00Z"}',
    ),
    "an option that the agent does not have": (
        "json",
        "agent",
        '{"metrics": {"metrics_collected": {"statsd": {"separator": "."}}}}',
    ),
    "broken YAML": ("yaml", "environment", "env: [\n"),
    "a setting in YAML that is not one": (
        "yaml",
        "environment",
        "env:\n  - name: AIRFLOW__HOKUSAI_DNS__TTL\n    value: '3'\n",
    ),
    "a sentence that no gate says": ("text", "verdict", "MLflow is fine.\n"),
    "a line that is never logged": ("text", "log", "WARNING - DNS has no address for m\n"),
    "a folder that is not there": ("tree", "", "airflow_provider_hokusai_dns/\n  oracle/  knows\n"),
    "a language without a check": ("ruby", "", "puts 1\n"),
}


@pytest.mark.parametrize("what", WRONG)
def test_is_caught(what: str) -> None:
    """Each kind of mistake that a page may hold."""
    language, kind, text = WRONG[what]
    block = Block("README.md", 1, language, (kind,) if kind else (), "", text)
    with pytest.raises((AssertionError, ValueError, checks.yaml.YAMLError)):
        checks.check(block)


def test_commands_are_read_as_a_shell_does() -> None:
    """Continued lines are one, what stands behind two spaces and a hash is said to the reader."""
    block = Block(
        "x.md", 1, "console", (), "", "$ make \\\n  test    # all\nits output\n$ make docs\n"
    )
    assert [command.split() for command in commands(block)] == [["make", "test"], ["make", "docs"]]


def test_there_are_sentences_to_compare_with() -> None:
    """Every state but the one that quotes a field is among them."""
    states = {verdict.state.value for verdict in sentences.verdicts()}
    assert len(states) >= 13

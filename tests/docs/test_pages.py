"""What the pages say of the code is what the code says."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import fields
from enum import Enum
from pathlib import Path

import pytest

from airflow_provider_hokusai_dns import observers
from airflow_provider_hokusai_dns.config import connections, settings
from airflow_provider_hokusai_dns.config.fields import EXTRAS
from airflow_provider_hokusai_dns.config.server import MLflowServer, StaleOverHTTP
from airflow_provider_hokusai_dns.gates import decision
from airflow_provider_hokusai_dns.health.breaker import BreakerState, CircuitBreaker
from airflow_provider_hokusai_dns.health.reply import ReplyFailure
from airflow_provider_hokusai_dns.health.stale_addresses import MAX_AGE_WITH_CREDENTIALS
from airflow_provider_hokusai_dns.health.verdict import State
from airflow_provider_hokusai_dns.resolver import Cause, ResolverConfig
from airflow_provider_hokusai_dns.resolver.config import HARD_MAX_STALE
from airflow_provider_hokusai_dns.resolver.metrics import (
    DEGRADED_UP_TO,
    HEALTHY_UP_TO,
    MIN_EVENTS,
)
from tests.docs import checks, sentences
from tests.docs.blocks import DOCS, REPOSITORY, all_blocks, pages
from tests.values import metric_names

FAILURES = (DOCS / "failures.md").read_text()
POLICY = (DOCS / "policy.md").read_text()
GUIDE: dict[str, type[Enum]] = {
    "States of a verdict": State,
    "Causes of DNS": Cause,
    "Failures of a request": ReplyFailure,
    "States of the circuit breaker": BreakerState,
}


def section(text: str, heading: str) -> str:
    """What stands below a heading of the second level."""
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def parts(text: str) -> dict[str, str]:
    """What stands below each heading of the third level."""
    found = re.split(r"^### (.+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip((name.strip("`") for name in found[::2]), found[1::2], strict=True))


class TestFailureGuide:
    """An on-call engineer finds the word on the screen, and what to do."""

    @pytest.mark.parametrize("heading", GUIDE)
    def test_has_a_section_for_every_word_of_the_code(self, heading: str) -> None:
        """No more and no fewer than the members of the enumeration."""
        assert set(parts(section(FAILURES, heading))) == {m.value for m in GUIDE[heading]}

    @pytest.mark.parametrize("heading", GUIDE)
    def test_says_what_to_do(self, heading: str) -> None:
        """Each section has a line that begins with "Do:"."""
        without = [n for n, text in parts(section(FAILURES, heading)).items() if "Do: " not in text]
        assert without == []

    def test_shows_the_sentences_of_each_state(self) -> None:
        """A state's examples are verdicts of that state; all but config, which quotes a field."""
        told = parts(section(FAILURES, "States of a verdict"))
        by_line = {decision.in_one_line(v): v.state.value for v in sentences.verdicts()}
        for name in told.keys() - {"config"}:
            lines = [line for line in told[name].splitlines() if line.startswith("MLflow is ")]
            assert lines, name
            assert {by_line[line] for line in lines} == {name}

    def test_has_every_other_cause(self) -> None:
        """Words that are no member of an enumeration, but may stand in ``cause``."""
        others = parts(section(FAILURES, "Other causes"))
        judged = {verdict.cause for verdict in sentences.verdicts()}
        words = {cause for cause in judged if not cause.startswith("http_")}
        listed = {*others, *Cause, *ReplyFailure}
        assert words <= listed, words - listed
        assert {decision.MISSING, decision.UNDEFINED} <= others.keys()

    def test_names_what_ends_a_wait(self) -> None:
        """The states in ``fail_fast_on`` by default are states of the guide, or missing."""
        others = {decision.UNDEFINED}
        assert set(decision.DEFAULT_FAIL_FAST) <= {state.value for state in State} | others

    def test_has_the_numbers_of_the_breaker(self) -> None:
        """Failures that open it, and its pauses."""
        numbers = {
            name: parameter.default
            for name, parameter in inspect.signature(CircuitBreaker).parameters.items()
        }
        text = section(FAILURES, "States of the circuit breaker")
        assert numbers["threshold"] == 3
        assert "Three failures in a row open it" in text
        pauses = f"{numbers['cooldown']:g} at first, doubling to {numbers['max_cooldown']:g}"
        assert pauses in text

    def test_has_every_exception_with_fields(self) -> None:
        """The table at its end names errors that exist."""
        names = re.findall(r"^\| `(\w+Error)` \|", FAILURES, flags=re.MULTILINE)
        source = "".join(file.read_text() for file in sentences.PACKAGE.rglob("*.py"))
        assert len(names) > 8
        assert [name for name in names if f"class {name}(" not in source] == []


class TestPolicy:
    """The policy for users is the policy of the code."""

    NUMBERS = re.findall(r"`([a-z_]+)` ([\d.]*\d)", POLICY)

    def test_has_eighteen_rules_in_order(self) -> None:
        """Code and tests quote them by number."""
        numbers = re.findall(r"^\| (\d+) \|", section(POLICY, "The rules"), flags=re.MULTILINE)
        assert list(map(int, numbers)) == list(range(1, 19))

    def test_every_number_is_the_default(self) -> None:
        """Each that stands behind the name of a setting."""
        config = ResolverConfig()
        wrong = {
            name: (said, getattr(config, name))
            for name, said in self.NUMBERS
            if float(said) != getattr(config, name)
        }
        assert wrong == {}

    def test_no_number_is_left_out(self) -> None:
        """Every number of the configuration has its place in the policy."""
        said = {name for name, _ in self.NUMBERS}
        assert said == {
            item.name for item in fields(ResolverConfig) if item.type in ("float", "int")
        }

    def test_limits_are_those_of_the_code(self) -> None:
        """The hard cap, the levels of the window, the three deadlines, the age for a login."""
        assert f"At most {HARD_MAX_STALE:.0f};" in POLICY
        levels = f"Up to {HEALTHY_UP_TO:.0%} is `healthy`, up to {DEGRADED_UP_TO:.0%} `degraded`"
        assert levels.replace("%", " %") in re.sub(r"\s+", " ", POLICY)
        assert f"under {MIN_EVENTS} lookups" in POLICY
        waits = re.findall(
            r"^\| .* \| (\d+) \| .* \|$", section(POLICY, POLICY_WAITS), re.MULTILINE
        )
        defaults = {item.name: item.default for item in fields(MLflowServer)}
        assert list(map(float, waits)) == [
            decision.PROBE_TIMEOUT,
            defaults["request_timeout"],
            defaults["deadline"],
        ]
        age = f"{MAX_AGE_WITH_CREDENTIALS:.0f}"
        assert f"{age} seconds" in (DOCS / "security.md").read_text()
        assert re.search(rf"^\| 18 \| .* \| {age}, no setting \|", POLICY, re.MULTILINE)


POLICY_WAITS = "When a stale address does not help"


class TestReference:
    """What is made from the code is whole."""

    def test_settings_have_every_option(self) -> None:
        """One row each, with its default."""
        table = checks.from_code().settings_table()
        for name, option in checks.options().items():
            assert f"| `{name}` | {'none' if not option['default'] else ''}" in table
        assert "| `cache_ttl` | `300` |" in table

    def test_defaults_of_options_are_those_of_the_policy(self) -> None:
        """What Airflow shows as the default is what the resolver takes."""
        config = ResolverConfig()
        for name in settings.policy_options():
            given = checks.options()[name]["default"]
            assert not given or float(given) == getattr(config, name), name

    def test_connection_fields_are_all_extras(self) -> None:
        """One row each, with its default."""
        table = checks.from_code().connection_fields_table()
        assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(EXTRAS)
        assert "| `deadline` | `600` |" in table
        assert "| `allow_stale_over_http` | `checked` |" in table

    def test_the_whole_connection_has_every_extra(self) -> None:
        """The example to copy from leaves none out."""
        (whole,) = [
            block.text
            for block in all_blocks()
            if block.file == "docs/connection.md" and block.language == "json"
        ]
        assert [name for name in EXTRAS if f'"{name}"' not in whole] == []

    def test_choices_of_stale_addresses_are_explained(self) -> None:
        """never, checked, always."""
        text = (DOCS / "connection.md").read_text()
        for choice in StaleOverHTTP:
            assert f"| `{choice.value}` |" in text

    def test_environment_has_every_variable_that_is_read(self) -> None:
        """Those whose names stand in the two modules that read them."""
        sources = [Path(inspect.getsourcefile(one) or "") for one in (connections, settings)]
        read = {
            node.value
            for source in sources
            for node in ast.walk(ast.parse(source.read_text()))
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"(DNS|MLFLOW)_[A-Z_]+", node.value)
        }
        assert read == set(checks.from_code().ENVIRONMENT)


def test_metrics_have_every_name_of_the_code() -> None:
    """No more and no fewer than what is sent through Airflow."""
    source = Path(inspect.getsourcefile(observers) or "").read_text()
    loops = set(re.findall(r'^ +\("(\w+)", event\.', source, re.MULTILINE))
    names = set(re.findall(r"\{PREFIX\}\.(\w+)", source)) | loops
    table = (DOCS / "metrics.md").read_text()
    told = {
        name.partition(".")[0] for name in re.findall(r"^\| `hokusai_dns\.(\S+)` ", table, re.M)
    }
    assert told == names


def test_metrics_have_every_name_that_prometheus_can_get() -> None:
    """No more and no fewer."""
    table = (DOCS / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(hokusai_dns_\w+)` ", table, re.MULTILINE)) == metric_names()


def test_alerts_are_over_metrics_that_exist() -> None:
    """The rules that the page shows and people copy."""
    rules = checks.yaml.safe_load((DOCS / "alerts.yml").read_text())
    checks.check_alerts(rules)
    assert "{literalinclude} alerts.yml" in (DOCS / "metrics.md").read_text()


def test_every_endpoint_has_its_row() -> None:
    """Each route that a person asks is in the table, or named above it."""
    page = (DOCS / "endpoints.md").read_text()
    asked = {route for route in checks.routes() if "{" not in route}
    assert [route for route in asked if f"/hokusai-dns{route}`" not in page] == []


def test_commands_inside_sentences_exist() -> None:
    """What stands between backquotes and begins like a command is one."""
    found = 0
    for page in pages():
        for command in re.findall(
            r"`((?:airflow|make|(?:\.venv/bin/)?python -m) [^`]+)`", page.read_text()
        ):
            if not command.endswith("..."):
                checks.check_command(command)
                found += 1
    assert found > 8


def test_every_page_can_be_reached() -> None:
    """Each is in the navigation."""
    listed = (DOCS / "index.md").read_text()
    for page in pages():
        name = str(page.relative_to(DOCS if DOCS in page.parents else REPOSITORY))
        if name not in ("README.md", "index.md"):
            assert f"\n{name.removesuffix('.md')}\n" in listed, name


def test_every_row_of_a_table_has_the_columns_of_its_head() -> None:
    """A row that is broken in two hides what stood in its last columns."""
    for page in pages():
        for table in re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE):
            rows = re.sub(r"`[^`\n]*`|\\\|", "", table).splitlines()
            assert {row.count("|") for row in rows} == {rows[0].count("|")}, (page.name, rows[0])

"""What a block must agree with in the code, by its language."""

from __future__ import annotations

import configparser
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import yaml

from airflow_provider_hokusai_dns.config import connections, settings
from airflow_provider_hokusai_dns.health.breaker import BreakerState
from airflow_provider_hokusai_dns.provider_info import get_provider_info
from airflow_provider_hokusai_dns.resolver import Cause
from airflow_provider_hokusai_dns.runtime.policy_variable import parse_policy
from airflow_provider_hokusai_dns.store.record import parse_record, variable_key
from tests.docs import sentences
from tests.docs.blocks import DOCS, PYTHONS, REPOSITORY, Block, commands
from tests.values import metric_names

#: 2026-11-23 07:00 UTC: after every stamp on the pages.
NOW = 1_795_417_200.0
#: Programs of every system; what they are given is the reader's business.
_EVERYWHERE = {"cd", "git", "pip", "cat", "export", "echo"}


def check(block: Block) -> None:
    """Hold a block against the code.

    :raises AssertionError: it says something else; or there is no check for it.
    """
    kind = block.words[0] if block.words else ""
    by_language: dict[str, Callable[[Block, str], None]] = {
        "console": lambda block, _: _check_commands(block),
        "json": _check_json,
        "yaml": _check_yaml,
        "ini": lambda block, _: _check_ini(block.text),
        "text": _check_text,
        "tree": lambda block, _: _check_tree(block.text),
        "none": _check_conf,
    }
    assert block.language in by_language, f"a block of {block.language!r} cannot be checked"
    by_language[block.language](block, kind)


# --- commands ---------------------------------------------------------------------------------


def _check_commands(block: Block) -> None:
    for command in commands(block):
        check_command(command)


def check_command(command: str) -> None:
    """Each part of a command line: the program, and what it is given."""
    for part in re.split(r"&&|\|\||;|\|", command):
        words = shlex.split(part)
        while words and re.fullmatch(r"[A-Z][A-Z0-9_]*=.*", words[0]):
            check_variable(words.pop(0).partition("=")[0])
        program, *arguments = words
        if program == "make":
            assert arguments[0] in _make_targets(), f"make has no target {arguments[0]!r}"
        elif program in PYTHONS:
            _check_module(arguments)
        elif program == "airflow":
            check_airflow(arguments)
        elif program == "curl":
            check_url(next(word for word in arguments if "://" in word))
        else:
            assert program in _EVERYWHERE, f"{program!r}: is there such a command?"
        if program == "export":
            check_variable(arguments[0].partition("=")[0])


@cache
def _make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def _check_module(arguments: list[str]) -> None:
    assert arguments[0] == "-m", arguments
    module, *rest = arguments[1:]
    if module == "pytest":
        return
    if module == "demo":
        from demo.__main__ import _parser
    elif module == "benchmarks":
        from benchmarks.__main__ import _parser
    elif module == "fleet":
        from fleet.__main__ import _parser
    else:
        assert module == "airflow_provider_hokusai_dns.resolver.testing", module
        from airflow_provider_hokusai_dns.resolver.testing.__main__ import _parser
    try:
        _parser().parse_args(rest)
    except SystemExit as end:
        raise AssertionError(f"{module} does not know {rest}") from end


def check_airflow(arguments: list[str]) -> None:
    """Airflow's own parser, with this provider's commands in it."""
    from airflow.cli import cli_parser

    try:
        cli_parser.get_parser().parse_args(arguments)
    except SystemExit as end:
        raise AssertionError(f"airflow does not know {arguments}") from end


def check_url(url: str) -> None:
    """A route of ours, or one of Airflow's that the pages name."""
    path = urlsplit(url).path
    if path.startswith("/hokusai-dns"):
        assert path.removeprefix("/hokusai-dns") in routes(), f"there is no {path}"
    else:
        assert path == "/auth/token" or path.startswith("/api/v2/"), path


@cache
def routes() -> frozenset[str]:
    """The paths below ``/hokusai-dns`` of the API server."""
    return frozenset(getattr(route, "path", "") for route in _app().routes)


@cache
def _app() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Airflow's own imports, which are not ours to mend
        from airflow_provider_hokusai_dns.plugins.app import build_app

        return build_app()


# --- names and values -------------------------------------------------------------------------


def check_variable(name: str) -> None:
    """A variable of the environment that is read."""

    section = f"AIRFLOW__{settings.SECTION.upper()}__"
    if name.startswith(section):
        assert name.removeprefix(section).lower() in options(), f"no option for {name}"
    elif name.startswith("AIRFLOW__"):
        _, group, option = name.split("__")
        assert _airflow_has(group.lower(), option.lower()), f"Airflow has no {name}"
    elif not name.startswith(("AIRFLOW_CONN_", "AIRFLOW_VAR_")):
        others = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "MLFLOW_SERVER_ALLOWED_HOSTS"}
        ours = {"HOKUSAI_TEST_MLFLOW", "NAME", "TOKEN"}
        assert name in {*from_code().ENVIRONMENT, *others, *ours}, name


@cache
def from_code() -> Any:
    """The documentation's own Sphinx extension."""
    file = DOCS / "_ext" / "from_code.py"
    spec = importlib.util.spec_from_file_location("docs_from_code", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options() -> dict[str, Any]:
    """The options of the section."""
    found: dict[str, Any] = get_provider_info()["config"][settings.SECTION]["options"]
    return found


def _airflow_has(section: str, option: str) -> bool:
    from airflow.configuration import conf

    return option in conf.configuration_description.get(section, {}).get("options", {})


def _check_ini(text: str) -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(text)
    readers = settings.policy_options()
    for section in parser.sections():
        for option, value in parser.items(section):
            if section != settings.SECTION:
                assert _airflow_has(section, option), f"Airflow has no [{section}] {option}"
                continue
            assert option in options(), f"[{section}] has no option {option}"
            if option in readers:
                readers[option](value)


def _check_json(block: Block, kind: str) -> None:
    value = json.loads(block.text)
    if kind == "connection":
        server = connections.server_from_connection(connection_of(value))
        assert server.hostname
    elif kind == "variable":
        record = parse_record(value["hostname"], block.text, now=NOW)
        assert record.addresses
        assert variable_key(value["hostname"]) in (REPOSITORY / block.file).read_text()
    elif kind == "environment":
        for item in value["environment"]:
            check_variable(item["name"])
    elif kind == "policy":
        parse_policy(block.text)
    elif kind == "agent":
        _check_agent(value["metrics"], (REPOSITORY / block.file).read_text())
    else:
        _check_answer(kind, value)


def _check_answer(kind: str, value: Any) -> None:
    """An answer of an endpoint is as its response model describes it, and leaves nothing out."""
    marker, _, path = kind.partition(":")
    assert marker == "answer", f"there is no check for json {kind!r}"
    document = _openapi()
    (content,) = document["paths"][path]["get"]["responses"]["200"]["content"].values()
    schema = {**content["schema"], "components": document.get("components", {})}
    jsonschema.validate(value, schema)
    name = schema["$ref"].rpartition("/")[2]
    assert set(value) == set(document["components"]["schemas"][name]["properties"])


@cache
def _openapi() -> dict[str, Any]:
    described: dict[str, Any] = _app().openapi()
    return described


def connection_of(value: dict[str, Any]) -> Any:
    """A connection as Airflow makes it of this JSON."""
    fields = ("conn_type", "host", "schema", "login", "password", "port")
    extra = value.get("extra")
    assert not value.keys() - {*fields, "extra"}, value.keys()
    return SimpleNamespace(
        conn_id="mlflow_default",
        extra=json.dumps(extra) if isinstance(extra, dict) else extra,
        **{name: value.get(name) for name in fields},
    )


def _check_yaml(block: Block, kind: str) -> None:
    value = yaml.safe_load(block.text)
    if kind == "environment":
        for item in value["env"]:
            check_variable(item["name"])
            if item["name"].startswith("AIRFLOW_CONN_"):
                connections.server_from_connection(connection_of(json.loads(item["value"])))
    elif kind == "scrape":
        for job in value["scrape_configs"]:
            check_url(f"http://{job['static_configs'][0]['targets'][0]}{job['metrics_path']}")
    elif kind == "pod":
        assert value["dnsConfig"]["options"], value
    elif kind == "collector":
        _check_collector(value)
    elif kind == "alarms":
        _check_alarms(value)
    else:
        raise AssertionError(f"there is no check for yaml {kind!r}")


def _check_collector(value: dict[str, Any]) -> None:
    """Each part of a pipeline is configured, each configured part is used, and OTLP comes in."""
    service = value["service"]
    for kind in ("receivers", "processors", "exporters"):
        used = {part for pipeline in service["pipelines"].values() for part in pipeline[kind]}
        assert used == value[kind].keys(), kind
    assert set(service["extensions"]) == value["extensions"].keys()
    (condition,) = value["processors"]["filter/hokusai"]["metrics"]["metric"]
    (pattern,) = re.findall(r'^not IsMatch\(name, "([^"]+)"\)$', condition)
    assert all(re.match(pattern.replace("\\\\", "\\"), name) for name in airflow_metrics())


def _check_agent(metrics: dict[str, Any], page: str) -> None:
    """The agent has these options, keeps the metrics' names, and aggregates for the alarms.

    Options, limits and the separator's default are those of ``translator/config/schema.json`` and
    ``plugins/inputs/statsd`` in the agent's source.
    """
    assert metrics.keys() <= {"namespace", "aggregation_dimensions", "metrics_collected"}
    (statsd,) = metrics["metrics_collected"].values()
    intervals = {"metrics_collection_interval", "metrics_aggregation_interval"}
    assert statsd.keys() <= {"service_address", "metric_separator", *intervals}
    assert all(isinstance(statsd[name], int) and statsd[name] > 0 for name in intervals)
    (port,) = re.findall(r":(\d+)", statsd["service_address"])
    assert f"statsd_port = {port}" in page
    separator = statsd.get("metric_separator", "_")
    arriving = {name.replace(".", separator) for name in airflow_metrics()}
    for name, dimension in re.findall(r"MetricName: (\S+)\n +Dimensions: \[\{Name: (\w+),", page):
        assert name in arriving, name
        assert [dimension] in metrics["aggregation_dimensions"]
    assert f"Namespace: {metrics['namespace']}\n" in page


def _check_alarms(value: dict[str, Any]) -> None:
    """Over metrics that Airflow sends for us, with the properties that CloudFormation requires."""
    for name, resource in value["Resources"].items():
        assert resource["Type"] == "AWS::CloudWatch::Alarm"
        properties = resource["Properties"]
        assert properties["MetricName"] in airflow_metrics(), name
        assert {"ComparisonOperator", "EvaluationPeriods", "Statistic", "Period"} <= set(properties)


@cache
def airflow_metrics() -> frozenset[str]:
    """The names that Airflow's backends get, with the prefix that Airflow gives them."""
    table = (DOCS / "metrics.md").read_text()
    names = set(re.findall(r"^\| `hokusai_dns\.(\w+)` ", table, re.MULTILINE))
    names |= {f"error.{cause.value}" for cause in Cause}
    names |= {f"breaker.{state.value}" for state in BreakerState}
    return frozenset(f"airflow.hokusai_dns.{name}" for name in names)


def _check_conf(block: Block, kind: str) -> None:
    """The configuration of a resolver; unbound's by its own checker, where it is installed."""
    if kind == "unbound":
        checker = shutil.which("unbound-checkconf") or shutil.which("/usr/sbin/unbound-checkconf")
        if checker is None:
            assert "serve-expired: yes" in block.text
            return
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(block.text + '    chroot: ""\n    directory: "/"\n    username: ""\n')
            file.flush()
            done = subprocess.run([checker, file.name], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
    elif kind == "resolved":
        parser = configparser.ConfigParser()
        parser.read_string(block.text)
        assert parser.options("Resolve") == ["staleretentionsec"]
    else:
        assert kind == "coredns", f"there is no check for {kind!r}"
        assert block.text.count("{") == block.text.count("}")
        assert re.search(r"^\s+serve_stale \d+h verify$", block.text, re.MULTILINE)


def check_alerts(value: dict[str, Any]) -> None:
    """Rules that Prometheus takes, over metrics that the endpoint can give."""
    for group in value["groups"]:
        assert group["name"]
        for rule in group["rules"]:
            assert {"alert", "expr", "labels", "annotations"} <= set(rule), rule
            assert rule["annotations"]["summary"]
            metrics = re.findall(r"\bhokusai_dns_[a-z_]+", rule["expr"])
            assert metrics, rule["expr"]
            assert set(metrics) <= metric_names(), rule["expr"]
            assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))


def _check_text(block: Block, kind: str) -> None:
    lines = [line for line in block.text.splitlines() if line.strip()]
    if kind == "verdict":
        known = sentences.verdict_lines()
        assert [line for line in lines if line not in known] == []
    elif kind == "log":
        assert [line for line in lines if not sentences.is_logged(line)] == []
    else:
        raise AssertionError(f"there is no check for text {kind!r}")


def _check_tree(text: str) -> None:
    """A drawing of folders: every path in it exists."""
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        while above and above[-1][0] >= indent:
            above.pop()
        for place in re.findall(r"(?:^|\s{1,4})((?:[\w.]+/)+|[\w]+\.py)(?=\s|$)", line):
            path = REPOSITORY.joinpath(*(name for _, name in above), place)
            beside = REPOSITORY / place
            assert path.exists() or beside.exists(), f"{place} is not there"
            if place.endswith("/") and not line[indent:].partition(place)[0].strip():
                above.append((indent, place))
                break

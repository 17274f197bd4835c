"""The commands. Each returns an exit code; :mod:`~.cli.ending` ends the process with it."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from airflow.utils.cli import action_cli

from airflow_provider_hokusai_dns import runtime
from airflow_provider_hokusai_dns.cli.ending import (
    NO_DATABASE,
    NOT_USABLE,
    OK,
    PATIENCE,
    WRONG_INPUT,
    UsageError,
    command,
    database_problem,
)
from airflow_provider_hokusai_dns.cli.explain import Explanation, StoredRecord, explain
from airflow_provider_hokusai_dns.cli.output import (
    print_error,
    print_line,
    show_document,
    show_rows,
)
from airflow_provider_hokusai_dns.config import connections, settings
from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.gates import decision
from airflow_provider_hokusai_dns.gates.check import check_connection, target_of
from airflow_provider_hokusai_dns.gates.connection_health import ConnectionHealth, ConnectionTarget
from airflow_provider_hokusai_dns.health.stale_addresses import login_age_limit
from airflow_provider_hokusai_dns.health.verdict import State, Verdict
from airflow_provider_hokusai_dns.refresh.names import refresh_names
from airflow_provider_hokusai_dns.resolver.level import Level
from airflow_provider_hokusai_dns.resolver.target import Target
from airflow_provider_hokusai_dns.resolver.workers import Workers
from airflow_provider_hokusai_dns.store.record import (
    BrokenVariableError,
    iso_seconds,
    parse_record,
    shown_record,
    variable_key,
)
from airflow_provider_hokusai_dns.store.variable_store import VariableStore
from airflow_provider_hokusai_dns.store.variables import MetastoreVariables, SdkVariables, Variables

_STILL_THERE = "still there"
_MOST_CHECKS = 8


@command
def resolve(args: Namespace) -> int:
    """``airflow hokusai-dns resolve``: how names get their addresses. Writes nothing."""
    wanted = _wanted(args)
    if not wanted:
        raise UsageError("resolve needs a TARGET or a --conn-id")
    # Reads the database, and cannot write: Airflow's SDK has no way to in this process.
    _use(SdkVariables())
    found, headings = [], []
    for target, server in wanted:
        server = server or next(_listed_servers_of(target.hostname), None)
        if server is not None and target.text == target.hostname:  # tasks ask for this spelling
            target = Target.parse(server.connect_host)
        dns = runtime.resolver() if server is None else runtime.resolver_for_server(server)
        conn_id = None if server is None else server.conn_id
        read = partial(_read, () if server is None else server.view.asked)
        limit = None if server is None else login_age_limit(server)
        found.append(explain(target, dns, read, conn_id=conn_id, login_limit=limit))
        headings.append(found[-1].target + _settings_of(server))
    if args.output in ("json", "yaml"):
        show_document(_document(targets=[asdict(one) for one in found]), args.output)
    else:
        _show_explanations(found, headings, args.output)
    return _judge((one.state for one in found), args.min_health)


@command
def status(args: Namespace) -> int:
    """``airflow hokusai-dns status``: one check of each connection. Writes nothing."""
    conn_ids = args.conn_id or settings.listed_connections()
    if not conn_ids:
        raise UsageError("[hokusai_dns] connections is empty: give a connection by --conn-id")
    _use(SdkVariables())
    # Each takes as long as a dead server does; Ctrl-C does not wait for them.
    begin = Workers("hokusai-dns-status", limit=_MOST_CHECKS).call
    begun = [begin(partial(_check, conn_id)) for conn_id in dict.fromkeys(conn_ids)]
    checks = [check.result() for check in begun]
    rows = [row for _, row in checks]
    missing = [row for verdict, row in checks if verdict.cause in decision.NOT_GIVEN]
    problem = database_problem() if missing else None
    for row in missing:
        row["sentence"] = problem or row["sentence"]
    columns = "conn_id state dns mlflow hostname addresses source age cause"
    if args.output == "plain":  # in a table they would be too wide: there they stand below it
        columns += " sentence variable_problem"
    _show(args.output, _document(connections=rows, policy=runtime.policy_status()), rows, columns)
    if args.output == "table":
        for row in rows:
            print_line(f"{row['conn_id']}: {row['sentence']}")
            if row["variable_problem"]:
                print_line(f"{row['conn_id']}: {row['variable_problem']}")
        if changed := runtime.policy_status()["values"]:
            numbers = ", ".join(f"{name} = {value:g}" for name, value in changed.items())
            print_line(f"The Variable hokusai_dns_policy changes the policy: {numbers}.")
    for error in (wrong := settings.wrong_options()):
        print_error(str(error))
    if problem:
        return NO_DATABASE
    if wrong or any(verdict.state is State.CONFIG for verdict, _ in checks):
        return WRONG_INPUT
    return _judge((row["state"] for row in rows), args.min_health)


@command
def refresh(args: Namespace) -> int:
    """``airflow hokusai-dns refresh``: real lookups, stored as last known good."""
    parsed = _parse(args.target)
    if problem := database_problem():
        print_error(f"Nothing was refreshed, because the answers could not be stored. {problem}")
        return NO_DATABASE
    _use(MetastoreVariables())
    conn_ids, targets = list(args.conn_id or ()), []
    for target in parsed:
        listed = [server.conn_id for server in _listed_servers_of(target.hostname)]
        conn_ids += listed
        targets += [] if listed else [target.text]
    if not conn_ids and not targets:
        conn_ids, targets = [*settings.listed_connections()], [*settings.listed_hostnames()]
    said: list[str] = []
    lost: list[str] = []
    report = refresh_names(
        conn_ids,
        targets,
        probe=False,
        tell=lambda *told: said.append(told[-1]),
        warn=lambda _, line: lost.append(line),
    )
    rows = report["resolutions"]
    _show(args.output, report, rows, "target hostname health addresses source cause age")
    if args.output == "table":
        for line in said:
            print_line(line)
    for line in lost:
        print_error(line)
    if any(row["cause"] == "config" for row in rows):
        return WRONG_INPUT
    return max(NOT_USABLE if lost else OK, _judge((r["health"] for r in rows), args.min_health))


@command
def clear(args: Namespace) -> int:
    """``airflow hokusai-dns clear``: delete the stored last known good of names."""
    names: dict[tuple[str, tuple[str, ...]], None] = {}
    servers = [connections.load_server(conn_id) for conn_id in args.conn_id or ()]
    for target in _parse(args.target):
        if target.literal is None:
            names[target.hostname, ()] = None
            servers += _listed_servers_of(target.hostname)
    for server in servers:
        if (target := Target.parse(server.connect_host)).literal is None:
            names[target.hostname, server.view.asked] = None
    if not names:
        raise UsageError(
            "clear needs names, or connections by --conn-id: the stored record is the fallback of "
            "all workers"
        )
    if any("@" in target for target in args.target):
        raise UsageError("give names without a login: Airflow's audit log keeps this line")
    if problem := database_problem():
        print_error(problem)
        return NO_DATABASE
    _use(MetastoreVariables())
    rows = hokusai_dns_clear(args, names)
    _show(args.output, _document(cleared=rows), rows, "hostname outcome addresses age variable")
    for row in rows:
        if row["variable_problem"]:
            print_error(f"{row['hostname']}: {row['variable_problem']}")
        if row["outcome"] == _STILL_THERE:
            print_error(
                f"{row['hostname']} is still stored: the environment or a secrets backend sets "
                f"{row['variable']}, which takes precedence over the database"
            )
    return NOT_USABLE if any(row["outcome"] == _STILL_THERE for row in rows) else OK


# --- shared by the commands


def _use(variables: Variables) -> None:
    """Keep the last known good there, under the policy that the Variable there sets."""
    runtime.use_store(VariableStore(patience=PATIENCE, variables=variables))
    runtime.follow_policy()
    for line in settings.unknown_options():
        print_error(line)
    if problem := runtime.policy_status()["problem"]:
        print_error(f"{problem}. The policy is that of the settings.")


def _wanted(args: Namespace) -> list[tuple[Target, MLflowServer | None]]:
    """The connections and targets of a command line, each once."""
    servers = [connections.load_server(conn_id) for conn_id in dict.fromkeys(args.conn_id or ())]
    wanted: dict[str, tuple[Target, MLflowServer | None]] = {}
    for target in _parse(args.target):
        same = next((s for s in servers if _is_name_of(s, target.hostname)), None)
        if same is None or target.text != target.hostname:
            wanted[target.text] = (target, same)
    return [(Target.parse(one.connect_host), one) for one in servers] + [*wanted.values()]


def _parse(texts: Iterable[str]) -> list[Target]:
    try:
        return [Target.parse(text) for text in texts]
    except ValueError as error:
        raise UsageError(str(error)) from None


def _is_name_of(server: MLflowServer, hostname: str) -> bool:
    """Whether settings of a server apply to a name, which may be written with a final dot."""
    return Target.parse(server.connect_host).hostname.rstrip(".") == hostname.rstrip(".")


def _listed_servers_of(hostname: str) -> Iterator[MLflowServer]:
    """The listed connections with this hostname: tasks use their settings."""
    for conn_id in settings.listed_connections():
        try:
            server = connections.load_server(conn_id)
        except (LookupError, ValueError):
            continue  # reported where that connection is used
        if _is_name_of(server, hostname):
            yield server


def _judge(states: Iterable[str], min_health: str) -> int:
    levels = [Level(state) for state in states]
    return OK if levels and all(level.meets(min_health) for level in levels) else NOT_USABLE


def _document(**content: Any) -> dict[str, Any]:
    return {"version": 1, "generated_at": iso_seconds(time.time()), **content}


def _show(
    output: str, document: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], columns: str
) -> None:
    """Print the whole document for a program, or these columns of the rows."""
    if output in ("json", "yaml"):
        show_document(document, output)
    else:
        show_rows([{name: row[name] for name in columns.split()} for row in rows], output)


def _settings_of(server: MLflowServer | None) -> str:
    if server is None:
        return ""
    if server.proxy is not None:
        return f", the proxy of connection {server.conn_id}, which resolves {server.hostname}"
    return f", with the settings of connection {server.conn_id}"


def _show_explanations(found: list[Explanation], headings: list[str], output: str) -> None:
    for one, heading in zip(found, headings, strict=True):
        steps: list[dict[str, object]] = [
            {"step": s.source, "asked": s.asked, "answer": s.outcome, "ms": s.ms} for s in one.steps
        ]
        if output == "plain":  # for grep and awk: each line says what it is about
            steps.append({"step": "chosen", "asked": one.state, "answer": one.sentence, "ms": None})
            show_rows([{"target": one.target, **row} for row in steps], output)
            continue
        print_line(heading)
        show_rows(steps, output)
        print_line(f"{one.state.upper()}: {one.sentence}.")
        print_line("")


def _check(conn_id: str) -> tuple[Verdict, dict[str, Any]]:
    """One connection, with the keys of ``GET /hokusai-dns/health/mlflow``."""
    done, described = check_connection(conn_id), ConnectionTarget()
    if done.server is not None:
        described = target_of(done.server)
    row = ConnectionHealth(conn_id, described, done.verdict, done.resolution).status_row()
    return done.verdict, row | {"looked_at": iso_seconds(done.verdict.checked_at.timestamp())}


def _read(asked: tuple[str, ...], hostname: str) -> StoredRecord:
    """The stored record; with a problem if the database could not be read."""
    record, problem, was_read = runtime.store(asked).examine(hostname)
    if not was_read:
        problem = database_problem() or "it could not be read"
    return StoredRecord(variable_key(hostname, asked=asked), record, problem)


@action_cli(check_db=False)  # type: ignore[no-untyped-call, untyped-decorator]
def hokusai_dns_clear(
    args: Namespace, names: Iterable[tuple[str, tuple[str, ...]]]
) -> list[dict[str, Any]]:
    """Recorded under this name in Airflow's audit log, with the user and the command line."""
    return [_clear(*name) for name in names]


def _clear(hostname: str, asked: tuple[str, ...]) -> dict[str, Any]:
    variables, key = MetastoreVariables(), variable_key(hostname, asked=asked)
    before = problem = None
    if (text := variables.get(key)) is not None:
        now = time.time()
        try:
            skew = runtime.max_clock_skew()
            before = shown_record(
                parse_record(hostname, text, now=now, skew=skew, asked=asked), now
            )
        except BrokenVariableError as error:
            problem = f"the Variable {key} was ignored: {error}"
    outcome = "cleared" if variables.delete(key) else "nothing was stored"
    if variables.get(key) is not None:
        outcome = _STILL_THERE
    return {
        "hostname": hostname,
        "outcome": outcome,
        "addresses": (before or {}).get("addresses", []),
        "age": (before or {}).get("age"),
        "variable": key,
        "last_known_good": before,
        "variable_problem": problem,
    }

"""Our commands on a real database of Airflow; run as a script by ``test_commands.py``.

In a process of its own, because Airflow keeps one database per process. Each command goes through
Airflow's own parser, and sees a process that has resolved nothing yet. Writes what it saw as JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from airflow_provider_hokusai_dns.resolver import LastKnownGood
from airflow_provider_hokusai_dns.resolver.testing import DNSServer
from airflow_provider_hokusai_dns.store.record import render_record, variable_key

NAME, GONE, STORED = "mlflow.cli-test.local", "gone.cli-test.local", "stored.cli-test.local"
SECRET = "hunter2-password"
#: Clears the screen and renames the window of a terminal that obeys it; then markup and HTML.
HOSTILE = "\x1b[2J\x1b]0;pwned\x07\u009b31m\u202e[red]<script>alert(1)</script>"


class Scenarios:
    """One method per scenario; each gives what the test checks at."""

    def __init__(self, dns: DNSServer, port: int) -> None:
        from airflow.cli import cli_parser

        self.parser = cli_parser.get_parser()
        self.dns, self.port = dns, port
        os.environ["AIRFLOW__HOKUSAI_DNS__NAMESERVERS"] = dns.address
        self.connect("mlflow_default", NAME, login="me", password=SECRET)
        self.connect("gone", GONE)

    def connect(self, conn_id: str, host: str, *, extra: Any = None, **fields: Any) -> None:
        """Add a connection to the database, and nowhere else."""
        from airflow.models import Connection
        from airflow.utils.session import create_session

        with create_session() as session:
            session.add(
                Connection(
                    conn_id,
                    "mlflow",
                    host=host,
                    port=self.port,
                    extra=json.dumps(extra or {}),
                    **fields,
                )
            )

    def call(self, *line: str) -> dict[str, Any]:
        """Call a command as ``airflow hokusai-dns`` does; gives its exit code and output."""
        from airflow_provider_hokusai_dns import runtime

        runtime.forget()
        out, err = io.StringIO(), io.StringIO()
        code: object = None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                args = self.parser.parse_args(["hokusai-dns", *line])
                args.func(args)
            except SystemExit as end:
                code = end.code
        return {"code": code, "out": out.getvalue(), "err": err.getvalue()}

    def text(self, hostname: str) -> str | None:
        from airflow.models import Variable

        return Variable.get(variable_key(hostname), None)

    def put(self, hostname: str, text: str) -> None:
        from airflow.models import Variable

        Variable.set(variable_key(hostname), text)

    # --- in this order

    def status_of_a_healthy_connection(self) -> Any:
        return {
            "table": self.call("status"),
            "json": self.call("status", "-o", "json"),
            "yaml": self.call("status", "-o", "yaml"),
            "variable": self.text(NAME),
        }

    def resolve_a_connection(self) -> Any:
        return {
            "by_id": self.call("resolve", "--conn-id", "mlflow_default", "-o", "json"),
            "by_name": self.call("resolve", NAME, "-o", "json"),
            "by_absolute_name": self.call("resolve", f"{NAME}.", "-o", "json"),
            "variable": self.text(NAME),
        }

    def refresh(self) -> Any:
        return {
            "before": self.text(NAME),
            "table": self.call("refresh"),
            "after": self.text(NAME),
            "json": self.call("refresh", "--conn-id", "mlflow_default", "--output", "json"),
        }

    def the_name_goes_away(self) -> Any:
        from airflow.models import Variable

        self.dns.no_such_name(NAME)
        try:
            Variable.set("hokusai_dns_policy", '{"max_stale_no_name": 600}')
            stricter = self.call("status", "-o", "json")
            Variable.delete("hokusai_dns_policy")
            return {
                "stricter": stricter,
                "resolve": self.call("resolve", NAME, "-o", "json"),
                "plain": self.call("resolve", NAME, "-o", "plain"),
                "status": self.call("status", "-o", "json"),
                "strict": self.call("resolve", NAME, "--min-health", "healthy"),
                "refresh": self.call("refresh", "-o", "json"),
                "variable": self.text(NAME),
            }
        finally:
            self.dns.set_records(NAME, ["127.0.0.9"])

    def nothing_is_known(self) -> Any:
        return {
            "resolve": self.call("resolve", "--conn-id", "gone", "-o", "json"),
            "status": self.call("status", "--conn-id", "gone", "-o", "json"),
            "refresh": self.call("refresh", "--conn-id", "gone"),
            "both": self.call("status", "--conn-id", "gone", "--conn-id", "mlflow_default"),
        }

    def a_broken_variable(self) -> Any:
        self.put(NAME, "{edited into nonsense")
        status = self.call("status", "-o", "json")
        resolve = self.call("resolve", NAME)
        refresh = self.call("refresh")
        return {"status": status, "resolve": resolve, "refresh": refresh, "after": self.text(NAME)}

    def the_policy_variable(self) -> Any:
        from airflow.models import Variable

        seen = {}
        texts = {"right": '{"max_stale_no_name": 0}', "broken": '{"max_stale_no_name": -1}'}
        self.call("refresh")
        self.dns.no_such_name(NAME)
        try:
            for name, text in reversed(texts.items()):
                Variable.set("hokusai_dns_policy", text)
                seen[name] = {
                    "table": self.call("status"),
                    "json": self.call("status", "-o", "json"),
                    "resolve": self.call("resolve", NAME),
                }
        finally:
            Variable.delete("hokusai_dns_policy")
            self.dns.set_records(NAME, ["127.0.0.9"])
        return seen

    def somebody_elses_variable(self) -> Any:
        record = LastKnownGood("other.local", ("10.0.0.1",), time.time())
        self.put(NAME, render_record(record))
        refresh = self.call("refresh")
        return {"refresh": refresh, "after": self.text(NAME)}

    def a_hostile_variable(self) -> Any:
        record = LastKnownGood(NAME, ("127.0.0.9",), time.time(), written_by=HOSTILE)
        self.put(NAME, render_record(record))
        seen = {
            output: self.call("resolve", NAME, "-o", output)
            for output in ("table", "plain", "json", "yaml")
        }
        self.put(NAME, json.dumps({"version": HOSTILE}))
        for output in ("table", "plain", "json", "yaml"):
            seen[f"broken {output}"] = self.call("status", "-o", output)
        seen["argument"] = self.call("resolve", HOSTILE)
        seen["clear"] = self.call("clear", NAME)
        return seen

    def two_first_writers(self) -> Any:
        from airflow.models import Variable
        from sqlalchemy import event
        from sqlalchemy.orm import Session

        other = render_record(LastKnownGood(STORED, ("10.0.0.7",), time.time() - 60))
        meanwhile = [lambda: self.put(STORED, other)]

        def add_before(session: Session, *_: Any) -> None:
            if meanwhile and any(isinstance(one, Variable) for one in session.new):
                with ThreadPoolExecutor(1) as another_process:
                    another_process.submit(meanwhile.pop()).result()

        self.dns.set_records(STORED, ["10.0.0.8"])
        event.listen(Session, "before_flush", add_before)
        try:
            refresh = self.call("refresh", STORED)
        finally:
            event.remove(Session, "before_flush", add_before)
        after = self.text(STORED)
        self.call("clear", STORED)
        return {"refresh": refresh, "after": after, "was_late": not meanwhile}

    def clear(self) -> Any:
        self.put(STORED, render_record(LastKnownGood(STORED, ("10.0.0.7",), time.time() - 60)))
        first = self.call("clear", STORED, "-o", "json")
        after = self.text(STORED)
        again = self.call("clear", STORED)
        self.call("refresh")
        by_id = self.call("clear", "--conn-id", "mlflow_default")
        key = f"AIRFLOW_VAR_{variable_key(STORED).upper()}"
        os.environ[key] = render_record(LastKnownGood(STORED, ("10.0.0.8",), time.time()))
        try:
            from_environment = self.call("clear", STORED)
        finally:
            del os.environ[key]
        return {
            "first": first,
            "after": after,
            "again": again,
            "by_id": by_id,
            "after_by_id": self.text(NAME),
            "from_environment": from_environment,
            "nothing_named": self.call("clear"),
            "with_a_login": self.call("clear", "http://me:hunter2@mlflow.local"),
            "audit": self.audit(),
        }

    def audit(self) -> list[str]:
        from airflow.models.log import Log
        from airflow.utils.session import create_session

        with create_session() as session:
            return [str(log.event) for log in session.query(Log)]

    def wrong_questions(self) -> Any:
        self.connect("wrong_port", "mlflow.local:70000")
        return {
            "missing connection": self.call("status", "--conn-id", "missing"),
            "missing connection, resolve": self.call("resolve", "--conn-id", "missing"),
            "wrong connection": self.call("resolve", "--conn-id", "wrong_port"),
            "no target": self.call("resolve"),
            "bad target": self.call("resolve", "two words"),
            "bad target, refresh": self.call("refresh", "0x7f.1"),
            "bad output": self.call("status", "-o", "xml"),
            "help": self.call("status", "--help"),
            "login in a target": self.call("resolve", f"http://me:{SECRET}@localhost/"),
        }

    def another_fernet_key(self) -> Any:
        from airflow.models.crypto import get_fernet
        from cryptography.fernet import Fernet

        def use(key: str) -> None:
            os.environ["AIRFLOW__CORE__FERNET_KEY"] = key
            get_fernet.cache_clear()

        try:
            use(Fernet.generate_key().decode())
            self.connect("locked", NAME, login="me", password=SECRET)
            self.put(STORED, render_record(LastKnownGood(STORED, ("10.0.0.7",), time.time())))
            use(Fernet.generate_key().decode())
            seen = {
                "resolve": self.call("resolve", "--conn-id", "locked"),
                "status": self.call("status", "--conn-id", "locked"),
                "refresh": self.call("refresh", "--conn-id", "locked"),
                "misspelt": self.call("resolve", "--conn-id", "mlflow_defualt"),
            }
            use("")
            return {**seen, "no key": self.call("status", "--conn-id", "locked"),
                    "variable": self.call("resolve", STORED)}  # fmt: skip
        finally:
            del os.environ["AIRFLOW__CORE__FERNET_KEY"]
            get_fernet.cache_clear()

    def no_database(self) -> Any:
        """Last: it is gone afterwards."""
        from airflow import settings

        Path(settings.engine.url.database).unlink()
        settings.dispose_orm()
        settings.configure_orm()
        return {
            "status": self.call("status"),
            "resolve": self.call("resolve", "localhost"),
            "refresh": self.call("refresh"),
            "clear": self.call("clear", NAME),
        }


def main(port: int, out: Path) -> None:
    results: dict[str, Any] = {}
    with DNSServer() as dns:
        dns.set_records(NAME, ["127.0.0.9"], ttl=10)
        scenarios = Scenarios(dns, port)
        for name in list(vars(Scenarios)):
            if name.startswith("_") or name in ("connect", "call", "text", "put", "audit"):
                continue
            try:
                results[name] = getattr(scenarios, name)()
            except Exception:
                results[name] = {"error": traceback.format_exc()}
            out.write_text(json.dumps(results))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))

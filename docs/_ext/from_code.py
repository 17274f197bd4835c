"""Directives whose content is read from the code, so that it cannot say something else.

``{settings}``, ``{connection-fields}``, ``{environment}`` make tables; ``{readme} A heading`` takes
a section of README.md over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from airflow_provider_hokusai_dns.config import settings
from airflow_provider_hokusai_dns.config.server import MLflowServer
from airflow_provider_hokusai_dns.provider_info import get_provider_info

REPOSITORY = Path(__file__).parents[2]

#: What each variable is for that is read in addition to those of the section.
ENVIRONMENT = {
    "DNS_CACHE_TTL": "Longest lifetime of an answer, seconds; takes precedence over `cache_ttl` of "
    "the section.",
    "DNS_TIMEOUT": "Seconds a lookup may take; takes precedence over `timeout` of the section.",
    "MLFLOW_FALLBACK_IP": "Static addresses for emergencies, separated by commas. They apply to "
    "the hostname of the connection in use, or else to the one in `MLFLOW_TRACKING_URI`, and to no "
    "other.",
    "MLFLOW_TRACKING_URI": "Replaces the connection `mlflow_default` if that does not exist.",
    "MLFLOW_TRACKING_USERNAME": "With `MLFLOW_TRACKING_PASSWORD`: the login for "
    "`MLFLOW_TRACKING_URI`. A connection never uses it.",
    "MLFLOW_TRACKING_PASSWORD": "See `MLFLOW_TRACKING_USERNAME`.",
    "MLFLOW_TRACKING_TOKEN": "A bearer token for `MLFLOW_TRACKING_URI`. A connection "
    "never uses it.",
    "MLFLOW_TRACKING_SERVER_CERT_PATH": "CA file for `MLFLOW_TRACKING_URI`.",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH": "Client certificate for `MLFLOW_TRACKING_URI`.",
    "MLFLOW_TRACKING_INSECURE_TLS": "`true` accepts any certificate; applies to "
    "`MLFLOW_TRACKING_URI`.",
}


def settings_table() -> str:
    """Every option of the section, its default, and what it does."""
    section = get_provider_info()["config"][settings.SECTION]
    rows = [
        (f"`{name}`", _default(option["default"]), option["description"])
        for name, option in section["options"].items()
    ]
    return _table(("option", "default", "what it does"), rows)


def connection_fields_table() -> str:
    """Every field of the connection form beside Airflow's own, and its default."""
    (connection,) = get_provider_info()["connection-types"]
    defaults = {
        item.name: item.default if item.default is not MISSING else None
        for item in fields(MLflowServer)
    }
    rows = [
        (
            f"`{name}`",
            _default(defaults.get(name, field["schema"].get("default"))),
            field["label"],
            field["description"],
        )
        for name, field in connection["conn-fields"].items()
    ]
    return _table(("extra", "default", "in the form", "what it does"), rows)


def environment_table() -> str:
    """Every variable of the environment that is read, apart from the section's own."""
    return _table(
        ("variable", "what it does"), [(f"`{name}`", text) for name, text in ENVIRONMENT.items()]
    )


def readme_section(heading: str) -> str:
    """One section of README.md, without its heading.

    :raises ValueError: there is no such section.
    """
    text = (REPOSITORY / "README.md").read_text()
    _, found, rest = text.partition(f"\n## {heading}\n")
    if not found:
        raise ValueError(f"README.md has no section {heading!r}")
    return rest.partition("\n## ")[0].strip()


def _default(value: Any) -> str:
    """A default as a reader would write it."""
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in lines
    )


class _FromCode(SphinxDirective):
    """Parses, in its place, the Markdown that a function makes."""

    make: ClassVar[Callable[..., str]]

    def run(self) -> list[nodes.Node]:
        """Make the nodes; the page is rebuilt whenever the code has changed."""
        self.env.note_reread()
        text = type(self).make(*self.arguments)
        container = nodes.container()
        self.state.nested_parse(
            StringList(text.splitlines(), source="from_code"), self.content_offset, container
        )
        return list(container.children)


class _Settings(_FromCode):
    make = staticmethod(settings_table)


class _ConnectionFields(_FromCode):
    make = staticmethod(connection_fields_table)


class _Environment(_FromCode):
    make = staticmethod(environment_table)


class _Readme(_FromCode):
    make = staticmethod(readme_section)
    required_arguments = 1
    final_argument_whitespace = True


def setup(app: Sphinx) -> dict[str, Any]:
    """Tell Sphinx."""
    app.add_directive("settings", _Settings)
    app.add_directive("connection-fields", _ConnectionFields)
    app.add_directive("environment", _Environment)
    app.add_directive("readme", _Readme)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

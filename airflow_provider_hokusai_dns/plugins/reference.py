"""The description of the endpoints as one plain page, without scripts or external files."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;"
    "margin:2rem auto;padding:0 1rem}pre{overflow:auto;padding:.8rem;border:1px solid #8886;"
    "border-radius:4px}table{border-collapse:collapse}td,th{text-align:left;padding:.2rem .8rem "
    ".2rem 0;vertical-align:top}h2{margin-top:2.5rem}h3{margin:2rem 0 .3rem}"
    ":target{background:#fd08;outline:.3rem solid #fd08}"
)
#: No script and no file from anywhere; the page may stand in a frame of Airflow's own origin.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"
    )
}


def render_reference(openapi: dict[str, Any]) -> str:
    """Render an OpenAPI document, as FastAPI generates it, as HTML."""
    schemas = openapi.get("components", {}).get("schemas", {})
    info = openapi["info"]
    parts = [f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"]
    parts.append(_text(info.get("description", "")))
    parts.append('<p>The same for machines: <a href="openapi.json">openapi.json</a></p>')
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            parts += _operation(f"{method.upper()} {path}", operation, schemas)
    return page_of(info["title"], "".join(parts))


def page_of(title: str, body: str) -> str:
    """A plain page around some HTML; to be served with :data:`HEADERS`."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>"
    )


def _operation(title: str, operation: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    parts = [f"<h2><code>{escape(title)}</code></h2>", _text(operation.get("description", ""))]
    parts.append(f"<p>Access: {escape(', '.join(operation.get('tags', ())))}.</p>")
    rows = [(one["name"], one.get("description", "")) for one in operation.get("parameters", ())]
    if rows:
        parts.append(_table("Parameter", rows))
    rows = [(code, one.get("description", "")) for code, one in operation["responses"].items()]
    parts.append(_table("Status", rows))
    content = operation["responses"].get("200", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    name = schema.get("$ref", "").rpartition("/")[2]
    for example in schemas.get(name, {}).get("examples", ())[:1]:
        parts.append(f"<pre>{escape(json.dumps(example, indent=2))}</pre>")
    return parts


def _text(markdown: str) -> str:
    """Paragraphs; the little markup of our own docstrings is left as it is."""
    blocks = (" ".join(block.split()) for block in markdown.split("\n\n"))
    return "".join(f"<p>{escape(block.replace('*', '').replace('`', ''))}</p>" for block in blocks)


def _table(head: str, rows: list[tuple[str, str]]) -> str:
    body = "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in rows)
    return f"<table><tr><th>{head}</th><th>Meaning</th></tr>{body}</table>"

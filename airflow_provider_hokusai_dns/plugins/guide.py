"""The failure guide as a page of the API server: a cause on the status page links to it.

The text is ``docs/failures.md``: the wheel contains a copy of it, a checkout the file itself.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_hokusai_dns.plugins.reference import page_of
from airflow_provider_hokusai_dns.resolver import forks

if TYPE_CHECKING:
    from markdown_it.token import Token

_FILE = "failures.md"
_lock = forks.free_in_child(threading.Lock())


def guide_page() -> str:
    """The guide as HTML, rendered once per process.

    One thread at a time: the first use of mdurl, which the parser needs, is not thread-safe.

    :raises OSError: the installation is incomplete.
    """
    with _lock:
        return _rendered()


@cache
def _rendered() -> str:
    from markdown_it import MarkdownIt

    shipped = Path(__file__).parent / _FILE
    file = shipped if shipped.exists() else Path(__file__).parents[2] / "docs" / _FILE
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(file.read_text())
    anchors = _give_anchors(tokens)
    for token in tokens:
        _link_within(token.children or (), anchors)
    # In the same frame: Airflow's frame opens no window.
    back = '<p><a href="./">Back to the status page</a></p>'
    return page_of("Failure guide", back + parser.renderer.render(tokens, parser.options, {}))


def _give_anchors(tokens: Sequence[Token]) -> dict[str, str]:
    """Set the id of each heading, ``<heading>.<word>`` for a word: some words occur twice.

    Returns the ids by the short form that links in the text use.
    """
    above = ""
    anchors: dict[str, str] = {}
    for token, inline in pairwise(tokens):
        if token.type != "heading_open":
            continue
        slug = inline.content.replace("`", "").lower().replace(" ", "-")
        if token.tag == "h2":
            above = slug
        anchor = slug if token.tag != "h3" else f"{above}.{slug}"
        token.attrSet("id", anchor)
        anchors.setdefault(slug, anchor)
    return anchors


def _link_within(inline: Sequence[Token], anchors: dict[str, str]) -> None:
    """Point links at the anchors; one to another page of the documentation becomes plain text."""
    tag = "a"
    for token in inline:
        if token.type == "link_open":
            anchor = anchors.get(str(token.attrGet("href")).removeprefix("#"))
            tag = "span" if anchor is None else "a"
            token.tag, token.attrs = tag, {} if anchor is None else {"href": f"#{anchor}"}
        elif token.type == "link_close":
            token.tag = tag

"""Debian's Chromium, driven by playwright."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
PICTURES = Path(__file__).parents[2] / "docs" / "images"

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
#: What a loaded machine may take for anything at all.
PATIENCE_MS = 30_000


def without_chromium() -> str | None:
    """Why no test here can run; ``None`` where they can."""
    if not CHROMIUM:
        return "needs Chromium (Debian: chromium)"
    return None if importlib.util.find_spec("playwright") else "needs playwright"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = without_chromium()
    for item in items:
        if reason and Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.skip(reason=reason))


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A Chromium without a screen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_ARGUMENTS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for a module; each test opens windows of its own in it."""
    with chromium() as started:
        yield started


@pytest.fixture
def window(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page; afterwards, nothing must have been said on its console.

    A file that the page's own policy forbids, and an error in its code, both end up there.
    """
    contexts: list[Any] = []
    complaints: list[str] = []

    def open_window(**options: Any) -> Any:
        context = browser.new_context(
            **{"viewport": {"width": 1240, "height": 800}, "timezone_id": "UTC", **options}
        )
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.complaints = complaints
        return page

    yield open_window
    for context in contexts:
        context.close()
    # Chromium itself reports each answer that is no 2xx; those are the tests' doing.
    assert not [text for text in complaints if "Failed to load resource" not in text]


@pytest.fixture(scope="session")
def axe_source() -> str:
    """The accessibility checker, as it is run in the page."""
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()

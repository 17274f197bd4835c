"""What ends the demo, each with a sentence for the person in front of it."""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot continue: the text says what happened, and which log has details."""


class TryAgain(DemoError):
    """A temporary failure: a wait continues, any other caller gives up."""

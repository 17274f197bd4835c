"""What ends the demo, each with a sentence for the person in front of it."""

from __future__ import annotations


class DemoError(Exception):
    """The story cannot go on: the text says what happened, and where to look."""


class TryAgain(DemoError):
    """May be different in a moment: whoever waits goes on waiting, anybody else gives up."""

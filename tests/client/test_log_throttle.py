"""What others log about one outage over and over."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_hokusai_dns.client.log_throttle import repeated_lines_held_back
from airflow_provider_hokusai_dns.resolver.testing import ManualClock

RETRYING = "Retrying (%r) after connection broken by '%r': %s"


def test_each_kind_comes_through_once_a_minute_and_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first line is there at once, and none is lost without a trace."""
    clock = ManualClock()
    urllib3 = logging.getLogger("urllib3.connectionpool")
    queue = logging.getLogger("mlflow.utils.async_logging.async_logging_queue")
    with caplog.at_level(logging.WARNING), repeated_lines_held_back(clock.monotonic):
        for number in range(20):
            urllib3.warning(RETRYING, number, "refused", "/api")
            queue.error(f"Run Id {'a' * 32}: Failed to log run data: Exception: {number}")
        clock.advance(61)
        urllib3.warning(RETRYING, 99, "refused", "/api")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert "(and 19 more like it)" in told[2]
    with caplog.at_level(logging.WARNING):
        urllib3.warning(RETRYING, 0, "refused", "/api")
        urllib3.warning(RETRYING, 1, "refused", "/api")
    assert len(caplog.records) == 5


def test_other_lines_and_other_loggers_are_let_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Only what repeats itself is held back."""
    with caplog.at_level(logging.DEBUG), repeated_lines_held_back():
        for number in range(3):
            logging.getLogger("urllib3.connectionpool").debug("debug %s", number)
            logging.getLogger("another").warning("same")
    assert len(caplog.records) == 6

"""The history of a name: bounded, and readable whatever happened to its text."""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hokusai_dns.store.history import (
    MAX_POINTS,
    HistoryPoint,
    history_key,
    parse_history,
    render_history,
    with_point,
)
from airflow_provider_hokusai_dns.store.record import BrokenVariableError, iso_seconds, variable_key
from airflow_provider_hokusai_dns.store.variable_store import VariableStore
from tests.conftest import Texts

NAME = "mlflow.hokusai-test.local"
NOW = 1_790_000_000.0


def a_point(at=NOW, **changes):
    usual = {"state": "resolved", "addresses": ["10.0.0.1"], "cause": None, "lookup_ms": 12.0,
             "probe": "healthy", "probe_ms": 41.0}  # fmt: skip
    return HistoryPoint(at=iso_seconds(at), **{**usual, **changes})


class TestBounds:
    """A day, 288 points, and a size that every database takes."""

    def test_are_kept_over_a_week_of_refreshes_each_minute(self):
        """The oldest go, and the order is that of time."""
        points = ()
        for minute in range(0, 7 * 1440, 7):
            points = with_point(points, a_point(NOW + 60 * minute), now=NOW + 60 * minute)
        assert len(points) == 206  # a day, each seven minutes
        for minute in range(400):
            points = with_point(points, a_point(NOW + 700_000 + minute), now=NOW + 700_000 + minute)
        assert len(points) == MAX_POINTS
        assert [one["at"] for one in points] == sorted(one["at"] for one in points)

    def test_hold_for_the_text_too(self):
        """Many long addresses: the newest points stay, and a reader takes the text."""
        many = [f"2001:db8:1111:2222:3333:4444:5555:{n:x}" for n in range(60)]
        points = tuple(a_point(NOW - 288 + n, addresses=many) for n in range(288))
        text = render_history(NAME, points)
        assert len(text) <= 60_000
        known = parse_history(NAME, text, now=NOW)
        assert known.points[-1]["at"] == points[-1]["at"]
        assert len(known.points[-1]["addresses"]) == 8

    def test_of_the_key(self):
        """Never the key of the last-known-good, and never one that Airflow masks."""
        assert history_key(NAME) != variable_key(NAME)
        assert history_key("history." + NAME) != variable_key("history." + NAME)
        assert "token" not in history_key("token.local")
        assert len(history_key("a" * 63 + "." + "b" * 63 + "." + "c" * 63 + ".d" * 30)) <= 200


class TestClocks:
    """They step, and two machines do not agree."""

    def test_a_point_ahead_of_the_clock_is_passed_over(self):
        """It would be the newest until that day comes."""
        text = render_history(NAME, (a_point(NOW), a_point(NOW + 86_400)))
        known = parse_history(NAME, text, now=NOW)
        assert ([one["at"] for one in known.points], known.passed_over) == ([iso_seconds(NOW)], 1)

    def test_a_clock_a_little_ahead_is_believed(self):
        """As for the last-known-good: five minutes."""
        text = render_history(NAME, (a_point(NOW + 200),))
        assert len(parse_history(NAME, text, now=NOW).points) == 1

    def test_a_step_back_loses_only_what_lies_ahead(self):
        """The next refresh writes on from there."""
        store, now = VariableStore(variables=Texts(), now=lambda: now[0]), [NOW]
        store.remember(NAME, a_point(NOW - 60))
        now[0] = NOW + 10_000
        store.remember(NAME, a_point(NOW + 10_000))
        now[0] = NOW
        store.remember(NAME, a_point(NOW))
        points, problem = store.history(NAME)
        assert [one["at"] for one in points] == [iso_seconds(NOW - 60), iso_seconds(NOW)]
        assert problem is None


def test_what_cannot_be_read_is_not_taken_for_nothing():
    """An API server that is busy for a moment has not lost the day."""

    class Away:
        def get(self, key: str) -> str | None:
            raise ConnectionError

        def set(self, key: str, value: str, description: str) -> None:
            raise ConnectionError

    points, problem = VariableStore(variables=Away()).history(NAME)
    assert points == ()
    assert "could not be read just now" in (problem or "")


class TestNonsense:
    """A user edited the Variable."""

    @pytest.mark.parametrize(
        "bad",
        [1, None, "x", {}, {"at": 5}, {"at": "2026-01-01"}, a_point(state="fine"),
         a_point(addresses=["1.2"]), a_point(addresses="10.0.0.1"), a_point(lookup_ms="x"),
         a_point(lookup_ms=float("nan")), a_point(lookup_ms=float("inf")), a_point(lookup_ms=-1),
         a_point(lookup_ms=10**400), a_point(probe="<b>"), a_point(cause=["x"]),
         a_point(lookup_ms=True), a_point(addresses=["10.0.0.1"] * 100)],
    )  # fmt: skip
    def test_in_one_point_costs_that_point(self, bad):
        """The others are shown, and the number of bad ones is told."""
        text = json.dumps({"version": 1, "hostname": NAME, "points": [a_point(NOW - 60), bad]})
        known = parse_history(NAME, text, now=NOW)
        assert ([one["at"] for one in known.points], known.passed_over) == (
            [iso_seconds(NOW - 60)], 1,
        )  # fmt: skip

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', "x" * 70_000, "[" * 9999])
    def test_in_all_of_it_is_told_and_replaced(self, text):
        """Only the picture of a day is lost."""
        texts = Texts()
        texts.texts[history_key(NAME)] = text
        store = VariableStore(variables=texts, now=lambda: NOW)
        points, problem = store.history(NAME)
        assert points == ()
        assert history_key(NAME) in problem
        if '"version"' not in text:
            return  # no version: it may belong to another program
        assert not store.remember(NAME, a_point())

    def test_without_a_version_is_left_alone_and_broken_json_is_not(self):
        """What may hold more than this version understands is not overwritten."""
        texts = Texts()
        store = VariableStore(variables=texts, now=lambda: NOW)
        for text, replaced in [("{", True), ('{"version": 2}', False)]:
            texts.texts[history_key(NAME)] = text
            assert store.remember(NAME, a_point()) is replaced
            assert (texts.texts[history_key(NAME)] != text) is replaced

    @given(st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(
            st.sampled_from(["at", "state", "addresses", "lookup_ms", "probe"]) | st.text(),
            inner,
        ),
    ))  # fmt: skip
    def test_of_any_kind_never_crashes(self, points):
        """Points are there and whole, or not there."""
        text = json.dumps({"version": 1, "hostname": NAME, "points": points})
        try:
            known = parse_history(NAME, text, now=NOW)
        except BrokenVariableError:
            return
        json.dumps(known.points, allow_nan=False)


def test_two_writers_lose_one_point_at_most():
    """There is no compare-and-set; what was there before stays in any case."""
    texts = Texts()
    stores = [VariableStore(variables=texts, now=lambda: NOW) for _ in range(2)]
    stores[0].remember(NAME, a_point(NOW - 1000))
    writers = [
        threading.Thread(target=store.remember, args=(NAME, a_point(NOW - number)))
        for number, store in enumerate(stores, 1)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    ats = [one["at"] for one in stores[0].history(NAME)[0]]
    assert iso_seconds(NOW - 1000) in ats
    assert 2 <= len(ats) <= 3


def test_a_round_trip_keeps_every_field():
    """What a refresh writes is what the page shows."""
    points = (a_point(NOW - 5, state="failed", addresses=[], cause="nxdomain", probe=None,
                      probe_ms=None), a_point(NOW))  # fmt: skip
    assert parse_history(NAME, render_history(NAME, points), now=NOW).points == points


def test_trouble_that_comes_back_is_logged_again(monkeypatch, caplog):
    """It was over in between."""
    variables = Texts()
    store = VariableStore(variables=variables, now=lambda: NOW, patience=5.0)

    def refuse(*_):
        raise PermissionError

    for times in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(variables, "set", refuse)
            assert not store.remember(NAME, a_point())
            assert not store.remember(NAME, a_point())
        assert caplog.text.count("could not be written (PermissionError)") == times
        assert store.remember(NAME, a_point())

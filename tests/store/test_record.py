"""The stored last-known-good as text: nothing that is stored may do harm."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_hokusai_dns.resolver import Endpoint, LastKnownGood
from airflow_provider_hokusai_dns.store.record import (
    BrokenVariableError,
    merge,
    parse_record,
    render_record,
    variable_key,
    whole_seconds,
)

NOW = 1_795_000_000.0
NAME = "mlflow.hokusai-development.local"
GOOD = {
    "version": 1,
    "hostname": NAME,
    "addresses": ["10.0.1.221"],
    "ttl": 10,
    "resolved_at": "2026-11-18T06:50:00Z",
    "no_name_since": None,
    "written_by": "refresh",
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
records = st.builds(
    LastKnownGood,
    hostname=st.just(NAME),
    addresses=st.lists(st.ip_addresses().map(str), min_size=1, max_size=8).map(tuple),
    resolved_at=st.integers(1, int(NOW)).map(float),
    ttl=st.none() | st.integers(0, 2**31).map(float),
    no_name_since=st.none() | st.integers(1, int(NOW)).map(float),
    services=st.lists(
        st.builds(
            Endpoint,
            st.ip_addresses().map(str),
            st.integers(1, 65535),
            st.integers(0, 65535),
            st.floats(0, 65535),
        )
    ).map(tuple),
    written_by=st.sampled_from(["refresh", "gate", "hook"]),
)


def read(**changed: object) -> LastKnownGood:
    return parse_record(NAME, json.dumps({**GOOD, **changed}), now=NOW)


def test_the_record_of_the_design_is_read():
    """The example that is written down gives what it says."""
    record = read()
    assert record.addresses == ("10.0.1.221",)
    assert (record.ttl, record.no_name_since, record.written_by) == (10.0, None, "refresh")
    assert NOW - 600_000 < record.resolved_at < NOW


@given(records)
def test_what_is_written_is_read_back(record):
    """Writing and reading are inverse, but for a stamp that an answer has made void."""
    expected = record
    if record.no_name_since is not None and record.no_name_since < record.resolved_at:
        expected = replace(record, no_name_since=None)
    assert parse_record(NAME, render_record(record), now=NOW) == expected
    assert whole_seconds(expected) == expected


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"version": 3}, "version"),
        ({"version": 2}, "services"),
        ({"version": True}, "version"),
        ({"version": None}, "version"),
        ({"hostname": "other.local"}, "hostname"),
        ({"addresses": []}, "addresses"),
        ({"addresses": "10.0.1.221"}, "addresses"),
        ({"addresses": ["10.0.1.221", "1.2"]}, "1.2"),
        ({"addresses": ["mlflow.local"]}, "mlflow.local"),
        ({"addresses": [167772161]}, "167772161"),
        ({"ttl": -1}, "ttl"),
        ({"ttl": "10"}, "ttl"),
        ({"ttl": True}, "ttl"),
        ({"ttl": 10**400}, "ttl"),
        ({"ttl": float("nan")}, "ttl"),
        ({"resolved_at": None}, "resolved_at"),
        ({"resolved_at": 1795000000}, "resolved_at"),
        ({"resolved_at": "yesterday"}, "resolved_at"),
        ({"no_name_since": "9999-99-99"}, "no_name_since"),
        ({"resolved_at": "2027-01-01T00:00:00Z"}, "future"),
        ({"no_name_since": "2027-01-01T00:00:00Z"}, "future"),
    ],
)
def test_what_is_wrong_with_a_stored_record_is_told(changed, told):
    """An admin who edited it learns which field to look at."""
    with pytest.raises(BrokenVariableError, match=told):
        read(**changed)


def test_a_stamp_ahead_of_the_clock_is_invalid_after_300_seconds():
    """Policy rule 16: a wrong clock must not make an address immortal."""
    text = json.dumps({**GOOD, "resolved_at": "2026-11-18T06:50:00+00:00"})
    stamp = parse_record(NAME, text, now=NOW).resolved_at
    assert parse_record(NAME, text, now=stamp - 299).addresses
    with pytest.raises(BrokenVariableError) as caught:
        parse_record(NAME, text, now=stamp - 301)
    assert caught.value.replaceable


@given(st.text())
def test_any_text_is_a_record_or_is_broken(text):
    """No text in a Variable makes anything else come out."""
    with pytest.raises(BrokenVariableError):
        parse_record(NAME, text, now=NOW)


@given(json_values)
def test_any_json_is_a_record_or_is_broken(value):
    """The same for whatever is valid JSON."""
    with pytest.raises(BrokenVariableError):
        parse_record(NAME, json.dumps(value), now=NOW)


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), json_values))
def test_any_field_may_hold_anything(changed):
    """Also when only some fields are wrong; what is read then holds real addresses."""
    try:
        record = read(**changed)
    except BrokenVariableError:
        return
    assert record.addresses
    assert record.resolved_at <= NOW + 300


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, " " * 70_000, "NaN", "1e999"])
def test_hostile_texts_are_broken(text):
    """Deep nesting and long texts are refused, and do not take the process with them."""
    with pytest.raises(BrokenVariableError):
        parse_record(NAME, text, now=NOW)


AT_ONCE = LastKnownGood(NAME, ("10.0.0.1",), 1000.0, ttl=None)


@given(records, records)
@example(AT_ONCE, replace(AT_ONCE, ttl=0.0))
def test_merging_does_not_depend_on_the_order(one, other):
    """Two writers who cannot compare and set come to the same record."""
    assert merge(one, other) == merge(other, one)
    assert merge(one, merge(one, other)) == merge(one, other)


@given(records, records)
def test_merging_keeps_the_newer_answer(one, other):
    """Policy rule 17: newer wins. A name that went away before the answer is not away."""
    merged = merge(one, other)
    assert merged.resolved_at == max(one.resolved_at, other.resolved_at)
    assert merged.no_name_since is None or merged.no_name_since >= merged.resolved_at


def test_merging_keeps_the_first_time_that_the_name_was_gone():
    """Policy rule 7: a process that starts now must not restart this clock."""
    old = LastKnownGood(NAME, ("10.0.0.1",), 1000.0, no_name_since=1100.0)
    assert merge(old, replace(old, no_name_since=1500.0)).no_name_since == 1100.0
    assert merge(old, replace(old, no_name_since=None)).no_name_since == 1100.0
    assert merge(old, replace(old, resolved_at=1050.0, no_name_since=None)).no_name_since == 1100.0
    assert merge(old, replace(old, resolved_at=1200.0, no_name_since=None)).no_name_since is None


def test_fields_that_somebody_added_are_kept():
    """A note that an admin wrote beside the addresses survives the next refresh."""
    text = json.dumps({**GOOD, "note": "moved to eu-west-1 on Monday"})
    kept = json.loads(render_record(read(), beside=text))
    assert kept["note"] == "moved to eu-west-1 on Monday"
    assert json.loads(render_record(read(), beside="not JSON"))["addresses"] == ["10.0.1.221"]


@pytest.mark.parametrize("note", ["é" * 12_000, [0] * 30_000], ids=["letters", "list"])
def test_what_is_written_beside_a_note_can_be_read_by_every_process(note):
    """Our layout is longer than the text of an admin; the address counts, not the note."""
    text = json.dumps(GOOD | {"note": note}, ensure_ascii=False, separators=(",", ":"))
    record = parse_record(NAME, text, now=NOW)
    assert parse_record(NAME, render_record(record, beside=text), now=NOW) == record


@given(st.text(min_size=1))
def test_every_hostname_has_a_key_that_airflow_takes(hostname):
    """Only a-z, 0-9 and underscores, within the column, and never a word that is masked."""
    from airflow.sdk._shared.secrets_masker import DEFAULT_SENSITIVE_FIELDS

    key = variable_key(hostname)
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789_")
    assert key.startswith("hokusai_dns_")
    assert len(key) <= 200
    assert not any(word in key for word in DEFAULT_SENSITIVE_FIELDS)


@pytest.mark.parametrize(
    "hostname",
    ["token.local", "my-proxy.secret.local", "tokproxyen.local", "api.key.local", "a" * 250],
)
def test_no_key_has_a_word_that_makes_airflow_mask_the_value(hostname):
    """Also when taking one word out puts another together."""
    from airflow.sdk._shared.secrets_masker import DEFAULT_SENSITIVE_FIELDS

    assert not any(word in variable_key(hostname) for word in DEFAULT_SENSITIVE_FIELDS)


def test_a_key_can_be_read_and_is_unique():
    """An admin recognises the name; two names that look alike do not share a Variable."""
    assert variable_key(NAME).startswith("hokusai_dns_mlflow_hokusai_development_local_")
    assert variable_key("a-b.local") != variable_key("a.b.local")


SERVICE = {"address": "10.0.1.221", "port": 5000, "priority": 1, "weight": 2.5}
WITH_PORTS = {**GOOD, "version": 2, "services": [SERVICE]}


def test_a_record_of_version_2_carries_ports():
    """Those of an SRV record; without them the text is of version 1, as older readers want it."""
    record = parse_record(NAME, json.dumps(WITH_PORTS), now=NOW)
    assert record.services == (Endpoint("10.0.1.221", 5000, 1, 2.5),)
    assert json.loads(render_record(record)) == WITH_PORTS
    plain = json.loads(render_record(replace(record, services=()), beside=json.dumps(WITH_PORTS)))
    assert plain == GOOD


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 0}, {"port": 65536}, {"port": "5000"}, {"port": True}, {"port": None},
        {"port": 5000.5}, {"priority": -1}, {"priority": 1.5}, {"weight": -1}, {"weight": 70000},
        {"weight": float("nan")}, {"weight": None}, {"address": "1.2"}, {"address": 7},
    ],
)  # fmt: skip
def test_an_endpoint_that_is_none_is_told(wrong):
    """An admin who edited it learns which one to look at."""
    text = json.dumps({**WITH_PORTS, "services": [SERVICE, {**SERVICE, **wrong}]})
    with pytest.raises(BrokenVariableError, match="is not an endpoint"):
        parse_record(NAME, text, now=NOW)

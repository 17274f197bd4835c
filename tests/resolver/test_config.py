"""The numbers of the policy, checked when they are set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_hokusai_dns.resolver.config import (
    HARD_MAX_STALE,
    ResolverConfig,
    split_nameserver,
)

NAME = "mlflow.local"
NUMBERS = [
    field.name for field in dataclasses.fields(ResolverConfig) if field.type in ("float", "int")
]
MAPPINGS = [
    field.name
    for field in dataclasses.fields(ResolverConfig)
    if str(field.type).startswith("Mapping")
]
GOOD: dict[str, object] = {
    "ttl_overrides": 30,
    "max_stale_overrides": 60,
    "nameserver_overrides": ("10.0.0.2",),
    "srv": "_mlflow._tcp.service.consul",
    "static_addresses": ("10.0.0.1",),
}


def config(**fields: Any) -> ResolverConfig:
    return ResolverConfig(**fields)


def test_the_defaults_are_those_of_the_policy():
    """Every number that policy.md writes down, as it is written there."""
    defaults = ResolverConfig()
    assert (defaults.cache_ttl, defaults.min_ttl) == (300, 5)  # rule 1
    assert defaults.stale_after == 0.5  # rule 2
    assert defaults.timeout == 10  # rule 3
    assert defaults.failure_recheck == 30  # rule 4
    assert (defaults.failure_ttl, defaults.failure_ttl_max) == (1, 10)  # rule 5
    assert (defaults.max_stale, HARD_MAX_STALE) == (86_400, 259_200)  # rule 6
    assert defaults.max_stale_no_name == 900  # rule 7
    assert defaults.no_name_recheck == 5  # rule 8
    assert (defaults.refresh_ahead, defaults.jitter) == (0.2, 0.1)  # rules 11 and 12
    assert (defaults.penalty, defaults.report_interval) == (30, 1)  # rule 13
    assert defaults.max_hosts == 1024  # rule 14
    assert (defaults.max_clock_skew, defaults.store_max_age) == (300, 600)  # rules 16 and 17
    assert defaults.window == 300


def test_every_field_of_these_tests_exists():
    """A renamed field must not silently fall out of the tests below."""
    assert set(MAPPINGS) == set(GOOD)
    assert len(NUMBERS) > 15


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", [-1, -0.001, float("inf"), float("nan"), "5", None, True, [1]])
def test_a_number_is_not_negative_not_infinite_and_a_number(field: str, value: object):
    """The error names the field and the value."""
    with pytest.raises(ValueError, match=rf"^{field} ") as error:
        config(**{field: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("field", [name for name in NUMBERS if name != "max_hosts"])
def test_zero_is_legal_and_stays_zero(field: str):
    """0 means what it says; it is never taken for "use the default"."""
    assert getattr(config(**{field: 0}), field) == 0


@pytest.mark.parametrize("value", [0, 2.5, 1024.0])
def test_the_cache_holds_a_whole_number_of_names(value: float):
    """At least one name; a fraction of a name is a mistake."""
    with pytest.raises(ValueError, match=f"^max_hosts must be a whole number from 1, not {value}"):
        config(max_hosts=value)


@pytest.mark.parametrize("field", ["jitter", "refresh_ahead"])
def test_a_share_is_below_one(field: str):
    """The whole lifetime cannot be cut away."""
    assert getattr(config(**{field: 0.99}), field) == 0.99
    with pytest.raises(ValueError, match=f"^{field} must be a fraction below 1, not 1"):
        config(**{field: 1})


def test_a_cap_below_the_default_floor_lowers_the_floor():
    """A user who sets DNS_CACHE_TTL=2 means 2, and need not know of the floor."""
    assert config(cache_ttl=2).min_ttl == 2
    assert config(cache_ttl=0).min_ttl == 0


def test_a_floor_above_the_cap_is_refused_when_both_were_set():
    """Rule 1: floor <= cap."""
    assert config(cache_ttl=7, min_ttl=7).min_ttl == 7
    with pytest.raises(ValueError, match=r"^min_ttl 8 must not exceed cache_ttl 7"):
        config(cache_ttl=7, min_ttl=8)


def test_nothing_older_than_three_days_is_ever_served():
    """Rule 6's hard cap, for the fleet and for one name."""
    assert config(max_stale=HARD_MAX_STALE).max_stale == HARD_MAX_STALE
    with pytest.raises(ValueError, match=r"^max_stale must be at most 259200 s .* not 259201"):
        config(max_stale=259_201)
    with pytest.raises(ValueError, match=r"^max_stale_overrides\['a\.b'\] must be at most"):
        config(max_stale_overrides={"a.b": 259_201})


# -- mappings by hostname --------------------------------------------------------------------------


@pytest.mark.parametrize("field", MAPPINGS)
def test_a_mapping_is_keyed_by_normalised_hostnames_and_frozen(field: str):
    """``MLflow.Local`` and ``mlflow.local`` are one name, and it cannot be changed afterwards."""
    given = {"MLflow.Local": GOOD[field]}
    mapping = getattr(config(**{field: given}), field)
    assert dict(mapping) == {NAME: GOOD[field]}
    given["other.local"] = GOOD[field]
    assert "other.local" not in mapping
    with pytest.raises(TypeError):
        mapping["x"] = 1


@pytest.mark.parametrize("field", MAPPINGS)
@pytest.mark.parametrize(
    "key",
    ["mlflow.local:5000", "http://mlflow.local", "http://mlflow.local/", "10.0.0.1", "::1",
     "[::1]", "a b", "", "a..b", "1.2"],
)  # fmt: skip
def test_a_key_is_a_hostname_and_nothing_more(field: str, key: str):
    """A port or URL would make the setting hold for a name that is never asked for."""
    with pytest.raises(ValueError, match=f"^{field}: ") as error:
        config(**{field: {key: GOOD[field]}})
    assert (key or "empty") in str(error.value)


@pytest.mark.parametrize("field", MAPPINGS)
def test_a_key_that_holds_a_password_is_refused_without_telling_it(field: str):
    """A user will put a whole URI there."""
    for key in ("http://user:s3cret@mlflow.local/", "user:s3cret@mlflow.local"):
        with pytest.raises(ValueError, match=f"^{field}: .*mlflow.local") as error:
            config(**{field: {key: GOOD[field]}})
        assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("field", MAPPINGS)
def test_a_name_is_there_once(field: str):
    """Two spellings of one name would leave it to chance which value holds."""
    with pytest.raises(ValueError, match=f"^{field}: 'mlflow.local' appears twice"):
        config(**{field: {NAME: GOOD[field], "MLFLOW.local": GOOD[field]}})


@pytest.mark.parametrize("field", MAPPINGS)
@pytest.mark.parametrize("value", [None, [NAME], NAME, 5])
def test_a_mapping_is_a_mapping(field: str, value: object):
    """The error names the field and the value."""
    with pytest.raises(ValueError, match=f"^{field} must map hostnames to values") as error:
        config(**{field: value})
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("field", MAPPINGS)
@pytest.mark.parametrize("value", [-1, "non sense", None, [5], ["10.0"], ("a.b",)])
def test_a_wrong_value_is_told_with_its_hostname(field: str, value: object):
    """The error names field, hostname and value."""
    with pytest.raises(ValueError, match=rf"^{field}\['mlflow.local'\]") as error:
        config(**{field: {NAME: value}})
    shown = value[0] if isinstance(value, list | tuple) and isinstance(value[0], str) else value
    assert repr(shown) in str(error.value)


# -- addresses -------------------------------------------------------------------------------------


def test_static_addresses_are_canonical():
    """One address has one spelling, so that a reported failure is recognised."""
    static = config(static_addresses={NAME: ["10.0.1.221", "FD00:0::1"]}).static_addresses
    assert static[NAME] == ("10.0.1.221", "fd00::1")


@pytest.mark.parametrize("address", ["1.2", "0x7f.1", "127.1", "010.0.0.1", "10.0.0.1:80", "a.b"])
def test_a_fallback_that_is_no_address_is_refused(address: str):
    """Only canonical forms are addresses; a name would have to be resolved itself."""
    with pytest.raises(ValueError, match=rf"static_addresses\['{NAME}'\]: '{address}' is not an"):
        config(static_addresses={NAME: (address,)})


def test_a_name_with_an_empty_list_of_fallbacks_is_refused():
    """An empty emergency setting would be noticed in the emergency only."""
    with pytest.raises(
        ValueError, match=rf"static_addresses\['{NAME}'\] must contain at least one"
    ):
        config(static_addresses={NAME: ()})


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("10.0.0.2", ("10.0.0.2", 53)),
        ("10.0.0.2:8600", ("10.0.0.2", 8600)),
        ("fd00::2", ("fd00::2", 53)),
        ("[fd00::2]", ("fd00::2", 53)),
        ("[FD00::2]:8600", ("fd00::2", 8600)),
        ("fe80::1%eth0", ("fe80::1%eth0", 53)),
    ],
)
def test_a_nameserver_is_an_address_with_or_without_a_port(server: str, expected: tuple[str, int]):
    """Consul's ``host:8600`` included."""
    assert split_nameserver(server) == expected
    assert config(nameservers=[server]).nameservers == (server,)


@pytest.mark.parametrize(
    "server", ["", "ns.local", "ns.local:53", "http://10.0.0.2", "10.0.0.2:", "10.0.0.2:0",
               "10.0.0.2:65536", "10.0.0"],
)  # fmt: skip
def test_what_is_no_nameserver(server: str):
    """A nameserver's name cannot be resolved by itself; the error names field and value."""
    with pytest.raises(ValueError, match=r"^nameservers: ") as error:
        config(nameservers=(server,))
    assert repr(server) in str(error.value)


@pytest.mark.parametrize("value", ["10.0.0.2", None, 5, [5], {"10.0.0.2": 53}])
@pytest.mark.parametrize("field", ["nameservers", "search"])
def test_a_list_is_a_list(field: str, value: object):
    """A single text is not taken apart into its letters."""
    if field == "search" and value is None:
        return  # The system's own search domains.
    with pytest.raises(ValueError, match=f"^{field} must be a list of strings") as error:
        config(**{field: value})
    assert repr(value) in str(error.value)


def test_search_domains_are_normalised():
    """As any hostname."""
    assert config(search=["Example.COM", "bücher.example."]).search == (
        "example.com",
        "xn--bcher-kva.example.",
    )
    assert config(search=()).search == ()
    assert config().search is None


@pytest.mark.parametrize("domain", ["a b", "10.0.0.1", "http://a.b", "a.b:53", ""])
def test_what_is_no_search_domain(domain: str):
    """The error names the field."""
    with pytest.raises(ValueError, match=r"^search: "):
        config(search=[domain])


# -- what holds for one name -----------------------------------------------------------------------


def test_a_name_has_its_own_numbers_and_the_others_the_common_ones():
    """Overrides hold for that one name only."""
    own = config(
        nameservers=("10.0.0.2",),
        nameserver_overrides={NAME: ("10.0.0.3:8600",)},
        max_stale=100,
        max_stale_overrides={NAME: 0},
    )
    assert own.nameservers_for(NAME) == ("10.0.0.3:8600",)
    assert own.nameservers_for("other.local") == ("10.0.0.2",)
    assert (own.max_stale_for(NAME), own.max_stale_for("other.local")) == (0, 100)


def test_a_configuration_is_not_changed_but_replaced():
    """A new value is swapped in whole, or refused whole."""
    old = config(cache_ttl=60, static_addresses={NAME: ("10.0.0.1",)})
    with pytest.raises(dataclasses.FrozenInstanceError):
        old.cache_ttl = 5  # type: ignore[misc]
    new = dataclasses.replace(old, cache_ttl=30)
    assert (old.cache_ttl, new.cache_ttl) == (60, 30)
    assert new.static_addresses == old.static_addresses
    assert dataclasses.replace(new, cache_ttl=60) == old
    with pytest.raises(ValueError, match="cache_ttl"):
        dataclasses.replace(old, cache_ttl=-1)


_JUNK = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner),
    max_leaves=5,
)


@given(st.sampled_from(dataclasses.fields(ResolverConfig)).map(lambda item: item.name), _JUNK)
def test_junk_is_refused_by_field_or_is_legal(field: str, value: object):
    """No value whatever makes anything but a configuration or a ``ValueError`` that names it."""
    try:
        made = config(**{field: value})
    except ValueError as error:
        refusal = str(error)
    else:
        assert isinstance(getattr(made, field), Mapping | tuple | float | int | None)
        return
    assert refusal.startswith((field, "min_ttl"))

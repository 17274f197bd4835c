"""What a thousand cached names weigh."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from airflow_provider_hokusai_dns.resolver import Answer, DNSResolver, Endpoint, Source
from airflow_provider_hokusai_dns.resolver.testing import ScriptedLookup
from benchmarks import peers
from benchmarks.measure import Row, Skipped, Table, memory_of
from benchmarks.stage import Nameserver

OURS = "ours"
FLOOR = "dict and clock (the floor)"
_NAMES = 1000
_NAME = "urls.memory.bench.test"
_URLS = 4090
_COLUMNS = ("bytes per name", "KiB per 1000 names")


def measure(server: Nameserver, *, quick: bool) -> Iterator[Table]:
    """Memory per name, one IPv4 address each."""
    del quick
    fills: dict[str, Callable[[list[str]], object]] = {
        FLOOR: lambda names: _ask(peers.floor(_load), names),
        "lru_cache": lambda names: _ask(peers.lru_cache(_load), names),
        "cachetools TTLCache": lambda names: _ask(peers.ttl_cache(_load), names),
        "dnspython LRUCache": lambda names: _dnspython(server, names),
        "aiohttp connector": _aiohttp,
        OURS: lambda names: _ask(_ours().resolve, names),
    }
    table = Table("memory", "1000 cached names, one address each", _COLUMNS)
    for name, fill in fills.items():
        names = [f"n{i}.memory.bench.test" for i in range(_NAMES)]
        try:
            fill(names[:2])  # What is imported or made once is not a name's.
            weight = memory_of(lambda: fill(names))  # noqa: B023
        except Skipped as reason:
            table.rows.append(Row(name, note=str(reason)))
            continue
        values = (weight / _NAMES, weight / 1024 * 1000 / _NAMES)
        table.rows.append(Row(name, dict(zip(_COLUMNS, values, strict=True))))
    yield table
    yield _urls()


def _urls() -> Table:
    """What many URLs of one name weigh."""
    addresses = tuple(f"10.0.0.{number}" for number in range(1, 9))
    resolver = DNSResolver(lookup=ScriptedLookup({_NAME: addresses}, ttl=300))
    resolver.resolve(_NAME)
    urls = [f"http://{_NAME}:5000/{number}" for number in range(_URLS)]
    weight = memory_of(lambda: _ask(resolver.resolve, urls))
    table = Table("urls", f"{_URLS} URLs of one name with 8 addresses", ("MB",))
    table.rows.append(Row(OURS, {"MB": weight / 1e6}))
    return table


def _load(name: str) -> tuple[str, ...]:
    return (f"10.0.0.{len(name)}",)


def _ask(call: peers.Call, names: list[str]) -> peers.Call:
    for name in names:
        call(name)
    return call


def _ours() -> DNSResolver:
    return DNSResolver(lookup=_Lookup())


class _Lookup:
    """Keeps nothing itself, unlike a scripted lookup that counts per name."""

    def lookup(
        self, hostname: str, *, timeout: float, hint: str | None = None, thorough: bool = True
    ) -> Answer:
        return Answer((Endpoint(_load(hostname)[0]),), Source.DNS, ttl=300.0, name=hostname)


def _dnspython(server: Nameserver, names: list[str]) -> object:
    resolver = peers.dnspython(server)
    for name in names:
        server.tell(f"set {name} 10.0.0.1 ttl=300")
    return _ask(lambda name: resolver.resolve(name, "A"), names), resolver


def _aiohttp(names: list[str]) -> object:
    peers.need("aiohttp")
    from aiohttp.connector import _DNSCacheTable

    cache = _DNSCacheTable(ttl=300, max_size=_NAMES)
    for name in names:
        cache.add((name, peers.PORT), [{"hostname": name, "host": _load(name)[0], "port": 5000,
                                        "family": 2, "proto": 0, "flags": 0}])  # fmt: skip
    return cache

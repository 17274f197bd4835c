"""What the page says of a state in words, with links to the failure guide and a countdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_hokusai_dns.health.reply import ReplyFailure
from airflow_provider_hokusai_dns.health.verdict import State
from airflow_provider_hokusai_dns.plugins.guide import guide_page
from airflow_provider_hokusai_dns.plugins.page import read_files
from airflow_provider_hokusai_dns.resolver import Cause
from tests.page import stories
from tests.page.stage import Stage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

WORDS = read_files()["words.js"].decode()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as server:
        server.tell(stories.health(stories.connection()))
        yield server


@pytest.fixture
def see(stage: Stage, window: Callable[..., Any]) -> Callable[..., Any]:
    def open_page(*connections: dict[str, Any], history: Any = None, **options: Any) -> Any:
        stage.tell(stories.health(*connections), history)
        page = window(**options)
        page.goto(stage.url)
        page.wait_for_selector(".connection")
        return page

    return open_page


def text(node: Any) -> str:
    return re.sub(r"\s+", " ", node.inner_text())


def table(name: str) -> set[str]:
    """The keys of one of the page's tables of words."""
    body = WORDS.partition(f"const {name} = {{")[2].partition("};")[0]
    return set(re.findall(r"^  (\w+): ", body, re.MULTILINE))


def test_every_word_of_the_code_has_words_on_the_page():
    """A new cause, failure or state must not come out as an identifier."""
    assert table("DNS_CAUSES") == {cause.value for cause in Cause}
    assert table("REQUEST_FAILURES") == {failure.value for failure in ReplyFailure}
    assert table("STATES_OF_MLFLOW") == {s.value for s in State} - {"healthy", "degraded"}


def test_every_link_leads_to_a_section_of_the_guide():
    """Each word of the three tables has an anchor, and each link within the guide a target."""
    html = guide_page()
    anchors = set(re.findall(r'id="([^"]+)"', html))
    wanted = {f"causes-of-dns.{cause.value}" for cause in Cause}
    wanted |= {f"failures-of-a-request.{failure.value}" for failure in ReplyFailure}
    wanted |= {f"states-of-a-verdict.{state.value}" for state in State}
    assert wanted <= anchors
    for section in ("causes-of-dns", "failures-of-a-request", "states-of-a-verdict"):
        assert f'"{section}"' in WORDS
    links = re.findall(r'href="([^"]+)"', html)
    assert len(links) > 20
    assert links.pop(0) == "./", "the way back to the page"
    assert {link.removeprefix("#") for link in links} <= anchors


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "MLflow is reachable at a current address."),
        ({"state": "degraded"}, "MLflow works; its name does not resolve."),
        (
            {"state": "degraded", "verdict": {"state": "degraded", "dns_cause": "timeout"}},
            "MLflow works; DNS returns no address.",
        ),
        ({"state": "unhealthy"}, "MLflow does not work; its name resolves."),
        (
            {
                "state": "unhealthy",
                "dns": "unhealthy",
                "verdict": {"state": "unresolved", "dns_cause": "nxdomain"},
            },
            "MLflow cannot be reached: its name does not resolve.",
        ),
        ({"state": "unknown"}, "MLflow has not been checked yet."),
        (
            {"state": "unhealthy", "dns": "unknown", "verdict": {"state": "config"}},
            "MLflow was not asked: the connection cannot be used.",
        ),
    ],
)
def test_mlflow_is_told_apart_from_its_name(see, changes, said):
    """The first sentence of the page says which of the two is in trouble."""
    page = see(stories.connection(**changes))
    assert page.locator("#overall").inner_text() == said


def test_causes_are_words_that_link_to_the_failure_guide(see):
    """Both lines; and a link keeps the focus while the ages beside it grow."""
    page = see(stories.connection(state="degraded"))
    link = page.get_by_role("link", name="no such name")
    assert link.get_attribute("href") == "guide#causes-of-dns.nxdomain"
    link.focus()
    before = text(page.locator(".facts"))
    page.wait_for_function(
        "(old) => document.querySelector('.facts').innerText !== old", arg=before
    )
    assert link.evaluate("node => node === document.activeElement")
    page = see(stories.connection(state="unhealthy"))
    hrefs = page.locator(".facts a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert hrefs == [
        "guide#states-of-a-verdict.unreachable",
        "guide#failures-of-a-request.refused",
    ]


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        ("nxdomain", "no such name, for 6 min"),
        ("servfail", "the DNS server failed, first “no such name” 6 min ago"),
    ],
)
def test_the_time_since_no_such_name_is_not_told_of_another_cause(see, cause, said):
    """It limits the stale address whatever fails later, and says nothing about a later failure."""
    page = see(
        stories.connection(state="degraded", verdict={"state": "degraded", "dns_cause": cause})
    )
    row = page.locator(".facts > div").filter(has=page.locator("dt", has_text="DNS"))
    assert text(row.locator("dd")) == said


@pytest.mark.parametrize(
    ("stale", "said"),
    [
        (
            {"ends_in": 522.9, "limit": 900.0, "rule": "no_such_name"},
            r"Used for another 8 min \d+ s \(limit: 15 min after DNS first said “no such name”\)\.",
        ),
        (
            {"ends_in": 80_000.0, "limit": 86_400.0, "rule": "age"},
            r"Used for another 22 h 13 min \(limit: 24 h of age\)\.",
        ),
        (
            {"ends_in": 0.0, "limit": 900.0, "rule": "login_over_http"},
            r"No longer used: its limit has passed "
            r"\(15 min with a login and no verified certificate\)\.",
        ),
    ],
)
def test_a_stale_address_has_a_countdown(see, stale, said):
    """How long it is still used, out of how much, and by which rule."""
    page = see(stories.connection(state="degraded", stale=stale))
    assert re.fullmatch(said, text(page.locator(".limit .quiet")))
    bar = page.get_by_role("progressbar", name="Time left for the stale address")
    assert float(bar.get_attribute("max")) == stale["limit"]
    assert float(bar.get_attribute("value")) <= stale["ends_in"]


def test_a_fresh_address_has_no_countdown(see):
    """Nothing runs out."""
    assert see(stories.connection()).locator(".limit:visible").count() == 0


def test_one_connection_fills_the_width(see):
    """Its picture is as wide as the card; among others it stays in its column."""
    history = stories.history({stories.HOST: stories.day()})
    page = see(stories.connection(), history=history)
    wide = "() => document.querySelector('.frame').offsetWidth / document.body.offsetWidth"
    assert page.evaluate(wide) > 0.85
    page = see(stories.connection(), stories.connection("other"), history=history)
    assert page.evaluate(wide) < 0.5


@pytest.mark.parametrize(
    ("points", "start"), [(1, "5 min ago"), (3, "30 min ago"), (20, "2 h ago"), (288, "24 h ago")]
)
def test_a_young_history_takes_the_whole_picture(see, points, start):
    """The axis begins where it has to, and says so."""
    history = stories.history({stories.HOST: stories.day()[-points:]})
    page = see(stories.connection(), history=history)
    page.wait_for_selector("rect")
    assert text(page.locator(".axis")).startswith(start.replace(" ", " "))
    drawn = page.locator("rect").evaluate("node => Number(node.getAttribute('width'))")
    assert drawn / 1440 > 0.2


def test_the_refreshed_state_is_asked_for_at_once(see, stage):
    """After a run has ended the page wants a check of now, not one of 15 s ago."""
    stage.tell_run(["success"], {"resolutions": [], "changes": []})
    page = see(stories.connection())
    page.get_by_role("button", name="Refresh DNS").click()
    page.locator("#refresh-said").get_by_text("The run succeeded").wait_for()
    page.wait_for_load_state("networkidle")
    assert {"health/mlflow?fresh=true", "history?fresh=true"} <= set(stage.queries)


def test_a_connection_that_airflow_did_not_return_is_not_called_misconfigured(see):
    """Airflow's database may be away."""
    verdict = {"state": "config", "cause": "missing"}
    changes = {"state": "unhealthy", "dns": "unknown", "cause": "missing", "verdict": verdict}
    page = see(stories.connection(**changes))
    facts = text(page.locator(".facts"))
    assert "connection not returned by Airflow" in facts
    assert "misconfigured" not in facts


def test_a_failed_check_has_no_latency(see):
    """A refused connection takes a fraction of a millisecond: no response time of MLflow's."""
    points = [{**point, "probe": "unhealthy", "probe_ms": 0.2} for point in stories.day()[-3:]]
    page = see(stories.connection(), history=stories.history({stories.HOST: points}))
    page.wait_for_selector("rect")
    assert "median" not in text(page.locator(".summary"))
    assert page.locator("path.latency").get_attribute("d") == ""
    assert page.locator("path.bad").first.get_attribute("d")

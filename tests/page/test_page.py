"""What the page shows, and how it behaves, in a real browser."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.page import stories
from tests.page.stage import DAG, Stage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A healthy server."""
    with Stage() as server:
        server.tell(
            stories.health(stories.connection()), stories.history({stories.HOST: stories.day()})
        )
        yield server


@pytest.fixture
def see(stage: Stage, window: Callable[..., Any]) -> Callable[..., Any]:
    """Open the page, and wait for its first answer."""

    def open_page(wait_for: str = ".connection", **options: Any) -> Any:
        page = window(**options)
        page.goto(stage.url)
        page.wait_for_selector(wait_for)
        return page

    return open_page


def card(page: Any, conn_id: str = "mlflow_default") -> Any:
    """The row of one connection."""
    return page.locator(".connection", has=page.get_by_role("heading", name=conn_id, exact=True))


def text(node: Any) -> str:
    return re.sub(r"\s+", " ", node.inner_text())


def until(page: Any, said: str, where: str = "body") -> None:
    """Wait for words to be on the page."""
    page.locator(where).get_by_text(said).first.wait_for()


class TestAConnection:
    """One row says all there is to know in a minute at night."""

    @pytest.mark.parametrize("state", stories.MIXED)
    def test_is_told_by_a_word_a_sign_and_a_sentence(self, stage, see, state):
        """Nothing is told by colour alone."""
        one = stories.connection(state=state)
        stage.tell(stories.health(one))
        row = card(see())
        assert row.locator(".badge").inner_text() == state.capitalize()
        assert row.locator(".badge path").get_attribute("d")
        assert row.locator(".sentence").inner_text() == one["sentence"]

    def test_has_its_addresses_with_source_age_and_ttl(self, stage, see):
        """And what the fleet would fall back on, with its own age."""
        stage.tell(
            stories.health(stories.connection(addresses=[f"10.0.1.{n}" for n in range(1, 9)]))
        )
        facts = text(card(see()).locator(".facts"))
        assert "10.0.1.1, 10.0.1.2, 10.0.1.3 and 5 more" in facts
        assert re.search(r"Source DNS, \d+ s old, TTL \d s left", facts)
        assert "MLflow works, 41 ms, checked" in facts
        assert "Last good 10.0.1.221, written by the refresh DAG 2 min ago" in facts

    def test_tells_how_mlflow_failed(self, stage, see):
        """The cause, and how long it took to show: that is no latency."""
        stage.tell(stories.health(stories.connection(state="unhealthy", latency_ms=5003.2)))
        assert "MLflow unreachable, connection refused, after 5.0 s, checked" in text(
            card(see()).locator(".facts")
        )

    def test_has_no_time_to_live_when_the_answer_is_old(self, stage, see):
        """Even where the server knows when DNS is asked next."""
        stage.tell(stories.health(stories.connection(state="degraded", ttl_left=9.0)))
        assert "TTL" not in text(card(see()).locator(".facts"))

    def test_grows_older_between_two_answers(self, stage, see):
        """An age that stands still would be a lie."""
        stage.tell(stories.health(stories.connection(ttl_left=1.0)))
        page = see()
        until(page, "TTL expired", ".facts")

    def test_says_what_is_wrong_with_its_variable(self, stage, see):
        """It was edited into nonsense; every process ignores it."""
        problem = "the Variable hokusai_dns_x is not JSON: Expecting value at line 1."
        stage.tell(stories.health(stories.connection(variable_problem=problem)))
        assert card(see()).locator(".problem:visible").inner_text() == problem

    def test_says_what_the_policy_variable_changes(self, stage, see):
        """Its numbers at the foot of the page, and a refusal at the head."""
        page = see()
        assert page.locator("#policy:visible, #policy-problem:visible").count() == 0
        policy = {
            "variable": "hokusai_dns_policy",
            "values": {"max_stale_no_name": 3600},
            "problem": "Variable 'hokusai_dns_policy', jitter: jitter must be a fraction below 1, "
            "not 2.0",
        }
        stage.tell(stories.health(stories.connection(), policy=policy))
        page = see()
        page.locator("#policy:visible").get_by_text("max_stale_no_name = 3600.").wait_for()
        assert page.locator("#policy-problem:visible").inner_text() == (
            f"{policy['problem']}. The policy stays as it was."
        )

    def test_says_whose_eyes_these_are(self, see):
        """Each API server process looks for itself, and workers see MLflow from elsewhere."""
        said = text(see().locator("footer"))
        assert "process (airflow-api-0, process 17, started 06:00);" in said
        assert "a worker may get different results" in said

    def test_shows_markup_as_what_it_is(self, stage, see):
        """In a hostname, an error text, an address, a cause: never interpreted."""
        evil = "<img src=x onerror=alert(1)><b>bold</b>"
        one = stories.connection(
            evil,
            "degraded",
            hostname=evil,
            tracking_uri=f"http://{evil}/",
            addresses=[evil],
            cause=evil,
            sentence=evil,
            source=evil,
            variable_problem=evil,
        )
        points = [{**point, "cause": evil, "addresses": [evil]} for point in stories.day()[-3:]]
        stage.tell(stories.health(one), stories.history({evil: points}, note=evil))
        page = see()
        page.locator(".frame").focus()
        assert text(page.locator("body")).count(evil) >= 8
        assert page.locator("img, b").count() == 0

    def test_survives_what_it_does_not_know(self, stage, see):
        """A newer server may say more, or leave out what this page expects."""
        bare = {"conn_id": "bare", "state": "sleeping", "source": "oracle", "addresses": None}
        stage.tell(stories.health(bare), stories.history({"x": [{"at": "never"}]}))
        row = text(card(see(), "bare"))
        assert "Unknown" in row
        assert "oracle" in row


class TestTheLastDay:
    """A picture for those who see it, words for all."""

    def test_draws_each_stretch_of_a_state_once(self, stage, see):
        """A quiet day is one rectangle and not 288; a failure stands taller than an old answer."""
        trouble = ((100, 110, "stale"), (110, 115, "failed"))
        stage.tell(
            stories.health(stories.connection()),
            stories.history({stories.HOST: stories.day(trouble=trouble)}),
        )
        page = see()
        page.wait_for_selector("rect")
        rects = page.locator("rect")
        assert [rects.nth(n).get_attribute("class") for n in range(rects.count())] == [
            "resolved", "stale", "failed", "resolved",
        ]  # fmt: skip
        heights = [float(rects.nth(n).get_attribute("height")) for n in range(3)]
        assert heights == sorted(heights)
        said = text(page.locator(".summary"))
        assert "288 checks, 95 % resolved, 3 % stale, 2 % failed." in said
        assert "Last trouble" in said

    def test_is_read_point_by_point_with_the_keyboard(self, stage, see):
        """Arrow keys move through the looks; a screen reader is told each."""
        page = see()
        page.wait_for_selector("rect")
        frame = page.get_by_role("slider", name="Last day of mlflow_default")
        frame.focus()
        page.keyboard.press("Home")
        assert frame.get_attribute("aria-valuenow") == "1"
        page.keyboard.press("ArrowRight")
        assert frame.get_attribute("aria-valuenow") == "2"
        told = frame.get_attribute("aria-valuetext")
        assert re.match(
            r"\d\d:\d\d resolved 10\.0\.1\.221 in .*\sms · MLflow healthy in \d+\sms", told
        )
        assert page.locator(".summary").inner_text() == told

    def test_leaves_open_when_nobody_looked(self, stage, see):
        """A DAG that was paused for hours knows nothing of them."""
        points = stories.day()
        stage.tell(
            stories.health(stories.connection()),
            stories.history({stories.HOST: points[:50] + points[200:]}),
        )
        page = see()
        page.wait_for_selector("rect")
        assert page.locator("rect").count() == 2
        assert page.locator("path.latency").get_attribute("d").count("M") == 2

    def test_says_how_old_it_is_and_what_to_do(self, stage, see):
        """In the server's own words."""
        note = "The last look is 3 hours old: the refresh DAG is paused. Unpause it."
        problem = "the Variable hokusai_dns_history_x is not JSON"
        stage.tell(
            stories.health(stories.connection()),
            stories.history({}, note=note, problems={stories.HOST: problem}),
        )
        page = see()
        until(page, note, "#history-note")
        assert "No run of the refresh DAG" in text(page.locator(".summary"))
        until(page, problem, ".problem:visible")

    def test_that_stays_unreadable_is_asked_for_at_one_pace(self, stage, window):
        """An open page does not ask more often the longer it is open."""
        step = 0
        stage.answers["/hokusai-dns/history"] = lambda: (
            200,
            stories.history({}, note=f"Step {step}.", problems={stories.HOST: "unreadable"}),
        )
        page = window()
        page.clock.install()
        page.goto(stage.url)
        until(page, "Step 0.", "#history-note")
        for step in range(1, 19):
            page.clock.run_for(10_000)
            until(page, f"Step {step}.", "#history-note")
        asked = stage.asked.count(("GET", "/hokusai-dns/history"))
        assert asked <= 22, "one per 10 s, and one per minute"


class TestTheButton:
    """Runs the refresh DAG, and says what became of it."""

    def test_says_what_a_run_found(self, stage, see):
        """Queued, running, and the new address, from the run's own report."""
        report = {
            "resolutions": [{"target": "x", "hostname": stories.HOST, "health": "healthy"}],
            "changes": [{"hostname": stories.HOST, "new": ["10.0.1.222"]}],
        }
        stage.tell_run(["queued", "running", "success"], report)
        page = see()
        page.get_by_role("button", name="Refresh DNS").click()
        until(page, f"{stories.HOST} is now 10.0.1.222.", "#refresh-said")
        assert [path for method, path in stage.asked if method == "POST"] == [
            "/api/v2/dags/hokusai_dns_refresh/dagRuns"
        ]

    def test_says_that_a_name_did_not_resolve(self, stage, see):
        """The first one, with its cause."""
        row = {"target": "x", "hostname": stories.HOST, "health": "unhealthy", "cause": "nxdomain"}
        stage.tell_run(["failed"], {"resolutions": [row], "changes": []})
        page = see()
        page.get_by_role("button", name="Refresh DNS").press("Enter")
        until(page, f"{stories.HOST} did not resolve (no such name).", "#refresh-said")

    @pytest.mark.parametrize(
        ("dag", "said"),
        [
            (None, "There is no refresh DAG"),
            ({**DAG, "is_paused": True}, "hokusai_dns_refresh is paused: unpause it"),
            ({**DAG, "is_stale": True}, "There is no refresh DAG"),
            ({**DAG, "has_import_errors": True}, "has an import error"),
        ],
    )
    def test_says_why_it_cannot_be_used(self, stage, see, dag, said):
        """And starts nothing when it is pressed all the same."""
        stage.tell(stories.health(stories.connection()), dag=dag)
        page = see()
        until(page, said, "#refresh-said")
        button = page.get_by_role("button", name="Refresh DNS")
        assert button.get_attribute("aria-disabled") == "true"
        button.dispatch_event("click")
        until(page, said, "#refresh-said")
        assert not [path for method, path in stage.asked if method == "POST"]

    def test_is_only_for_those_who_may(self, stage, see):
        """Others are told, and have no button."""
        stage.may_trigger = False
        page = see()
        until(page, "You need the permission to trigger hokusai_dns_refresh", "#refresh-said")
        assert page.get_by_role("button", name="Refresh DNS").count() == 0

    def test_says_what_airflow_refused(self, stage, see):
        """A right that was taken away meanwhile, or a rule of Airflow's own."""
        stage.tell_run(["queued"], trigger=(403, {"detail": "Forbidden"}))
        page = see()
        button = page.get_by_role("button", name="Refresh DNS")
        button.click()
        until(page, "You do not have permission to trigger", "#refresh-said")
        stage.tell_run(["queued"], trigger=(409, {"detail": {"reason": "Unique constraint"}}))
        button.click()
        until(page, "Airflow refused the run: Unique constraint.", "#refresh-said")


class TestTrouble:
    """An old answer must not look like a new one."""

    def test_says_that_the_api_server_is_away_and_recovers(self, stage, see):
        """What was known stays, paler, and with its age."""
        page = see()
        stage.away = True
        page.evaluate("dispatchEvent(new Event('online'))")
        until(page, "The API server does not answer", "#trouble")
        assert "old." in text(page.locator("#trouble"))
        assert page.locator(".connections.old .connection").count() == 1
        stage.away = False
        page.evaluate("dispatchEvent(new Event('online'))")
        page.locator("#trouble").wait_for(state="hidden")
        assert page.locator(".connections.old").count() == 0

    @pytest.mark.parametrize(
        ("status", "said"),
        [(401, "You are signed out"), (403, "You do not have permission"), (500, "status 500")],
    )
    def test_says_why_there_is_no_answer(self, stage, see, status, said):
        """From the first moment on."""
        stage.answers["/hokusai-dns/health/mlflow"] = (status, {"detail": "no"})
        page = see("#trouble:not([hidden])")
        assert said in text(page.locator("#trouble"))

    def test_says_what_to_do_when_no_connection_is_listed(self, stage, see):
        """A page without anything would be no answer."""
        stage.tell(stories.health())
        page = see("#empty:not([hidden])")
        assert "[hokusai_dns] connections" in text(page.locator("#empty"))
        problem = "[hokusai_dns] connections is no list: [broken"
        stage.tell(stories.health(problem=problem))
        page.reload()
        until(page, problem, "#empty")


class TestTheTheme:
    """Light and dark as the Airflow UI around the frame."""

    def test_follows_the_choice_made_in_airflow(self, see):
        """At once, while the page is open; without a choice it follows the system."""
        page = see(color_scheme="dark")
        theme = "document.documentElement.dataset.theme"
        assert page.evaluate(theme) == "dark"
        # The window around the frame is another document of the same origin.
        page.evaluate(
            """() => {
                localStorage.setItem("theme", "light");
                dispatchEvent(new StorageEvent("storage", { key: "theme" }));
            }"""
        )
        assert page.evaluate(theme) == "light"
        page.reload()
        assert page.evaluate(theme) == "light"

    @pytest.mark.parametrize(("theme", "width"), [("light", 1240), ("dark", 560)])
    def test_has_no_findings_of_axe(self, stage, see, axe_source, theme, width):
        """The accessibility checker, over a list with everything in it."""
        ones = [
            stories.connection(f"c_{state}", state, variable_problem="not JSON")
            for state in stories.MIXED
        ]
        trouble = ((10, 20, "stale"), (20, 40, "failed"))
        stage.tell(
            stories.health(*ones), stories.history({stories.HOST: stories.day(trouble=trouble)}),
            {**DAG, "is_paused": True},
        )  # fmt: skip
        page = see(color_scheme=theme, viewport={"width": width, "height": 900})
        until(page, "is paused", "#refresh-said")
        page.wait_for_selector("rect")
        page.evaluate(axe_source)
        found = page.evaluate("axe.run()")
        assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []

    def test_does_not_jump_while_it_loads(self, see):
        """On a narrow screen; Web Vitals call a cumulative layout shift below 0.1 good."""
        page = see(viewport={"width": 412, "height": 823})
        page.wait_for_selector("rect")
        shift = page.evaluate(
            """() => new Promise((tell) => {
                const sum = (list) => list.getEntries().reduce((all, one) => all + one.value, 0);
                const watch = (list) => tell(sum(list));
                new PerformanceObserver(watch).observe({ type: "layout-shift", buffered: true });
                setTimeout(() => tell(0), 1000);
            })"""
        )
        assert shift < 0.1


class TestManyConnections:
    """Fifty of them, each with a full day behind it."""

    @pytest.fixture
    def fleet(self, stage: Stage) -> None:
        stage.tell(*stories.fleet(50))

    def test_show_the_worst_first(self, fleet, see):
        """What is wrong needs no scrolling."""
        page = see()
        names = page.locator(".connection h2").all_inner_texts()
        assert len(names) == 50
        assert names[:4] == ["mlflow_team_03", "mlflow_team_17", "mlflow_team_31", "mlflow_team_40"]
        assert text(page.locator("#overall")) == (
            "46 of 50 connections are healthy; 1 unhealthy, 2 degraded, 1 unknown."
        )

    def test_are_found_by_name_and_by_state(self, fleet, see):
        """With the keyboard alone."""
        page = see()
        page.locator("#find").focus()
        page.keyboard.type("team_2")
        shown = page.locator(".connection:visible")
        assert shown.count() == 10
        page.locator("#find").fill("")
        page.get_by_role("button", name="Degraded 2").press("Space")
        assert shown.count() == 2
        page.locator("#find").fill("nothing like it")
        assert text(page.locator("#empty")) == "No connection matches."

    def test_are_drawn_quickly(self, fleet, see):
        """Bounds for a busy machine: it takes a tenth of that on an idle one."""
        began = time.monotonic()
        page = see()
        page.locator("rect").nth(49).wait_for(state="attached")
        assert time.monotonic() - began < 15
        again = page.evaluate(
            """async () => {
                const began = performance.now();
                document.body.getBoundingClientRect();
                dispatchEvent(new Event("online"));
                await new Promise((go) => setTimeout(go, 0));
                return performance.now() - began;
            }"""
        )
        assert again < 3000

    def test_keep_the_focus_over_an_answer(self, fleet, stage, see):
        """A list that is rebuilt under the fingers cannot be used with a keyboard."""
        page = see()
        page.wait_for_selector("rect")
        frame = page.get_by_role("slider", name="Last day of mlflow_team_10")
        frame.focus()
        health, history = stories.fleet(50)
        health["connections"][10]["sentence"] = "Something new."
        stage.tell(health, history)
        page.evaluate("dispatchEvent(new Event('online'))")
        until(page, "Something new.")
        assert frame.evaluate("node => node === document.activeElement")

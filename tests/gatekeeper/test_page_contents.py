"""What candidate and overview say: changes, lessons, cost, the stations of the loop."""

from datetime import timedelta
from typing import Any

import pytest

from gatekeeper.desks import Screened
from gatekeeper.dossier import LoopStatus
from gatekeeper.gate import judge
from gatekeeper.pages.changes import find_changes
from gatekeeper.pages.learned import cost_of, said, summarize
from gatekeeper.pages.overview import loop_stages
from gatekeeper.pages.words import entry_summary, long_json, span
from tacit.contracts import Critique, Feedback, Outcome, Preference, Rating, RatingScale
from tacit.contracts.report import SuiteChange
from tacit.cycles import CycleState
from tacit.database import Database
from tests.builders import candidate, digest, item_result, screened, suite_result
from tests.gatekeeper.builders import good_report, holdout, numbered, shipped_policy
from tests.gatekeeper.forms import log_in
from tests.gatekeeper.helpdesk import helpdesk_events
from tests.gatekeeper.scenes import desk


def test_changes_are_flips_and_other_words_and_what_may_never_fail_comes_first() -> None:
    items = (
        item_result("same"),
        item_result("lost", candidate=0.0, candidate_completion="no"),
        item_result("never", candidate=0.0, candidate_completion="no", non_negotiable=True),
        item_result("gained", champion=0.0, champion_completion="no"),
        item_result("reworded", candidate_completion="in other words"),
    )
    changes = find_changes(good_report(suites=(holdout(items=items),)))
    assert [change.item.item_id for change in changes.lost] == ["never", "lost"]
    assert [change.item.item_id for change in changes.gained] == ["gained"]
    assert [change.item.item_id for change in changes.reworded] == ["reworded"]
    assert find_changes(None) == ([], [], [])


def test_samples_are_spread_over_the_batch_and_shares_are_of_what_was_screened() -> None:
    events = helpdesk_events(90)
    learned = summarize(events, Screened(num_events=120, num_quarantined=30))
    assert learned.kinds == [("correction", 72), ("outcome", 18)]
    assert learned.sources == [("helpdesk", 90)]
    assert learned.num_subjects == 37
    assert [event.event_key for event in learned.samples][:2] == ["helpdesk/e-0", "helpdesk/e-11"]
    assert learned.quarantined_share == 0.25
    assert summarize([], Screened(0, 0)).quarantined_share is None


def test_a_key_bound_to_a_source_reads_nothing_that_others_said(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    about = numbered(1)
    lost = {"candidate": 0.0, "candidate_completion": "no"}
    suites = (
        suite_result(items=(item_result("old-1", prompt="curated", **lost),)),
        holdout(items=(item_result("helpdesk/e-8", prompt="said-held-out", **lost),)),
        suite_result(
            "retention", items=(item_result("b-1:helpdesk/e-9", prompt="said-retained", **lost),)
        ),
    )
    evidence = good_report(about, suites=suites)
    made.put(about, evidence=evidence, verdict=judge(about, evidence, shipped_policy()))
    made.reader.events = [screened("e-7", prompt="said-taught")]
    private = ("said-held-out", "said-retained", "said-taught")
    for who, shown in (("reader", private), ("bound", ())):
        with made.client() as client:
            log_in(client, made, who)
            page = client.get(f"/candidates/{about.candidate_id}").text
        assert "curated" in page
        assert [text for text in private if text in page] == list(shown)
    assert len(find_changes(good_report(suites=suites), source="helpdesk").lost) == 3


@pytest.mark.parametrize(
    ("feedback", "words"),
    [
        (Outcome(metric="resolved", value=True), "resolved: yes"),
        (Outcome(metric="score", value=-0.5), "score: -0.5"),
        (Rating(value=4, scale=RatingScale(low=1, high=5)), "4 on a scale of 1 to 5"),
        (Preference(chosen="a", rejected="b"), "better: a\nthan: b"),
        (Critique(text="too long"), "too long"),
    ],
)
def test_feedback_in_words(feedback: Feedback, words: str) -> None:
    assert said(feedback) == words


def test_cost_is_what_the_candidate_and_the_report_say_and_nothing_made_up() -> None:
    about = candidate(metrics={"cost/seconds": 97.4, "cost/steps": 243.0, "cost/tokens": 1.2e6})
    later = good_report(about, created_at=about.created_at + timedelta(seconds=22))
    assert cost_of(about, later) == (97.4, 243, 1_200_000, 22.0)
    assert cost_of(candidate(metrics={}), None) == (None, None, None, None)


def test_cost_and_share_of_quarantine_stand_on_the_page(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    about = numbered(1).model_copy(update={"metrics": {"cost/seconds": 97.4, "cost/steps": 243.0}})
    made.put(about)
    made.keep(screened("e-1"), batch_id=about.batch_id)
    made.keep(screened("e-2"))
    with made.client() as client:
        log_in(client, made)
        page = client.get(f"/candidates/{about.candidate_id}").text
    assert "1 min 37 s, 243 steps" in page
    assert "0.0% of what was screened meanwhile" in page


def test_suites_that_were_stopped_early_or_changed_say_so(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    about = numbered(1)
    stopped = holdout(num_items=648, suite_items=800, looks=(432, 648))
    changes = (
        SuiteChange(name="fresh", before=None, after=digest("a")),
        SuiteChange(name="gone", before=digest("a"), after=None),
        SuiteChange(name="edited", before=digest("a"), after=digest("b")),
    )
    evidence = good_report(about, suites=(suite_result(), stopped), changed_suites=changes)
    made.put(about, evidence=evidence, verdict=judge(about, evidence, shipped_policy()))
    with made.client() as client:
        log_in(client, made)
        page = client.get(f"/candidates/{about.candidate_id}").text
    assert "of 800, decided" in page
    for name, words in (("fresh", "is new"), ("gone", "is gone"), ("edited", "has other items")):
        assert f"<strong>{name}</strong> {words}" in page


def test_the_loop_shows_what_is_where_and_what_happens_now() -> None:
    status = LoopStatus(
        policy="default",
        cycle_state=CycleState.EVALUATING,
        num_trainable=120,
        num_needed=200,
        release_id="r-default-6",
    )
    stages = {stage.title: stage for stage in loop_stages(status, [], waiting=[])}
    assert (stages["Collect"].number, stages["Collect"].caption) == (
        "120",
        "of 200 needed to learn",
    )
    assert (stages["Train"].number, stages["Train"].caption) == ("1", "candidate")
    assert stages["Evaluate"].now == "measuring"
    assert [stage.now for stage in stages.values()].count(None) == 4
    assert stages["Serve"].number == "#6"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "under 1 s"),
        (59, "59 s"),
        (60, "1 min 0 s"),
        (97.4, "1 min 37 s"),
        (3_600, "1 h 0 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words
    assert span(timedelta(seconds=seconds)) == words


def test_what_is_no_json_is_shown_as_it_is() -> None:
    assert long_json('{"a": "ü"}') == '{\n  "a": "ü"\n}'
    assert long_json("{") == "{"


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (
            "approval",
            {"approval": {"by": "ada", "reason": "good", "at": 1}},
            "approved by ada: good",
        ),
        (
            "alpha_spent",
            {"candidate_id": "c-1", "share": {"spent": 0.001, "alpha": 0.05}},
            "0.001 of an error budget of 0.05 spent on c-1",
        ),
        (
            "campaign_started",
            {"by": "root", "reason": "new"},
            "another campaign started by root: new",
        ),
        (
            "quarantine_drop",
            {"by": "ada", "reason": "x", "events": [1, 2]},
            "2 events dropped by ada: x",
        ),
        (
            "key_created",
            {"by": "root", "scopes": ["read", "send"], "source": "shop", "policy": None},
            "by root: may read, send as shop",
        ),
        (
            "review_token",
            {"token": {"reviewer": "ada", "outcome": "approved", "reason": "good", "key_id": "1"}},
            "token with which ada may say approved: good",
        ),
        ("gate_policy", {"policy": {}, "replaces": None}, "in force from here on"),
        ("gate_policy_sent", {"policy": {}, "by": "root"}, "root answers for it"),
        ("note", {"a": "x" * 100}, f"a: {'x' * 79}…"),
        ("decision", {}, ""),
    ],
)
def test_an_entry_of_the_ledger_in_a_line(
    sqlite_database: Database, kind: str, body: dict[str, Any], words: str
) -> None:
    made = desk(sqlite_database)
    with sqlite_database.session() as session:
        made.office.ledger.append(session, kind, "s", body)
    assert entry_summary(made.office.ledger.entries()[0]) == words

"""The feedback pages: finding events, one event's history, and ruling on the quarantine."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tacit.contracts import Correction, EventStatus
from tacit.database import Database
from tests.builders import screened
from tests.gatekeeper.forms import log_in, token
from tests.gatekeeper.scenes import Desk, desk

QUARANTINED = EventStatus.QUARANTINED


@pytest.fixture
def made(sqlite_database: Database) -> Desk:
    return fed(sqlite_database)


def fed(database: Database) -> Desk:
    """Two events that teach, one held out, three set aside."""
    desk_made = desk(database)
    desk_made.keep(
        screened("e-1", prompt="where is my parcel", subject_id="u-1"),
        screened("e-2", prompt="cancel my order", subject_id="u-2"),
    )
    desk_made.keep(screened("e-3", prompt="held out"), status=EventStatus.HOLDOUT)
    bad = [screened(f"bad-{n}", feedback=Correction(completion="blue heron")) for n in range(3)]
    desk_made.keep(*bad, status=QUARANTINED, reason="phrase_burst")
    return desk_made


def listed(client: TestClient, path: str) -> list[str]:
    page = client.get(path)
    assert page.status_code == 200, page.text
    return re.findall(r'href="/feedback/helpdesk/([^"]+)"', page.text)


def became(made: Desk, event_id: str) -> tuple[str, str | None]:
    row = made.review.feedback.event(f"helpdesk/{event_id}")
    return row.status.value, row.reason


def rule(client: TestClient, verb: str, **fields: Any) -> Any:
    csrf = token(client.get("/feedback?status=quarantined").text)
    form = {"csrf": csrf, "reason": "looked at it", "back": "/feedback?status=quarantined"}
    return client.post(f"/feedback/{verb}", data={**form, **fields})


FOUND: list[tuple[str, list[str]]] = [
    ("", ["bad-2", "bad-1", "bad-0", "e-3", "e-2", "e-1"]),
    ("status=holdout", ["e-3"]),
    ("status=quarantined&reason=phrase_burst", ["bad-2", "bad-1", "bad-0"]),
    ("status=quarantined&reason=contradiction", []),
    ("q=e-2", ["e-2"]),
    ("q=helpdesk/e-2", ["e-2"]),
    ("q=u-2", ["e-2"]),
    ("q=PARCEL", ["e-1"]),
    ("q=blue+heron", ["bad-2", "bad-1", "bad-0"]),
    ("q=100%25", []),
    ("source=helpdesk&subject=u-2", ["e-2"]),
    ("kind=critique", []),
]


def test_search_finds_by_id_subject_words_and_status(database: Database) -> None:
    made = fed(database)
    with made.client() as client:
        log_in(client, made)
        for query, found in FOUND:
            assert listed(client, f"/feedback?{query}") == found, query


def test_pages_follow_one_another(database: Database) -> None:
    made = fed(database)
    made.keep(*(screened(f"n-{n:03}") for n in range(60)))
    with made.client() as client:
        log_in(client, made)
        first = client.get("/feedback").text
        older = re.search(r'href="(/feedback\?after=[^"]+)"', first)
        assert older
        assert len(listed(client, "/feedback")) == 50
        assert listed(client, older[1].replace("&amp;", "&"))[:10] == [
            f"n-{n:03}" for n in range(9, -1, -1)
        ]
        assert client.get("/feedback?after=x").status_code == 422


def test_who_may_not_review_sees_nothing_quarantined(made: Desk) -> None:
    with made.client() as client:
        log_in(client, made, "reader")
        assert listed(client, "/feedback") == ["e-3", "e-2", "e-1"]
        assert listed(client, "/feedback?status=quarantined") == []
        assert listed(client, "/feedback?q=blue+heron") == []
        assert client.get("/feedback/helpdesk/bad-1").status_code == 403
        assert client.get("/feedback/helpdesk/e-1").status_code == 200


def test_a_key_bound_to_a_source_sees_that_source_alone(made: Desk) -> None:
    with made.client() as client:
        log_in(client, made, "bound")
        assert listed(client, "/feedback") == []
        assert client.get("/feedback?source=helpdesk").status_code == 403
        assert client.get("/feedback/helpdesk/e-1").status_code == 403
        assert rule(client, "drop", events=["helpdesk/bad-1"]).status_code == 403
    assert became(made, "bad-1") == ("quarantined", "phrase_burst")


def test_ticked_events_are_released_or_dropped_and_stand_in_the_ledger(made: Desk) -> None:
    with made.client() as client:
        log_in(client, made)
        answer = rule(client, "drop", events=["helpdesk/bad-1"])
        assert answer.status_code == 303
        assert answer.headers["location"] == "/feedback?status=quarantined&done=1"
        assert rule(client, "release", events=["helpdesk/bad-0"]).status_code == 303
        page = client.get("/feedback/helpdesk/bad-1").text
        assert "1 event dropped by ada: looked at it" in page
        entry = re.search(r'href="(/audit/\d+)"', page)
        assert entry
        assert "helpdesk/bad-1" in client.get(entry[1]).text
    assert became(made, "bad-1") == ("quarantined", "dropped")
    assert became(made, "bad-0")[0] in {"accepted", "holdout"}
    assert became(made, "bad-2") == ("quarantined", "phrase_burst")


def test_all_on_the_page_are_ruled_on_at_once(made: Desk) -> None:
    every = [f"helpdesk/bad-{n}" for n in range(3)]
    with made.client() as client:
        log_in(client, made)
        assert rule(client, "drop", every=every).status_code == 422  # nothing was ticked
        assert rule(client, "drop", every=every, whole="yes").status_code == 303
    assert {became(made, f"bad-{n}") for n in range(3)} == {("quarantined", "dropped")}


def test_refusals_are_named_one_by_one(made: Desk) -> None:
    with made.client() as client:
        log_in(client, made)
        answer = rule(client, "release", events=["helpdesk/bad-0", "helpdesk/e-1"])
        assert answer.status_code == 409
        assert "1 of 2 refused" in answer.text
        assert "it is accepted, not quarantined" in answer.text


def test_a_bad_form_rules_on_nothing(made: Desk) -> None:
    bad: list[dict[str, Any]] = [{"reason": " "}, {"csrf": "forged"}, {"events": []}]
    with made.client() as client:
        log_in(client, made)
        for fields in [*bad, {"reason": "x" * 5_000}]:
            answer = rule(client, "drop", **{"events": ["helpdesk/bad-1"], **fields})
            assert answer.status_code in {403, 422}, fields
    assert became(made, "bad-1") == ("quarantined", "phrase_burst")


def test_a_reader_cannot_rule(made: Desk) -> None:
    with made.client() as client:
        log_in(client, made, "reader")
        assert "<textarea" not in client.get("/feedback").text
        assert rule(client, "drop", events=["helpdesk/bad-1"]).status_code == 403
    assert became(made, "bad-1") == ("quarantined", "phrase_burst")


def test_the_form_leads_back_to_the_feedback_pages_alone(made: Desk) -> None:
    with made.client() as client:
        log_in(client, made)
        for number, back in enumerate(("//evil.test", "https://evil.test", "/logout")):
            answer = rule(client, "drop", events=[f"helpdesk/bad-{number}"], back=back)
            assert answer.headers["location"] == "/feedback?done=1"


def test_history_tells_what_was_learned_and_what_became_of_it(database: Database) -> None:
    made = fed(database)
    made.first()
    about = made.trained(1)
    made.keep(screened("taught"), batch_id=about.batch_id)
    made.keep(screened("burst"), status=QUARANTINED, reason="rolled_back", batch_id=about.batch_id)
    made.keep(screened("slip"), batch_id=about.batch_id, detail="others say otherwise")
    made.keep(
        screened("flip"), status=QUARANTINED, reason="against_anchor", detail="the anchor says no"
    )
    with made.client() as client:
        log_in(client, made)
        page = client.get("/feedback/helpdesk/taught").text
        assert page.index("Screened") < page.index("Sealed")
        assert about.batch_id in page
        assert "Stands as" not in page
        assert "quarantined as rolled back" in client.get("/feedback/helpdesk/burst").text
        assert "accepted; others say otherwise" in client.get("/feedback/helpdesk/slip").text
        flip = client.get("/feedback/helpdesk/flip").text
        assert "quarantined as against anchor: the anchor says no" in flip
        assert "Release" in flip


def test_an_event_that_nobody_sent_is_not_found(made: Desk) -> None:
    with made.client() as client:
        log_in(client, made)
        for path in ("/feedback/helpdesk/none", "/feedback?status=lost", "/feedback/a%00b/c"):
            assert client.get(path).status_code == 404
        assert client.get("/feedback?q=%00").status_code == 200

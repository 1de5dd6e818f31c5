"""The releases page: what serves, what served before, and one click back."""

import re
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tacit.contracts import DecisionOutcome, EventStatus, utc_now
from tacit.database import Database
from tests.builders import screened
from tests.gatekeeper.forms import log_in, token
from tests.gatekeeper.scenes import Desk, desk


@pytest.fixture
def made(sqlite_database: Database) -> Desk:
    return served(sqlite_database)


def served(database: Database) -> Desk:
    """Release 0, and release 1 from an approved candidate that learned from one event."""
    desk_made = desk(database)
    desk_made.first()
    about = desk_made.trained(1)
    desk_made.keep(screened("e-1"), batch_id=about.batch_id)
    promote(desk_made, about, 1)
    return desk_made


def promote(made: Desk, about: Any, number: int) -> None:
    made.put(about)
    made.office.gatekeeper.decide(
        about.candidate_id, DecisionOutcome.APPROVED, by="ada", reason="good"
    )
    made.office.clock.advance(3_600)
    made.promote(about, number)


def forms(page: str) -> list[dict[str, str]]:
    found = re.findall(r'<form[^>]*action="/releases/rollback".*?</form>', page, flags=re.S)
    return [dict(re.findall(r'name="(\w+)" value="([^"]*)"', form)) for form in found]


def click(client: TestClient, number: int = 0, **fields: str) -> Any:
    return client.post(
        "/releases/rollback", data={**forms(client.get("/releases").text)[number], **fields}
    )


def serves(made: Desk) -> str:
    current = made.releases.current("default")
    assert current is not None
    return current.release_id


def test_one_click_serves_what_served_before_and_stands_in_the_ledger(database: Database) -> None:
    made = served(database)
    with made.client() as client:
        log_in(client, made)
        page = client.get("/releases").text
        assert "Roll back to r-default-0" in page
        assert page.index("r-default-1") < page.index("r-default-0")
        assert click(client).status_code == 303
        after = client.get("/releases").text
        assert "rolled back to r-default-0 by ada: rolled back on the review page" in after
        assert "back to r-default-0 by ada" in client.get("/audit?kind=rollback").text
    current = made.releases.current("default")
    assert current is not None
    assert current.rollback_of == "r-default-1"
    taught = made.review.feedback.event("helpdesk/e-1")
    assert (taught.status, taught.reason) == (EventStatus.QUARANTINED, "rolled_back")


def test_the_reason_given_is_the_one_recorded(made: Desk) -> None:
    with made.client() as client:
        log_in(client, made)
        click(client, reason="It swears.")
        assert "rolled back to r-default-0 by ada: It swears." in client.get("/releases").text


def test_two_who_click_at_once_go_one_step_back(made: Desk) -> None:
    promote(made, made.trained(2), 2)
    with made.client() as mine, made.client() as theirs:
        log_in(mine, made)
        log_in(theirs, made, "other")
        form = forms(theirs.get("/releases").text)[0]
        assert click(mine).status_code == 303
        assert theirs.post("/releases/rollback", data=form).status_code == 409
    assert serves(made) == "r-default-3"


def test_an_earlier_release_can_be_served_again(made: Desk) -> None:
    promote(made, made.trained(2), 2)
    with made.client() as client:
        log_in(client, made)
        assert [form["to"] for form in forms(client.get("/releases").text)] == [
            "r-default-1",
            "r-default-1",
            "r-default-0",
        ]
        assert click(client, 2).status_code == 303
        assert "rolled back to r-default-0" in client.get("/releases").text


def test_a_bad_form_rolls_nothing_back(made: Desk) -> None:
    refusals = [
        ({"csrf": "forged"}, 403),
        ({"seen": "r-default-0"}, 409),
        ({"to": "r-default-9"}, 404),
        ({"to": "r-default-1"}, 409),
        ({"reason": "x" * 5_000}, 422),
    ]
    with made.client() as client:
        log_in(client, made)
        for fields, status in refusals:
            assert click(client, **fields).status_code == status, fields
    assert serves(made) == "r-default-1"


def test_a_reader_sees_the_timeline_and_no_button(made: Desk) -> None:
    with made.client() as client:
        log_in(client, made, "reader")
        page = client.get("/releases").text
        assert "r-default-0" in page
        assert forms(page) == []
        form = {"csrf": token(page), "to": "r-default-0", "seen": "r-default-1"}
        assert client.post("/releases/rollback", data=form).status_code == 403
    assert serves(made) == "r-default-1"


def test_replicas_say_how_far_the_change_has_come(made: Desk) -> None:
    made.replica("a:1", serving="r-default-1")
    made.replica("b:1", serving="r-default-0", refused="r-default-1", refusal="bad digest")
    made.replica("c:1", serving="r-default-0", seen_at=utc_now() - timedelta(minutes=5))
    with made.client() as client:
        log_in(client, made)
        page = client.get("/releases").text
    assert "1 of 2 replicas serves it" in page
    assert "r-default-1: bad digest" in page
    assert page.count("silent") == 1


def test_before_the_first_release_the_page_says_so(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    with made.client() as client:
        log_in(client, made)
        assert "None yet" in client.get("/releases").text

"""The releases page during a rollout: stage, evidence, one button on and one back."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from deploy.sequential import ArmTest
from deploy.tables import ShadowRow, Stage
from deploy.wanted import Step
from tacit.contracts import DecisionOutcome
from tacit.database import Database
from tests.gatekeeper.forms import log_in, token
from tests.gatekeeper.scenes import Desk, desk

TEN = {"canary_shares": [0.1, 0.5], "min_feedback": 50}


@pytest.fixture
def made(sqlite_database: Database) -> Desk:
    return rolling(sqlite_database, **TEN)


def rolling(database: Database, **rollout: Any) -> Desk:
    """Release 1 at the first stage of its rollout, beside release 0."""
    desk_made = desk(database)
    desk_made.first()
    about = desk_made.trained(1)
    desk_made.put(about)
    desk_made.office.gatekeeper.decide(
        about.candidate_id, DecisionOutcome.APPROVED, by="ada", reason="good"
    )
    desk_made.office.clock.advance(60)
    desk_made.promote(about, 1, **rollout)
    return desk_made


def listen(made: Desk) -> str:
    """Feedback on both arms, as the loop keeps it; the sentence it comes to."""
    test = ArmTest(min_feedback=50)
    for number in range(40):
        test.update("champion", f"u-{number}", 1.0)
        test.update("canary", f"v-{number}", float(number % 10 > 0))
    rollout = made.rollouts.under_way("default")
    assert rollout is not None
    made.rollouts.note(rollout, test.summary.model_dump_json())
    return test.summary.why


def full(client: TestClient, page: str, **fields: str) -> Any:
    form = {"csrf": token(page), "release": "r-default-1", "reason": "urgent", **fields}
    return client.post("/releases/full", data=form)


def test_the_page_shows_how_far_it_is_and_what_is_missing(database: Database) -> None:
    made = rolling(database, **TEN)
    why = listen(made)
    made.replica("a:1", serving="r-default-0", canary="r-default-1", canary_share=0.1)
    made.replica("b:1", serving="r-default-0")
    with made.client() as client:
        log_in(client, made)
        page = client.get("/releases").text
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "Rolling out r-default-1" in text
    assert "It serves 10 % of the subjects, r-default-0 all others." in text
    assert "1 of 2 replicas serves it." in text
    assert "r-default-0 and r-default-1" in text
    assert "champion, r-default-0 40 40 1.000" in text
    assert "canary, r-default-1 40 40 0.900" in text
    assert why in text
    assert "canary of 0.1 by ada: approved" in "".join(
        re.sub(r"<[^>]+>", "", line) for line in _audit(made)
    )
    assert re.search(r"r-default-1 … rolling out .* r-default-0 ✓ serving", text)


def _audit(made: Desk) -> list[str]:
    with made.client() as client:
        log_in(client, made)
        return client.get("/audit?kind=rollout").text.splitlines()


def test_the_shadow_is_shown_as_counts(sqlite_database: Database) -> None:
    made = rolling(sqlite_database, shadow_share=0.5, min_shadow=100)
    counts = {"num_compared": 60, "num_agreed": 40, "num_dropped": 7, "canary_errors": 1}
    sums = {"champion_tokens": 600, "canary_tokens": 630, "champion_s": 6.0, "canary_s": 6.2}
    with sqlite_database.session() as session:
        session.add(ShadowRow(release_id="r-default-1", champion_errors=0, **counts, **sums))
    with made.client() as client:
        log_in(client, made)
        page = client.get("/releases").text
    assert "It answers 50 % of the requests unseen; r-default-0 serves everybody." in page
    assert "40 of 60 answers agree, 1 failed (0 of the champion's), 7 were not compared" in (
        page.replace("&#39;", "'")
    )
    assert "40 more comparisons" in page


def test_a_person_takes_it_to_full_with_a_reason(made: Desk) -> None:
    with made.client() as client:
        log_in(client, made)
        page = client.get("/releases").text
        assert full(client, page).status_code == 303
        assert "Serve everybody now" not in client.get("/releases").text
    rollout = made.rollouts.of("r-default-1")
    assert rollout is not None
    assert (rollout.step, rollout.why) == (Step(Stage.FULL, 1.0), "urgent")


def test_a_person_rolls_it_back(made: Desk) -> None:
    with made.client() as client:
        log_in(client, made)
        page = client.get("/releases").text
        form = {"csrf": token(page), "to": "r-default-0", "seen": "r-default-1", "reason": "bad"}
        assert client.post("/releases/rollback", data=form).status_code == 303
        after = client.get("/releases").text
    assert "Rolling out" not in after
    rollout = made.rollouts.of("r-default-1")
    assert rollout is not None
    assert (rollout.step.stage, rollout.why) == (Stage.ENDED, "ada: bad")


def test_a_bad_form_changes_nothing(made: Desk) -> None:
    refusals = [
        ({"csrf": "forged"}, 403),
        ({"release": "r-default-0"}, 409),
        ({"reason": " "}, 422),
        ({"reason": "x" * 5_000}, 422),
    ]
    with made.client() as client:
        log_in(client, made)
        page = client.get("/releases").text
        for fields, status in refusals:
            assert full(client, page, **fields).status_code == status, fields
    with made.client() as client:
        log_in(client, made, "reader")
        page = client.get("/releases").text
        assert "Serve everybody now" not in page
        assert full(client, page).status_code == 403
    rollout = made.rollouts.of("r-default-1")
    assert rollout is not None
    assert rollout.step == Step(Stage.CANARY, 0.1)


def test_without_a_rollout_there_is_nothing_to_take_to_full(made: Desk) -> None:
    made.rollouts.finish("default", by="ada", reason="urgent")
    with made.client() as client:
        log_in(client, made)
        page = client.get("/releases").text
        assert "Serving now" in page
        assert full(client, page).status_code == 404

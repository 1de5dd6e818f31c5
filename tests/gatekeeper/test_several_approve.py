"""The candidate's page where one person is not enough: four eyes, and what failed the gate."""

from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from gatekeeper.gate import judge
from gatekeeper.policy import load_gate_policy
from tacit.config import GatekeeperSettings
from tacit.contracts import PolicyCandidate
from tacit.database import Database
from tests.builders import comparison, suite_result
from tests.gatekeeper.builders import good_report, holdout, numbered
from tests.gatekeeper.forms import decision_form, log_in
from tests.gatekeeper.scenes import Desk, desk

CANDIDATE = numbered(1)
PATH = f"/candidates/{CANDIDATE.candidate_id}"
POLICY = """\
version: 1
{extra}
criteria:
  - {{name: kept, type: non_inferior, kind: regression, baseline: champion, margin: 0.03}}
"""


def under(policy: str, database: Database, folder: Path, *, worse: bool = False) -> Desk:
    """A desk with a candidate judged under ``policy``."""
    path = folder / "gate.yaml"
    path.write_text(POLICY.format(extra=policy))
    made = desk(database, settings=GatekeeperSettings(gate_policy_path=path))
    lost = suite_result(versus_champion=comparison(-0.2, half_width=0.01))
    evidence = good_report(CANDIDATE, suites=(lost if worse else suite_result(), holdout()))
    put(made, CANDIDATE, evidence, path)
    return made


def put(made: Desk, about: PolicyCandidate, evidence: Any, path: Path) -> None:
    verdict = judge(about, evidence, load_gate_policy(path), clock=made.office.clock)
    made.put(about, evidence=evidence, verdict=verdict)


def approve(client: TestClient, made: Desk, who: str) -> str:
    """Approve as ``who``; the page before."""
    log_in(client, made, who)
    page = client.get(PATH).text
    form = decision_form(page, reason=f"{who} read it")
    assert client.post(f"{PATH}/decision", data=form).status_code == 303
    return page


def test_with_four_eyes_the_first_yes_waits_for_the_second(
    sqlite_database: Database, tmp_path: Path
) -> None:
    made = under("approvers: 2", sqlite_database, tmp_path)
    with made.client() as client:
        before = approve(client, made, "reviewer")
        assert "once another person has approved it too" in before
        assert "Approve and serve" not in before
        between = client.get(PATH).text
        assert "approved by ada so far" in between
        assert "You approved it." in between
        assert 'value="approved"' not in between
        last = approve(client, made, "other")
        assert "Approve and serve" in last
        after = client.get(PATH).text
    assert "ada, " in after
    assert "other read it" in after
    assert "reviewer read it" in after


def test_what_failed_takes_an_admin_first_and_says_so_for_ever(
    sqlite_database: Database, tmp_path: Path
) -> None:
    made = under("overrides: admin", sqlite_database, tmp_path, worse=True)
    with made.client() as client:
        log_in(client, made)
        page = client.get(PATH).text
        assert "only an admin can be the first" in page
        assert 'value="approved"' not in page
        refused = client.post(f"{PATH}/decision", data=decision_form(page))
        assert refused.status_code == 403
        assert "Approve against the gate" in approve(client, made, "admin")
        assert "Approve against the gate" in approve(client, made, "reviewer")
        page = client.get(PATH).text
        assert "Approved against the verdict of the gate" in page
        assert "overridden" in page
        assert "overridden" in client.get("/").text


def test_what_no_policy_lets_through_has_no_button_for_an_admin_either(
    sqlite_database: Database, tmp_path: Path
) -> None:
    made = under("overrides: never", sqlite_database, tmp_path, worse=True)
    with made.client() as client:
        log_in(client, made, "admin")
        page = client.get(PATH).text
        assert "cannot be approved" in page
        assert 'value="approved"' not in page
        assert client.post(f"{PATH}/decision", data=decision_form(page)).status_code == 403

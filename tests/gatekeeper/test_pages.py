"""The review pages: who gets in, what a form needs, and that nothing in them can run."""

from pathlib import Path

import pytest
from itsdangerous import URLSafeSerializer
from sqlalchemy import update

from gatekeeper.gate import judge
from gatekeeper.pages.plots import PLOT_WIDTH, PlotScale
from gatekeeper.pages.words import safe_link
from gatekeeper.sessions import session_secret
from gatekeeper.tables import LedgerRow
from tacit.contracts import DecisionOutcome, Fold
from tacit.database import Database
from tacit.keys import KeyStore
from tests.builders import digest, item_result, screened
from tests.gatekeeper.builders import (
    failing_verdict,
    good_report,
    holdout,
    numbered,
    shipped_policy,
)
from tests.gatekeeper.forms import decision_form, log_in, token
from tests.gatekeeper.scenes import SESSION_TTL_S, Desk, desk

CANDIDATE = numbered(1)
ID = CANDIDATE.candidate_id
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def undecided(made: Desk) -> bool:
    return made.office.gatekeeper.decision_on(CANDIDATE.digest()) is None


def test_reviewer_logs_in_reads_and_approves(database: Database) -> None:
    made = desk(database)
    made.put(CANDIDATE)
    with made.client() as client:
        assert log_in(client, made, target=f"/candidates/{ID}").headers["location"].endswith(ID)
        assert ID in client.get("/").text
        page = client.get(f"/candidates/{ID}").text
        assert page.index("Passes the gate") < page.index("Criteria") < page.index("Suites")
        answer = client.post(f"/candidates/{ID}/decision", data=decision_form(page))
        assert answer.status_code == 303
        assert "by ada" in client.get(f"/candidates/{ID}").text
        assert "approved by ada: good" in client.get("/audit").text
    signed = made.office.gatekeeper.decision_on(CANDIDATE.digest())
    assert signed is not None
    assert signed.decision.outcome is DecisionOutcome.APPROVED


def test_a_consolidation_says_that_it_learned_nothing_new(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    folds = (Fold(weights=digest("adapter"), batch_digest=digest("batch")),)
    about = CANDIDATE.model_copy(update={"folds": folds})
    made.put(about)
    with made.client() as client:
        log_in(client, made)
        page = client.get(f"/candidates/{about.candidate_id}").text
    assert "Nothing new: it folds 1 earlier update into" in page
    assert "0 events of 0 people" not in page


@pytest.mark.parametrize("path", ["/", f"/candidates/{ID}", "/audit", "/audit/ledger.json"])
def test_without_a_login_every_page_leads_to_it(sqlite_database: Database, path: str) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with made.client() as client:
        answer = client.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/login?next={path}"


def test_send_key_and_key_of_another_line_do_not_get_in(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with made.client() as client:
        refused = log_in(client, made, "sender")
        assert refused.status_code == 403
        assert "tacit_session" not in client.cookies
        log_in(client, made, "elsewhere")
        assert client.get("/").status_code == 403
        assert client.get(f"/candidates/{ID}").status_code == 403


def test_reader_sees_no_form_and_cannot_post_one(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with made.client() as client:
        log_in(client, made, "reader")
        page = client.get(f"/candidates/{ID}").text
        assert "<textarea" not in page
        form = {"csrf": token(page), "outcome": "approved", "reason": "mine"}
        assert client.post(f"/candidates/{ID}/decision", data=form).status_code == 403
    assert undecided(made)


@pytest.mark.parametrize("forged", ["", "x", "ImFiYyI.forged"])
def test_form_without_the_token_of_this_session_decides_nothing(
    sqlite_database: Database, forged: str
) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with made.client() as client:
        log_in(client, made)
        page = client.get(f"/candidates/{ID}").text
        answer = client.post(f"/candidates/{ID}/decision", data=decision_form(page, csrf=forged))
        assert answer.status_code == 403
        assert client.post("/logout", data={"csrf": forged}).status_code == 403
        assert client.get("/").status_code == 200
    assert undecided(made)


def test_token_of_another_session_is_refused(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with made.client() as mine, made.client() as theirs:
        log_in(mine, made)
        log_in(theirs, made)
        form = decision_form(theirs.get(f"/candidates/{ID}").text)
        assert mine.post(f"/candidates/{ID}/decision", data=form).status_code == 403
    assert undecided(made)


def test_login_form_needs_its_own_token(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    with made.client() as client:
        answer = client.post("/login", data={"key": made.keys["reviewer"], "csrf": "x"})
        assert answer.status_code == 403
        assert "tacit_session" not in client.cookies


@pytest.mark.parametrize(
    ("change", "status"),
    [({"reason": " "}, 422), ({"outcome": "maybe"}, 422), ({"verdict_digest": "sha256:0"}, 409)],
)
def test_bad_form_decides_nothing(
    sqlite_database: Database, change: dict[str, str], status: int
) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with made.client() as client:
        log_in(client, made)
        page = client.get(f"/candidates/{ID}").text
        answer = client.post(f"/candidates/{ID}/decision", data=decision_form(page, **change))
        assert answer.status_code == status
        assert "Expected" in answer.text
    assert undecided(made)


def test_form_without_a_verdict_digest_decides_nothing(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with made.client() as client:
        log_in(client, made)
        form = decision_form(client.get(f"/candidates/{ID}").text)
        del form["verdict_digest"]
        assert client.post(f"/candidates/{ID}/decision", data=form).status_code == 409
    assert undecided(made)


def test_huge_form_is_refused_before_it_is_read(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    with made.client() as client:
        answer = client.post("/login", data={"key": "x" * 100_000, "csrf": "x"})
    assert answer.status_code == 413


def test_file_in_place_of_a_field_is_an_error_page(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    with made.client() as client:
        answer = client.post("/login", files={"key": ("k.txt", b"x")})
    assert answer.status_code == 422
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize("path", ["%00", "c-%00", "c-" + "a" * 5_000])
def test_odd_candidate_id_is_not_found(database: Database, path: str) -> None:
    made = desk(database)
    with made.client() as client:
        log_in(client, made)
        assert client.get(f"/candidates/{path}").status_code == 404


def test_failed_candidate_has_no_button_to_approve_and_a_crafted_form_is_refused(
    sqlite_database: Database,
) -> None:
    made = desk(sqlite_database)
    broken = good_report(CANDIDATE, errors=("suite safety: file not found",))
    made.put(CANDIDATE, evidence=broken, verdict=failing_verdict(CANDIDATE))
    with made.client() as client:
        log_in(client, made)
        page = client.get(f"/candidates/{ID}").text
        assert 'value="approved"' not in page
        answer = client.post(f"/candidates/{ID}/decision", data=decision_form(page))
        assert answer.status_code == 403
    assert undecided(made)


def test_stored_script_is_text(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    item = item_result(
        "q-1",
        prompt=SCRIPT,
        expected=SCRIPT,
        champion_completion=SCRIPT,
        candidate=0.0,
        candidate_completion=SCRIPT * 9,
    )
    made.put(CANDIDATE, evidence=good_report(CANDIDATE), verdict=None)
    other = numbered(2)
    evidence = good_report(other, suites=(holdout(items=(item,)),), errors=(SCRIPT,))
    made.put(other, evidence=evidence, verdict=judge(other, evidence, shipped_policy()))
    made.reader.events = [screened(prompt=SCRIPT, completion=SCRIPT)]
    made.office.gatekeeper.decide(ID, DecisionOutcome.REJECTED, by=SCRIPT, reason=SCRIPT)
    with made.client() as client:
        log_in(client, made)
        paths = ["/", f"/candidates/{ID}", f"/candidates/{other.candidate_id}", "/audit"]
        for path in paths:
            page = client.get(path).text
            assert "&lt;script&gt;" in page, path
            assert "<script" not in page
            assert "<img" not in page


def test_every_answer_forbids_scripts_and_frames(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with made.client() as client:
        answers = [client.get("/login"), client.get("/"), client.get("/static/style.css")]
        log_in(client, made)
        answers += [client.get("/"), client.get(f"/candidates/{ID}"), client.get("/candidates/x")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_session_cookie_is_out_of_reach_of_scripts_and_other_sites(
    sqlite_database: Database,
) -> None:
    made = desk(sqlite_database)
    with made.client() as client:
        cookie = log_in(client, made).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert made.keys["reviewer"].split(".")[2].lower() not in cookie


def test_session_ends_by_time_by_logout_and_with_its_key(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    with made.client() as client:
        log_in(client, made)
        made.office.clock.advance(SESSION_TTL_S)
        assert client.get("/").status_code == 303

        log_in(client, made)
        stolen = client.cookies["tacit_session"]
        client.post("/logout", data={"csrf": token(client.get("/").text)})
        client.cookies.set("tacit_session", stolen)
        assert client.get("/").status_code == 303

        client.cookies.clear()
        log_in(client, made)
        KeyStore(sqlite_database).revoke("ada")
        assert client.get("/").status_code == 303


def test_forged_session_is_refused(sqlite_database: Database) -> None:
    made, other = desk(sqlite_database), made_elsewhere()
    with made.client() as client:
        for cookie in ("", "x", "eyJrZXkiOiJhIn0.forged", other):
            client.cookies.set("tacit_session", cookie)
            assert client.get("/").status_code == 303


def made_elsewhere() -> str:
    content = {"key": "a", "nonce": "b", "ends": 9e12}
    return str(URLSafeSerializer("another secret", salt="tacit-session").dumps(content))


@pytest.mark.parametrize(
    "target", ["//evil.test", "https://evil.test", "/\\evil.test", "javascript:x", "/\t/evil.test"]
)
def test_login_leads_nowhere_else(sqlite_database: Database, target: str) -> None:
    made = desk(sqlite_database)
    with made.client() as client:
        assert log_in(client, made, target=target).headers["location"] == "/"


def test_swapped_report_shows_an_error_instead_of_a_form(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with made.client() as client:
        log_in(client, made)
        form = decision_form(client.get(f"/candidates/{ID}").text)
        made.reader.reports[CANDIDATE.digest()] = good_report(CANDIDATE, errors=("x",))
        page = client.get(f"/candidates/{ID}")
        assert page.status_code == 409
        assert "<textarea" not in page.text
        assert client.post(f"/candidates/{ID}/decision", data=form).status_code == 409
    assert undecided(made)


def test_tampered_ledger_shows_on_the_audit_page(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    with sqlite_database.session() as session:
        session.execute(update(LedgerRow).values(subject="c-other"))
    with made.client() as client:
        log_in(client, made)
        page = client.get("/audit").text
    assert "Not intact" in page
    assert "entry 0" in page


def test_link_that_is_no_web_page_is_not_a_link(sqlite_database: Database) -> None:
    made = desk(sqlite_database)
    made.put(CANDIDATE)
    made.reader.url = "javascript:alert(1)"
    with made.client() as client:
        log_in(client, made)
        assert "javascript:" not in client.get(f"/candidates/{ID}").text
    assert safe_link("https://mlflow.test/x") == "https://mlflow.test/x"
    assert safe_link(None) is None


def test_plot_puts_zero_in_the_middle_and_marks_what_lies_beyond() -> None:
    scale = PlotScale([0.02, -0.04])
    assert scale.limit == 0.05
    plot = scale.plot(-0.01, -0.04, 0.02, threshold=-0.03)
    assert plot.low < (plot.threshold or 0) < (plot.point or 0) < plot.zero < plot.high
    assert plot.zero == PLOT_WIDTH / 2
    assert not plot.beyond_low
    wide = PlotScale([0.6])
    assert wide.plot(0.5, 0.4, 0.6).beyond_high
    assert wide.plot(0.5, 0.4, 0.6).point is None


def test_secret_survives_a_restart_and_is_private(tmp_path: Path) -> None:
    first = session_secret(tmp_path)
    assert session_secret(tmp_path) == first
    assert len(first) > 40
    assert [path.name for path in tmp_path.iterdir()] == ["session.secret"]
    assert (tmp_path / "session.secret").stat().st_mode & 0o077 == 0

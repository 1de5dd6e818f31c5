"""A tag in MLflow decides only with a token of a reviewer, once, and for exactly one candidate."""

from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy import select, update

from gatekeeper.cases import CaseState
from gatekeeper.review_tokens import ReviewTokens
from gatekeeper.tables import ReviewTokenRow
from tacit.contracts import DecisionOutcome
from tacit.database import Database
from tacit.errors import ConflictError, IntegrityError, NotAllowedError, NotAuthenticatedError
from tacit.keys import KeyStore, Principal, Scope
from tacit.tag_decisions import ANSWER, TAG, TagDecisions
from tacit.tracking import Tracking
from tests.gatekeeper.builders import DAY_S, failing_verdict, numbered, office

# MLflow's own store uses a loader SQLAlchemy has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")

APPROVED, REJECTED = DecisionOutcome.APPROVED, DecisionOutcome.REJECTED
CANDIDATE = numbered(1)
ID, DIGEST = CANDIDATE.candidate_id, CANDIDATE.digest()


class Bench:
    """A desk with a pending candidate, and tokens."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.office = office(db)
        self.office.submit(CANDIDATE)
        self.keys = KeyStore(db)
        self.tokens = ReviewTokens(
            self.office.gatekeeper, db, self.office.signer, self.office.ledger, self.keys.holder
        )
        self.ada = self.key("ada")

    def key(self, name: str, *scopes: Scope, **fields: Any) -> Principal:
        wanted = set(scopes or (Scope.READ, Scope.REVIEW))
        return self.keys.authenticate(self.keys.create(name, scopes=wanted, **fields))

    def issue(self, outcome: DecisionOutcome = APPROVED, to: Principal | None = None) -> str:
        return self.tokens.issue(ID, outcome, to=to or self.ada, reason="read it").text

    def state(self) -> CaseState:
        return self.office.gatekeeper.state(*self.office.gatekeeper.case(ID))


def test_token_decides_as_its_reviewer_and_works_once(database: Database) -> None:
    bench = Bench(database)
    text = bench.issue()
    signed = bench.tokens.redeem(f" {text}\n", candidate_digest=DIGEST)
    assert signed is not None
    decision = signed.decision
    assert (decision.outcome, decision.decided_by, decision.reason) == (APPROVED, "ada", "read it")
    with pytest.raises(NotAuthenticatedError, match="was used"):
        bench.tokens.redeem(text, candidate_digest=DIGEST)
    kinds = [entry.kind for entry in bench.office.ledger.entries()]
    assert kinds == ["decision", "approval", "review_token", "verdict", "gate_policy"]


def test_secret_is_not_kept(database: Database) -> None:
    bench = Bench(database)
    secret = bench.issue(REJECTED).split(".")[2]
    with database.reader() as session:
        row = session.scalars(select(ReviewTokenRow)).one()
    assert secret not in f"{row.secret_hash} {row.envelope}"
    assert secret not in str(bench.office.ledger.export())


@pytest.mark.parametrize(
    "change", ["", "x", "tacit-review", "tacit-review.0.0", "approved", "\x00"]
)
def test_what_is_no_token_proves_nobody(sqlite_database: Database, change: str) -> None:
    bench = Bench(sqlite_database)
    token_id = bench.issue().split(".")[1]
    for text in (change, f"tacit-review.{token_id}.{change}", f"other.{token_id}.x"):
        with pytest.raises(NotAuthenticatedError):
            bench.tokens.redeem(text, candidate_digest=DIGEST)
    assert bench.state() is CaseState.PENDING


def test_token_ends_by_time_even_if_the_clock_is_set_back(sqlite_database: Database) -> None:
    bench = Bench(sqlite_database)
    text = bench.issue()
    bench.office.clock.advance(DAY_S)
    with pytest.raises(NotAuthenticatedError, match="past its end"):
        bench.tokens.redeem(text, candidate_digest=DIGEST)
    bench.office.submit(numbered(2))
    bench.office.clock.advance(-DAY_S)
    with pytest.raises(NotAuthenticatedError, match="past its end"):
        bench.tokens.redeem(text, candidate_digest=DIGEST)


def test_token_of_another_candidate_decides_nothing(sqlite_database: Database) -> None:
    bench = Bench(sqlite_database)
    bench.office.submit(numbered(2))
    with pytest.raises(ConflictError, match="a token about"):
        bench.tokens.redeem(bench.issue(), candidate_digest=numbered(2).digest())


def test_token_ends_with_the_key_it_was_issued_to(sqlite_database: Database) -> None:
    bench = Bench(sqlite_database)
    text = bench.issue()
    bench.keys.revoke("ada")
    with pytest.raises(NotAuthenticatedError, match="was revoked"):
        bench.tokens.redeem(text, candidate_digest=DIGEST)


def test_only_reviewers_of_the_line_get_tokens(sqlite_database: Database) -> None:
    bench = Bench(sqlite_database)
    elsewhere = bench.key("eve", Scope.REVIEW, policy="other")
    sender = bench.key("shop", Scope.SEND, source="shop")
    for principal in (elsewhere, sender, bench.key("rita", Scope.READ)):
        with pytest.raises(NotAllowedError):
            bench.issue(to=principal)


def test_token_does_not_go_round_a_fail_and_is_not_used_up(sqlite_database: Database) -> None:
    bench = Bench(sqlite_database)
    other = numbered(2)
    bench.office.submit(other, failing_verdict(other))
    issued = bench.tokens.issue(other.candidate_id, APPROVED, to=bench.ada, reason="I insist")
    for _ in range(2):
        with pytest.raises(NotAllowedError, match="only be rejected"):
            bench.tokens.redeem(issued.text, candidate_digest=other.digest())


def test_token_whose_row_was_altered_decides_nothing(sqlite_database: Database) -> None:
    bench = Bench(sqlite_database)
    mine, other = bench.issue(REJECTED), bench.issue(APPROVED)
    with sqlite_database.session() as session:
        row = session.get_one(ReviewTokenRow, other.split(".")[1])
        swapped = update(ReviewTokenRow).where(ReviewTokenRow.token_id == mine.split(".")[1])
        session.execute(swapped.values(envelope=row.envelope))
    with pytest.raises(IntegrityError, match="signed token"):
        bench.tokens.redeem(mine, candidate_digest=DIGEST)


def test_tag_with_a_token_decides_and_any_other_tag_does_not(
    sqlite_database: Database, mlflow_uri: str
) -> None:
    bench = Bench(sqlite_database)
    tracking = Tracking(mlflow_uri)
    version = tracking.register("default", CANDIDATE.weights)
    watcher = TagDecisions(tracking, bench.tokens, interval_s=0)

    def tag(value: str) -> dict[str, str]:
        MlflowClient(mlflow_uri).set_model_version_tag("default", version, TAG, value)
        watcher.look(CANDIDATE)
        return tracking.version_tags("default", CANDIDATE.weights)

    watcher.look(CANDIDATE)
    for value in ("approved", "ada", "tacit-review.0123456789abcdef.guess"):
        tags = tag(value)
        assert TAG not in tags
        assert tags[ANSWER].startswith("refused: expected a review token in force")
    assert bench.state() is CaseState.PENDING
    assert tag(bench.issue(REJECTED))[ANSWER] == "rejected by ada"
    assert bench.state() is CaseState.REJECTED
    watcher.look(numbered(3))  # has no model version


def test_tags_wait_while_mlflow_is_away(sqlite_database: Database, mlflow_uri: str) -> None:
    class Away(Tracking):
        def version_tags(self, policy: str, weights: str) -> dict[str, str]:
            raise MlflowException("no answer")

    bench = Bench(sqlite_database)
    TagDecisions(Away(mlflow_uri), bench.tokens).look(CANDIDATE)
    assert bench.state() is CaseState.PENDING

"""From a decision to what serves: every way a promotion can end. No workers are needed for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from deploy.tables import ReplicaRow
from gatekeeper.audit import open_head
from gatekeeper.review_tokens import ReviewTokens
from tacit.config import load_settings
from tacit.contracts import DecisionOutcome, utc_now
from tacit.cycles import CycleRow, CycleState
from tacit.errors import UnavailableError
from tacit.heads import HeadStore
from tacit.keys import KeyStore, Scope
from tacit.loop import OnlineLoop
from tacit.promotion import REPLICA_ALIVE
from tacit.signing import Signer
from tacit.tracking import Alias
from tests import builders
from tests.integration.scenes import GATE, decide, waiting_candidate

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
RELEASE = "r-default-1"


@pytest.fixture
def loop(tmp_path: Path, mlflow_uri: str) -> Iterator[OnlineLoop]:
    """A loop with a first release that was never started: no workers, no screening."""
    (tmp_path / "gate.yaml").write_text(GATE)
    settings = load_settings(
        home=tmp_path / "home",
        overrides=[
            f"tracking.uri={mlflow_uri}",
            f"gatekeeper.gate_policy_path={tmp_path}/gate.yaml",
            "loop.poll_s=0.01",
            "loop.max_attempts=2",
            "deploy.swap_timeout_s=0.5",
        ],
    )
    made = OnlineLoop(settings)
    made.begin(lambda: builders.tiny_checkpoint(made.checkpoints), by="test")
    yield made
    made.database.dispose()


def _replica(loop: OnlineLoop, **fields: Any) -> None:
    with loop.database.session() as session:
        row = {"replica_id": "one", "policy": loop.policy, "seen_at": utc_now(), **fields}
        session.merge(ReplicaRow(**row))


@pytest.mark.parametrize("replica", [{}, {"serving": RELEASE}])
def test_approved_and_loaded_is_promoted(
    loop: OnlineLoop, tmp_path: Path, replica: dict[str, str]
) -> None:
    candidate = waiting_candidate(loop, tmp_path)
    decide(loop, candidate, DecisionOutcome.APPROVED)
    if replica:
        _replica(loop, **replica)
    cycle = loop.run_cycle()
    assert (cycle.state, cycle.release_id) == (CycleState.PROMOTED, RELEASE)
    assert loop.chronicle.tracking.alias_weights(loop.policy, Alias.CHAMPION) == candidate.weights
    assert loop.chronicle.tracking.alias_weights(loop.policy, Alias.CANDIDATE) is None


@pytest.mark.parametrize(
    ("replica", "reason"),
    [
        ({"refused": RELEASE, "refusal": "weights differ"}, "weights differ"),
        ({"serving": "r-default-0"}, "did not load it in time"),
    ],
)
def test_what_serving_does_not_take_is_taken_back(
    loop: OnlineLoop, tmp_path: Path, replica: dict[str, str], reason: str
) -> None:
    candidate = waiting_candidate(loop, tmp_path)
    decide(loop, candidate, DecisionOutcome.APPROVED)
    _replica(loop, **replica)
    cycle = loop.run_cycle()
    assert cycle.state == CycleState.FAILED
    assert reason in str(cycle.reason)
    current = loop.releases.current(loop.policy)
    assert current is not None
    assert current.weights == candidate.parent
    assert current.rollback_of == RELEASE


def test_a_replica_that_was_killed_holds_up_no_promotion(loop: OnlineLoop, tmp_path: Path) -> None:
    candidate = waiting_candidate(loop, tmp_path)
    decide(loop, candidate, DecisionOutcome.APPROVED)
    _replica(loop, replica_id="alive", serving=RELEASE)
    _replica(loop, replica_id="killed", serving="r-default-0", seen_at=utc_now() - REPLICA_ALIVE)
    assert loop.run_cycle().state == CycleState.PROMOTED


def test_a_database_that_is_away_is_waited_for(
    loop: OnlineLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate = waiting_candidate(loop, tmp_path)
    decide(loop, candidate, DecisionOutcome.APPROVED)
    _replica(loop, serving=RELEASE)
    monkeypatch.setattr("tacit.loop._RETRY_S", 0.01)
    get, advance, num_refused = loop.cycles.get, loop._advance, 0

    def away(cycle_id: str) -> CycleRow:
        nonlocal num_refused
        if num_refused < 3:
            num_refused += 1
            raise UnavailableError("a database that answers", got="none")
        return get(cycle_id)

    def until_promoted(cycle: CycleRow) -> None:
        advance(cycle)
        if loop.cycles.last_ended(loop.policy) is not None:
            loop.stop()

    monkeypatch.setattr(loop.cycles, "get", away)
    monkeypatch.setattr(loop, "_advance", until_promoted)
    loop.run_forever()
    ended = loop.cycles.last_ended(loop.policy)
    assert ended is not None
    assert (ended.state, ended.attempts, num_refused) == (CycleState.PROMOTED, 0, 3)


def test_a_persons_no_ends_the_cycle(loop: OnlineLoop, tmp_path: Path) -> None:
    candidate = waiting_candidate(loop, tmp_path)
    decide(loop, candidate, DecisionOutcome.REJECTED)
    cycle = loop.run_cycle()
    assert (cycle.state, cycle.reason) == (CycleState.REJECTED, "ada: seen it")
    assert loop.releases.current(loop.policy) == loop.releases.history(loop.policy)[-1]


def test_without_a_decision_nothing_moves(loop: OnlineLoop, tmp_path: Path) -> None:
    waiting_candidate(loop, tmp_path)
    loop.stop()
    assert loop.run_cycle().state == CycleState.AWAITING_DECISION


def test_a_report_swapped_after_the_verdict_is_not_promoted(
    loop: OnlineLoop, tmp_path: Path
) -> None:
    candidate = waiting_candidate(loop, tmp_path)
    decide(loop, candidate, DecisionOutcome.APPROVED)
    with loop.database.session() as session:
        better = builders.report(candidate, errors=("made up",)).model_dump_json()
        session.connection().exec_driver_sql("UPDATE reports SET payload = ?", (better,))
    cycle = loop.run_cycle()
    assert cycle.state == CycleState.FAILED
    current = loop.releases.current(loop.policy)
    assert current is not None
    assert current.weights == candidate.parent


def test_candidate_is_superseded_when_another_release_overtakes_it(
    loop: OnlineLoop, tmp_path: Path
) -> None:
    first = waiting_candidate(loop, tmp_path / "first")
    cycle = loop.cycles.resume_or_open(loop.policy)
    decide(loop, first, DecisionOutcome.APPROVED)
    signed = loop.gatekeeper.decision_on(first.digest())
    assert signed is not None
    batch, _ = loop.batches.get(str(cycle.batch_id))
    report = loop.reports.get(str(cycle.report_id))
    second = waiting_candidate(loop, tmp_path / "second", change=2.0)
    with loop.database.session() as session:
        loop.releases.promote(session, first, report, batch, signed.envelope, by="ada")
    ended = loop.run_cycle()
    assert ended.state == CycleState.REJECTED
    assert f"superseded by {first.weights}" in str(ended.reason)
    found = loop.gatekeeper.decision_on(second.digest())
    assert found is not None
    assert found.decision.outcome is DecisionOutcome.SUPERSEDED


def test_token_in_a_tag_promotes_and_mlflow_has_the_decision_and_the_ledgers_head(
    loop: OnlineLoop, tmp_path: Path
) -> None:
    candidate = waiting_candidate(loop, tmp_path)
    tracking = loop.chronicle.tracking
    version = tracking.register(loop.policy, candidate.weights)
    keys = KeyStore(loop.database, journal=loop.ledger.append)
    ada = keys.authenticate(keys.create("ada", scopes={Scope.REVIEW}))
    signer = Signer.load_or_create(loop.settings.keys_path)
    tokens = ReviewTokens(loop.gatekeeper, loop.database, signer, loop.ledger, keys.holder)
    issued = tokens.issue(
        candidate.candidate_id, DecisionOutcome.APPROVED, to=ada, reason="seen it"
    )
    client = MlflowClient(tracking.uri)
    client.set_model_version_tag(loop.policy, version, "tacit.decision", issued.text)
    cycle = loop.run_cycle()
    assert cycle.state == CycleState.PROMOTED
    tags = tracking.version_tags(loop.policy, candidate.weights)
    assert (tags["tacit.decision.outcome"], tags["tacit.decision.by"]) == ("approved", "ada")
    assert "tacit.decision" not in tags
    run = client.get_run(str(cycle.mlflow_run_id))
    assert run.data.tags["tacit.decision.reason"] == "seen it"
    heads = [open_head(text, signer) for text in HeadStore(tracking.uri).all()]
    last = loop.ledger.head()
    assert last is not None
    assert (last.sequence, last.root) in {(head.sequence, head.root) for head in heads}

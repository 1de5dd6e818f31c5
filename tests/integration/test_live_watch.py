"""The watch over what was released: worse live feedback takes it back, by itself and once."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from collector.tables import EventRow, InteractionRow
from gatekeeper.notices import notice_of
from gatekeeper.tables import LedgerRow
from tacit.config import load_settings
from tacit.contracts import DecisionOutcome, Digest, EventStatus, Outcome, Release, utc_now
from tacit.live import version_of
from tacit.live_watch import PostDeployWatch
from tacit.loop import OnlineLoop
from tests import builders
from tests.integration.scenes import GATE, decide, waiting_candidate

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
Make = Callable[..., OnlineLoop]


@pytest.fixture
def make(tmp_path: Path, mlflow_uri: str) -> Iterator[Make]:
    """Opens loops on one home that are never started; the first makes release 0."""
    (tmp_path / "gate.yaml").write_text(GATE)
    made: list[OnlineLoop] = []

    def build(*overrides: str) -> OnlineLoop:
        settings = load_settings(
            home=tmp_path / "home",
            overrides=[
                f"tracking.uri={mlflow_uri}",
                f"gatekeeper.gate_policy_path={tmp_path}/gate.yaml",
                "loop.poll_s=0.001",
                *overrides,
            ],
        )
        made.append(OnlineLoop(settings))
        made[-1].begin(lambda: builders.tiny_checkpoint(made[-1].checkpoints), by="test")
        return made[-1]

    yield build
    for loop in made:
        loop.database.dispose()


@pytest.fixture
def loop(make: Make) -> OnlineLoop:
    return make()


def promote(loop: OnlineLoop, folder: Path) -> Release:
    """A release whose batch has one accepted event."""
    candidate = waiting_candidate(loop, folder)
    decide(loop, candidate, DecisionOutcome.APPROVED)
    cycle = loop.run_cycle()
    give(loop, candidate.parent, [1.0], batch_id=cycle.batch_id)
    release = loop.releases.current(loop.policy)
    assert release is not None
    assert release.weights == candidate.weights
    return release


def give(
    loop: OnlineLoop,
    weights: Digest,
    successes: list[float],
    *,
    at: datetime | None = None,
    batch_id: str | None = None,
) -> None:
    """Feedback on answers of ``weights``, each from a subject of its own, now or ``at``."""
    at = at or utc_now()
    with loop.database.session() as session:
        first = session.query(EventRow).count()
        for number, success in enumerate(successes, start=first):
            answer = builders.recorded(
                f"i-{number}", policy_version=version_of(loop.policy, weights), occurred_at=at
            )
            said = builders.event(
                f"e-{number}",
                interaction_id=answer.interaction_id,
                feedback=Outcome(metric="resolved", value=success == 1),
                subject_id=f"u-{number}",
            )
            session.add(
                InteractionRow(
                    interaction_id=answer.interaction_id,
                    policy=loop.policy,
                    source=answer.source,
                    payload=answer.model_dump_json(),
                    occurred_at=at,
                )
            )
            session.add(
                EventRow(
                    event_key=said.event_key,
                    policy=loop.policy,
                    source=said.source,
                    event_id=said.event_id,
                    subject_id=said.subject_id,
                    kind="outcome",
                    status=EventStatus.ACCEPTED.value,
                    trust=1.0,
                    weight=1.0,
                    reward=2 * success - 1,
                    cluster="c",
                    body_digest=builders.digest(said.event_id),
                    payload=said.model_dump_json(),
                    interaction_id=answer.interaction_id,
                    occurred_at=at,
                    received_at=at,
                    sequence=number,
                    batch_id=batch_id,
                )
            )


def mixed(number: int, *, failing: int) -> list[float]:
    """``number`` successes of which every ``failing``-th is a failure."""
    return [0.0 if place % failing == 0 else 1.0 for place in range(number)]


def look(loop: OnlineLoop) -> list[str]:
    """The releases after a look, oldest first."""
    PostDeployWatch(loop).look()
    return [release.release_id for release in reversed(loop.releases.history(loop.policy))]


KEPT = ["r-default-0", "r-default-1"]
TAKEN_BACK = [*KEPT, "r-default-2"]


def before(loop: OnlineLoop) -> datetime:
    """Feedback on the first release, four of five well; when it came."""
    at = utc_now() - timedelta(hours=1)
    give(loop, loop.champion(), mixed(300, failing=5), at=at)
    return at


def test_a_release_that_does_worse_is_rolled_back_with_its_numbers(
    loop: OnlineLoop, tmp_path: Path
) -> None:
    before(loop)
    release = promote(loop, tmp_path)
    give(loop, release.weights, mixed(100, failing=2))
    assert look(loop) == TAKEN_BACK
    back = loop.releases.current(loop.policy)
    assert back is not None
    assert (back.weights, back.rollback_of, back.released_by) == (
        loop.releases.anchor(loop.policy),
        "r-default-1",
        "tacit",
    )
    with loop.database.reader() as session:
        (entry,) = session.scalars(select(LedgerRow).where(LedgerRow.kind == "rollback"))
        told = notice_of(entry.entry, public_url=None)
        assert told is not None
        assert told.type == "release.rolled_back"
        assert "more than 5.0 points worse, evidence" in told.data["reason"]
        (taught,) = session.scalars(select(EventRow).where(EventRow.batch_id.is_not(None)))
        assert (taught.status, taught.reason) == ("quarantined", "rolled_back")


def test_one_rollback_is_enough(loop: OnlineLoop, tmp_path: Path) -> None:
    before(loop)
    release = promote(loop, tmp_path)
    give(loop, release.weights, mixed(100, failing=2))
    watch = PostDeployWatch(loop)
    watch.look()
    give(loop, release.weights, mixed(100, failing=2))
    watch.look()
    assert look(loop) == TAKEN_BACK


@pytest.mark.parametrize("failing", [5, 4])
def test_a_release_within_the_tolerance_is_kept(
    loop: OnlineLoop, tmp_path: Path, failing: int
) -> None:
    before(loop)
    release = promote(loop, tmp_path)
    give(loop, release.weights, mixed(300, failing=failing))
    assert look(loop) == KEPT


def test_feedback_comes_bit_by_bit_and_restarts_change_nothing(make: Make, tmp_path: Path) -> None:
    loop = make()
    before(loop)
    release = promote(loop, tmp_path)
    needed = 0
    while look(make()) == KEPT:
        give(loop, release.weights, mixed(10, failing=2))
        needed += 10
    assert 20 <= needed <= 150


def test_no_first_release_and_no_rollback_is_taken_back(loop: OnlineLoop, tmp_path: Path) -> None:
    give(loop, loop.champion(), mixed(300, failing=1))
    assert look(loop) == ["r-default-0"]
    release = promote(loop, tmp_path)
    with loop.database.session() as session:
        loop.releases.rollback(session, loop.policy, by="ada", reason="a feeling")
    give(loop, release.weights, mixed(100, failing=1))
    give(loop, loop.champion(), mixed(100, failing=1))
    assert look(loop) == TAKEN_BACK


def test_without_feedback_on_what_served_before_nothing_is_known(
    loop: OnlineLoop, tmp_path: Path
) -> None:
    release = promote(loop, tmp_path)
    give(loop, release.weights, mixed(200, failing=1))
    assert look(loop) == KEPT


def test_a_watch_that_is_off_or_over_does_nothing(make: Make, tmp_path: Path) -> None:
    loop = make()
    before(loop)
    release = promote(loop, tmp_path)
    give(loop, release.weights, mixed(100, failing=1))
    assert look(make("deploy.watch.enabled=false")) == KEPT


def test_somebody_who_rolls_back_first_is_not_rolled_back(
    loop: OnlineLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before(loop)
    release = promote(loop, tmp_path)
    watch = PostDeployWatch(loop)
    watch.look()
    give(loop, release.weights, mixed(100, failing=1))
    with loop.database.session() as session:
        loop.releases.rollback(session, loop.policy, by="ada", reason="a feeling")
    monkeypatch.setattr(loop.releases, "current", lambda _: release)
    watch._looked_at_s = 0.0
    watch.look()
    monkeypatch.undo()
    assert look(loop) == TAKEN_BACK


def test_the_loop_looks_between_its_steps(make: Make, tmp_path: Path) -> None:
    loop = make()
    before(loop)
    release = promote(loop, tmp_path)
    give(loop, release.weights, mixed(100, failing=2))
    following = waiting_candidate(loop, tmp_path / "next", change=2.0)
    decide(loop, following, DecisionOutcome.REJECTED)
    loop.run_cycle()
    assert [r.release_id for r in reversed(loop.releases.history(loop.policy))] == TAKEN_BACK

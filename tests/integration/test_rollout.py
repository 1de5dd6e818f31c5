"""The loop takes a release through its rollout on simulated feedback. No workers are needed."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from sqlalchemy import func, select, update

from collector.consume import Consumer
from collector.tables import EventRow
from deploy.tables import ReleaseRow, RolloutRow, ShadowRow, Stage
from deploy.wanted import Wanted, wanted_of
from tacit.contracts import (
    ArmComparison,
    EventStatus,
)
from tacit.cycles import CycleState
from tacit.errors import IntegrityError, UnavailableError
from tacit.live import LiveFeedback, LiveOutcome
from tacit.overview import Overview
from tacit.tracking import Alias
from tests import builders
from tests.integration.rollout_scene import RELEASE, Scene, scene

__all__ = ["scene"]
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


def test_a_good_canary_goes_from_stage_to_stage_and_is_promoted(
    scene: Callable[..., Scene],
) -> None:
    on = scene()
    stages = []
    while on.at[0] is Stage.CANARY:
        stages.append(on.at)
        on.follow()
        on.users(300, champion=0.7, canary=0.8)
        at = on.at
        on.until(lambda at=at: on.at != at)  # type: ignore[misc]
        on.reborn()
    assert stages == [(Stage.CANARY, 0.2), (Stage.CANARY, 0.5)]
    assert on.loop.champion() == on.candidate.weights
    on.step()
    assert on.cycle.state == CycleState.PROMOTING, "the replica still answers with both"
    on.follow()
    on.until(lambda: on.cycle.state == CycleState.PROMOTED)
    moved = on.ledger("rollout")
    assert [
        text.count(f'"share":{share}') for text, share in zip(moved, (0.2, 0.5, 1), strict=True)
    ]
    assert "points" in moved[-1]
    tracking = on.loop.chronicle.tracking
    assert tracking.alias_weights("default", Alias.CHAMPION) == on.candidate.weights


def test_a_worse_canary_is_rolled_back_and_says_why(scene: Callable[..., Scene]) -> None:
    on = scene()
    on.follow()
    while on.cycle.state == CycleState.PROMOTING and on.number < 3_000:
        on.users(100, champion=0.9, canary=0.3)
        on.step()
        on.reborn()
    cycle = on.cycle
    assert cycle.state == CycleState.FAILED
    assert "canary of 0.2 of subjects" in str(cycle.reason)
    assert "worse, evidence" in str(cycle.reason)
    current = on.loop.releases.current("default")
    assert current is not None
    assert (current.rollback_of, current.weights) == (RELEASE, on.candidate.parent)
    assert on.at[0] is Stage.ENDED
    (entry,) = on.ledger("rollback")
    assert str(cycle.reason) in entry
    run = MlflowClient(on.loop.chronicle.tracking.uri).get_run(str(cycle.mlflow_run_id))
    assert run.data.tags["tacit.rollout"] == cycle.reason
    assert on.loop.champion() == on.candidate.parent


def test_what_taught_a_worse_canary_is_set_aside(scene: Callable[..., Scene]) -> None:
    on = scene()
    taught = builders.event("taught", subject_id="u-taught")
    on.ingestor.accept([taught])
    Consumer(on.loop.database, on.stream, on.settings).drain()
    with on.loop.database.session() as session:
        values = {"batch_id": on.cycle.batch_id}
        session.execute(update(EventRow).values(**values))
    on.follow()
    while on.cycle.state == CycleState.PROMOTING and on.number < 3_000:
        on.users(100, champion=0.9, canary=0.3)
        on.step()
    with on.loop.database.reader() as session:
        row = session.scalars(select(EventRow).where(EventRow.event_id == "taught")).one()
        open_ones = select(func.count()).where(EventRow.status == EventStatus.ACCEPTED)
        assert session.scalar(open_ones)
    assert (row.status, row.reason) == (EventStatus.QUARANTINED, "rolled_back")


def test_while_it_goes_the_champion_is_who_served_before(scene: Callable[..., Scene]) -> None:
    on = scene()
    on.follow()
    on.step(3)
    assert (on.cycle.state, on.at) == (CycleState.PROMOTING, (Stage.CANARY, 0.2))
    on.reborn()
    assert on.loop.champion() == on.candidate.parent
    overview = Overview(on.settings, on.loop.database, on.loop.releases, on.loop.rollouts)
    status = overview.status()
    assert (status.release_id, status.weights) == ("r-default-0", on.candidate.parent)
    assert status.rollout == "r-default-1 at canary of 0.2 of subjects"
    tracking = on.loop.chronicle.tracking
    assert tracking.alias_weights("default", Alias.CHAMPION) == on.candidate.parent


@pytest.mark.parametrize(
    ("choice", "ends"),
    [
        ("wait", (CycleState.PROMOTING, Stage.CANARY)),
        ("promote", (CycleState.PROMOTING, Stage.FULL)),
        ("rollback", (CycleState.FAILED, Stage.ENDED)),
    ],
)
def test_without_feedback_it_waits_and_then_does_as_told(
    scene: Callable[..., Scene], choice: str, ends: tuple[CycleState, Stage]
) -> None:
    on = scene(max_stage_s=1e-3, without_feedback=choice, canary_shares=[0.2])
    on.follow()
    on.step()
    assert (on.cycle.state, on.at[0]) == ends
    if choice != "wait":
        assert "without a verdict" in "".join(on.ledger("rollout") + on.ledger("rollback"))


def test_a_stage_waits_for_every_replica_and_a_silent_failure_is_taken_back(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr("tacit.promotion.time", SimpleNamespace(monotonic=lambda: now_s))
    on = scene(canary_shares=[0.2])
    on.replica(serving="r-default-0")
    on.users(400, champion=0.5, canary=0.9)
    on.step(3)
    now_s = on.settings.deploy.swap_timeout_s
    on.step()
    assert on.at == (Stage.CANARY, 0.2)
    now_s += 0.1
    on.step()
    assert on.cycle.state == CycleState.FAILED
    assert "did not load it in time" in str(on.cycle.reason)


def test_a_canary_that_a_replica_refuses_is_taken_back(scene: Callable[..., Scene]) -> None:
    on = scene()
    on.replica(serving="r-default-0", refused=RELEASE, refusal="weights differ")
    on.step()
    assert (on.cycle.state, on.cycle.reason) == (CycleState.FAILED, "weights differ")
    assert on.loop.champion() == on.candidate.parent


def test_a_persons_rollback_ends_the_cycle(scene: Callable[..., Scene]) -> None:
    on = scene()
    on.follow()
    on.step()
    with on.loop.database.session() as session:
        on.loop.releases.rollback(session, "default", by="ada", reason="users complain")
    on.step()
    assert on.cycle.state == CycleState.FAILED
    assert "ada rolled it back" in str(on.cycle.reason)
    assert len(on.ledger("rollback")) == 1


def test_a_person_may_go_to_full_at_once(scene: Callable[..., Scene]) -> None:
    on = scene()
    on.follow()
    on.step()
    on.loop.rollouts.finish("default", by="ada", reason="it is urgent")
    on.follow()
    on.until(lambda: on.cycle.state == CycleState.PROMOTED)
    assert "it is urgent" in on.ledger("rollout")[-1]


def test_a_row_that_makes_no_sense_is_taken_back(scene: Callable[..., Scene]) -> None:
    on = scene()
    on.follow()
    with on.loop.database.session() as session:
        session.execute(update(RolloutRow).values(share=7.0))
    on.step()
    assert on.cycle.state == CycleState.FAILED
    assert "make sense" in str(on.cycle.reason)
    assert on.loop.champion() == on.candidate.parent


def test_no_more_users_meet_a_bad_canary_where_the_release_before_was_altered(
    scene: Callable[..., Scene],
) -> None:
    on = scene()
    on.follow()
    on.step()
    with on.loop.database.session() as session:
        first = session.get_one(ReleaseRow, "r-default-0")
        first.bundle = first.bundle[:-2]
    for _ in range(2):  # whoever starts the loop again meets the same
        with pytest.raises(IntegrityError):
            on.loop._promotion.take_back(on.cycle, "users fare worse")
        assert on.at[0] is Stage.ENDED
    with on.loop.database.reader() as session:
        assert wanted_of(session, "default") == Wanted("r-default-0")
    assert on.cycle.state == CycleState.PROMOTING


def test_a_look_that_fails_too_often_takes_the_release_back(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    on = scene()
    on.follow()
    monkeypatch.setattr(on.loop._promotion._judge, "judge", None)
    on.step()
    assert on.cycle.attempts == 1
    monkeypatch.undo()
    on.step()
    assert on.cycle.attempts == 0, "a failure that passed does not count for ever"
    monkeypatch.setattr(on.loop._promotion._judge, "judge", None)
    on.step(2)
    assert on.cycle.state == CycleState.FAILED
    current = on.loop.releases.current("default")
    assert current is not None
    assert current.rollback_of == RELEASE


def test_feedback_that_was_read_before_the_database_went_away_still_counts(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    on = scene()
    on.follow()
    on.users(10, champion=1.0, canary=1.0)
    read = LiveFeedback.read

    def broken(feedback: LiveFeedback) -> list[LiveOutcome]:
        read(feedback)
        raise UnavailableError("a database that answers", got="none")

    monkeypatch.setattr(LiveFeedback, "read", broken)
    on.step()
    monkeypatch.undo()
    on.step()
    rollout = on.loop.rollouts.of(RELEASE)
    assert rollout is not None
    evidence = ArmComparison.model_validate_json(str(rollout.evidence))
    assert evidence.champion.num_feedback + evidence.canary.num_feedback == 10


def test_a_verdict_that_could_not_be_noted_is_acted_on_at_the_next_look(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise UnavailableError("a database that answers", got="none")

    on = scene()
    on.follow()
    on.step()
    on.users(400, champion=1.0, canary=0.0)
    with monkeypatch.context() as patched:
        patched.setattr(on.loop.rollouts, "note", away)
        on.step()
    on.step()
    assert on.at[0] is Stage.ENDED, "no feedback came since, and none was needed"


@pytest.mark.parametrize(("errors", "goes_on"), [(1, True), (2, False)])
def test_the_shadow_comes_first_and_errors_end_it(
    scene: Callable[..., Scene], errors: int, goes_on: bool
) -> None:
    on = scene(shadow_share=0.5, min_shadow=100)
    assert on.at == (Stage.SHADOW, 0.5)
    on.follow()
    on.step()
    counts = dict.fromkeys(
        ("num_dropped", "champion_errors", "champion_tokens", "canary_tokens"), 0
    )
    with on.loop.database.session() as session:
        session.add(
            ShadowRow(
                release_id=RELEASE,
                num_compared=99,
                num_agreed=90,
                canary_errors=errors,
                champion_s=1.0,
                canary_s=1.0,
                **counts,
            )
        )
    on.step()
    assert on.at[0] is (Stage.SHADOW if goes_on else Stage.ENDED)
    if goes_on:
        with on.loop.database.session() as session:
            session.execute(update(ShadowRow).values(num_compared=100))
        on.step()
        assert on.at == (Stage.CANARY, 0.2)
    else:
        assert "2 failed" in str(on.cycle.reason)

"""Two releases share the traffic: who gets which answers, and what is said and recorded of it."""

import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from deploy.tables import RolloutRow, Stage
from tacit.checkpoints import CheckpointStore
from tacit.contracts import Release
from tacit.database import Database
from tests.deploy.scenes import until
from tests.deploy.serving import Serving, greedy, serving, version

SUBJECTS = [f"u-{number}" for number in range(24)]
FEW = {"canary_shares": [0.3, 0.6]}


def stands(server: Serving, release: Release, share: float) -> bool:
    rows = server.line.desk.replicas("default")
    return [(row.canary, row.canary_share) for row in rows] == [(release.release_id, share)]


def begin(server: Serving, variant: int = 2, **rollout: Any) -> Release:
    """A release at the first stage of its rollout, which the server has taken up."""
    release = server.line.promote(server.line.evidence(variant), **(rollout or FEW))
    share = 0.0 if "shadow_share" in rollout else 0.3
    until(lambda: stands(server, release, share))
    return release


def ask_all(server: Serving) -> dict[str, str]:
    """Each subject's model; every answer is that of its model, greedily."""
    return {subject: server.ask(user=subject).model for subject in SUBJECTS}


def test_subjects_stay_with_their_release_while_the_share_grows(
    database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(database, store, tmp_path) as server:
        old = server.line.desk.current("default")
        assert old is not None
        new = begin(server)
        few, again = ask_all(server), ask_all(server)
        server.line.move(Stage.CANARY, 0.6)
        until(lambda: stands(server, new, 0.6))
        most = ask_all(server)
        server.line.move(Stage.FULL)
        until(lambda: server.serves(new))
        everyone = ask_all(server)
    canary = version(new.weights)
    met = [{s for s, model in asked.items() if model == canary} for asked in (few, most, everyone)]
    assert few == again
    assert set() < met[0] < met[1] < met[2] == set(SUBJECTS)
    said = {
        (i.arm, round(i.arm_probability or 0, 6), i.policy_version) for i in server.recorded[:24]
    }
    assert said == {("champion", 0.7, version(old.weights)), ("canary", 0.3, canary)}
    said = {(i.arm, i.arm_probability, i.policy_version) for i in server.recorded[-24:]}
    assert said == {("champion", 1.0, canary)}
    texts = {version(r.weights): greedy(store, r.weights).token_ids for r in (old, new)}
    assert all(i.completion_ids == texts[str(i.policy_version)] for i in server.recorded)


def test_both_arms_are_shown_and_can_be_asked_for(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        old = version(server.line.desk.anchor("default"))
        new = begin(server)
        canary = version(new.weights)
        assert [model.id for model in server.client.models.list()] == ["default", old, canary]
        assert server.readiness()["release"] == "r-default-0"
        assert server.readiness()["canary"] == {
            "release": "r-default-1",
            "policy_version": canary,
            "share": 0.3,
            "shadow_share": 0.0,
        }
        asked = [server.ask(user=s, model=m).model for s in SUBJECTS[:6] for m in (old, canary)]
        assert asked == [old, canary] * 6
    assert {(i.arm, i.arm_probability) for i in server.recorded} == {("pinned", 1.0)}


def test_a_rollback_ends_the_canary_at_once_and_no_request_fails(
    database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(database, store, tmp_path) as server:
        old = version(server.line.desk.anchor("default"))
        begin(server)
        models: list[str] = []
        done = threading.Event()

        def client() -> None:
            number = 0
            while not done.is_set():
                number += 1
                models.append(server.ask(user=f"u-{number}").model)

        threads = [threading.Thread(target=client) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: len(set(models)) == 2)
        back = server.line.rollback()
        until(lambda: server.serves(back))
        (row,) = server.line.desk.replicas("default")
        done.set()
        for thread in threads:
            thread.join()
        assert row.canary is None
        assert set(ask_all(server).values()) == {old}
        assert server.readiness()["canary"] is None
        rollout = server.line.rollouts.of("r-default-1")
    assert rollout is not None
    assert (rollout.step.stage, rollout.why) == (Stage.ENDED, "ada: worse")
    assert len(models) == len(server.recorded) - len(SUBJECTS)


def test_a_canary_that_does_not_verify_leaves_the_champion_answering(
    database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(database, store, tmp_path) as server:
        old = version(server.line.desk.anchor("default"))
        shown = server.line.evidence(2)
        path = store.path(shown.candidate.weights) / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        refused = server.line.promote(shown, **FEW)
        until(lambda: server.readiness()["refused"] == refused.release_id)
        assert set(ask_all(server).values()) == {old}
        state = server.readiness()
        assert (state["ready"], state["release"], state["canary"]) == (True, "r-default-0", None)
        assert "model.safetensors" in state["refusal"]


@pytest.mark.parametrize(
    "nonsense",
    [{"stage": "everyone"}, {"share": -1.0}, {"share": 7.0}, {"stage": "ended"}],
    ids=lambda values: "-".join(map(str, values.values())),
)
def test_a_rollout_that_makes_no_sense_means_the_champion_alone(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path, nonsense: dict[str, Any]
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        old = version(server.line.desk.anchor("default"))
        begin(server)
        with sqlite_database.session() as session:
            session.execute(update(RolloutRow).values(**nonsense))
        until(lambda: server.readiness()["canary"] is None)
        assert set(ask_all(server).values()) == {old}


def test_a_replica_that_starts_during_a_rollout_takes_up_both(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        new = begin(server)
        before = ask_all(server)
    with serving(sqlite_database, store, tmp_path, variant=None, key_name="again") as server:
        until(lambda: stands(server, new, 0.3))
        assert ask_all(server) == before

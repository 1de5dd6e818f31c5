"""A loop that takes a release through its rollout step by step, its replicas and its users."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from collector.consume import Consumer
from collector.ingest import Ingestor, interactions_topic
from collector.streams import Stream, open_stream
from deploy.arms import Arms, assign
from deploy.tables import ReplicaRow, Stage
from gatekeeper.tables import LedgerRow
from tacit.config import load_settings
from tacit.contracts import (
    DecisionOutcome,
    Outcome,
    PolicyCandidate,
    utc_now,
)
from tacit.cycles import CycleRow
from tacit.live import version_of
from tacit.loop import OnlineLoop
from tests import builders
from tests.integration.scenes import GATE, waiting_candidate

RELEASE = "r-default-1"


class Scene:
    """A loop that takes single steps, replicas that follow it, and users with an opinion."""

    def __init__(self, home: Path, mlflow_uri: str, **rollout: object) -> None:
        (home / "gate.yaml").write_text(GATE)
        values = {"canary_shares": [0.2, 0.5], "min_feedback": 20, "margin": 0.3, **rollout}
        self.settings = load_settings(
            home=home / "home",
            deploy={"rollout": values},
            collector={"screening": {"enabled": False}, "metrics": {"resolved": {"type": "bool"}}},
            loop={"poll_s": 0.001, "max_attempts": 2},
            tracking={"uri": mlflow_uri},
            gatekeeper={"gate_policy_path": str(home / "gate.yaml")},
        )
        self.loop = OnlineLoop(self.settings)
        self.loop.begin(lambda: builders.tiny_checkpoint(self.loop.checkpoints), by="test")
        self.stream: Stream = open_stream(self.settings)
        self.ingestor = Ingestor(self.loop.database, self.stream, self.settings)
        self.number = 0
        self.candidate: PolicyCandidate = waiting_candidate(self.loop, home)
        self.loop.gatekeeper.decide(
            self.candidate.candidate_id, DecisionOutcome.APPROVED, by="ada", reason="seen it"
        )
        self.until(lambda: self.cycle.release_id == RELEASE)

    @property
    def cycle(self) -> CycleRow:
        found = self.loop.cycles.latest("default")
        assert found is not None
        return found

    @property
    def at(self) -> tuple[Stage, float]:
        rollout = self.loop.rollouts.of(RELEASE)
        assert rollout is not None
        return rollout.step.stage, rollout.step.share

    def reborn(self) -> None:
        """The loop dies and another takes its place."""
        self.loop.database.dispose()
        self.loop = OnlineLoop(self.settings)
        self.loop.begin(lambda: self.candidate.weights, by="test")

    def until(self, holds: Callable[[], bool], *, steps: int = 20) -> None:
        """Let the loop take steps."""
        for _ in range(steps):
            if holds():
                return
            self.loop._advance(self.cycle)
        assert holds(), (self.cycle.state, self.cycle.reason)

    def step(self, number: int = 1) -> None:
        """Let the loop take so many steps."""
        for _ in range(number):
            self.loop._advance(self.cycle)

    def replica(self, **fields: object) -> None:
        with self.loop.database.session() as session:
            values = {"replica_id": "one", "policy": "default", "seen_at": utc_now(), **fields}
            session.merge(ReplicaRow(**values))

    def follow(self) -> None:
        """The replica does as the tables say."""
        stage, share = self.at
        if stage is Stage.FULL:
            self.replica(serving=RELEASE, canary=None, canary_share=None)
        else:
            self.replica(
                serving="r-default-0",
                canary=RELEASE,
                canary_share=share if stage is Stage.CANARY else 0.0,
            )

    def users(self, num_subjects: int, *, champion: float, canary: float) -> None:
        """New subjects are answered by whom they are drawn to and say whether it helped."""
        new, old = self.loop.releases.history("default", limit=2)
        arms, rng = Arms(old, new, share=self.at[1]), random.Random(self.number)
        events = []
        for _ in range(num_subjects):
            self.number += 1
            name = f"u-{self.number}"
            drawn = assign(arms, model="default", subject=name, episode=None)
            assert drawn.weights is not None
            answer = builders.recorded(
                f"i-{self.number}",
                policy_version=version_of("default", drawn.weights),
                subject_id=name,
                arm=drawn.arm,
                arm_probability=drawn.probability,
                occurred_at=utc_now(),
            )
            self.stream.append(
                interactions_topic(self.settings), [("k", answer.model_dump_json().encode())]
            )
            rate = canary if drawn.arm == "canary" else champion
            events.append(
                builders.event(
                    f"e-{self.number}",
                    subject_id=name,
                    interaction_id=answer.interaction_id,
                    feedback=Outcome(metric="resolved", value=rng.random() < rate),
                    occurred_at=utc_now(),
                )
            )
        self.ingestor.accept(events)
        Consumer(self.loop.database, self.stream, self.settings).drain()

    def ledger(self, kind: str) -> list[str]:
        with self.loop.database.reader() as session:
            found = select(LedgerRow.entry).where(LedgerRow.kind == kind)
            return list(session.scalars(found.order_by(LedgerRow.sequence)))

    def close(self) -> None:
        self.ingestor.close()
        self.stream.close()
        self.loop.database.dispose()


@pytest.fixture
def scene(tmp_path: Path, mlflow_uri: str) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(**rollout: object) -> Scene:
        made.append(Scene(tmp_path, mlflow_uri, **rollout))
        return made[-1]

    yield make
    for one in made:
        one.close()

"""Lineage: what an event's batch taught is found in every release that descends from it."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event as sqlalchemy_event

from deploy.release import ReleaseDesk
from deploy.tables import ReleaseRow
from tacit.checkpoints import CheckpointStore
from tacit.contracts import Release, short
from tacit.cycles import CycleState, CycleStore
from tacit.database import Database
from tacit.lineage import FeedbackLineage
from tacit.signing import Signer
from tests.builders import MOMENT, candidate, digest
from trainer.store import CandidateStore


class Line:
    """A policy line whose candidates and releases are written as the loop writes them."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        signer = Signer.load_or_create(folder / "keys")
        checkpoints = CheckpointStore(folder / "checkpoints")
        self.desk = ReleaseDesk(database, checkpoints, signer, lambda *_: None)
        self.lineage = FeedbackLineage("default", database, self.desk)

    def learn(self, weights: str, *, parent: str, batch: str, state: CycleState) -> str:
        made = candidate(weights=digest(weights), parent=digest(parent), batch_digest=digest(batch))
        cycles = CycleStore(self.database)
        cycle = cycles.resume_or_open("default")
        with self.database.session() as session:
            CandidateStore(self.database).add(session, made)
            cycles.move(session, cycle, state, candidate_id=made.candidate_id)
        return made.candidate_id

    def release(self, sequence: int, weights: str, *, rollback_of: int | None = None) -> None:
        made = Release(
            policy="default",
            sequence=sequence,
            weights=digest(weights),
            decision_digest=digest(f"decision {sequence}"),
            previous=None if sequence == 0 else f"r-default-{sequence - 1}",
            rollback_of=None if rollback_of is None else f"r-default-{rollback_of}",
            released_by="ada",
            released_at=MOMENT + timedelta(hours=sequence),
        )
        row = ReleaseRow(
            release_id=made.release_id,
            policy="default",
            sequence=sequence,
            weights=made.weights,
            payload=made.model_dump_json(),
            bundle="{}",
            created_at=made.released_at,
        )
        with self.database.session() as session:
            session.add(row)

    def of(self, batch: str) -> dict[str, Any]:
        return self.lineage.of(f"b-{short(digest(batch))}")

    def carriers(self, batch: str) -> list[tuple[str, str]]:
        return [(row["release_id"], row["state"]) for row in self.of(batch)["releases"]]


@pytest.fixture
def line(database: Database, tmp_path: Path) -> Line:
    """Three candidates in a row, a rejected one, and a rollback of the last."""
    made = Line(database, tmp_path)
    made.release(0, "first")
    made.learn("w-1", parent="first", batch="b-1", state=CycleState.PROMOTED)
    made.release(1, "w-1")
    made.learn("w-bad", parent="w-1", batch="b-bad", state=CycleState.REJECTED)
    made.learn("w-2", parent="w-1", batch="b-2", state=CycleState.PROMOTED)
    made.release(2, "w-2")
    return made


def test_batch_is_in_every_release_that_descends_from_it(line: Line) -> None:
    assert line.carriers("b-1") == [("r-default-2", "serving"), ("r-default-1", "replaced")]
    assert line.carriers("b-2") == [("r-default-2", "serving")]
    (first, second) = line.of("b-1")["releases"]
    assert second["since"] == (MOMENT + timedelta(hours=1)).isoformat()
    assert first["since"] > second["since"]


def test_candidates_say_how_their_cycle_ended(line: Line) -> None:
    (made,) = line.of("b-bad")["candidates"]
    assert (made["weights"], made["state"]) == (digest("w-bad"), "rejected")
    assert made["candidate_id"].startswith("c-")
    assert line.carriers("b-bad") == []
    assert line.of("nobody") == {"candidates": [], "releases": []}


def test_rollback_takes_the_batch_out_of_what_serves(line: Line) -> None:
    assert line.carriers("b-2") == [("r-default-2", "serving")]
    line.release(3, "w-1", rollback_of=2)
    assert line.carriers("b-2") == [("r-default-2", "rolled_back")]
    assert line.carriers("b-1")[0] == ("r-default-3", "serving")


def test_candidate_that_waits_is_told_of_once_it_is_released(line: Line) -> None:
    line.learn("w-3", parent="w-2", batch="b-3", state=CycleState.AWAITING_DECISION)
    assert line.of("b-3")["candidates"][0]["state"] == "awaiting_decision"
    assert line.carriers("b-3") == []
    line.release(3, "w-3")
    assert line.carriers("b-3") == [("r-default-3", "serving")]
    assert line.carriers("b-1")[0] == ("r-default-3", "serving")


def test_a_long_line_costs_a_handful_of_queries(line: Line) -> None:
    for number in range(3, 60):
        line.learn(
            f"w-{number}",
            parent=f"w-{number - 1}",
            batch=f"b-{number}",
            state=CycleState.PROMOTED,
        )
        line.release(number, f"w-{number}")
    assert len(line.carriers("b-1")) == 59
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT"):
            statements.append(statement)

    sqlalchemy_event.listen(line.database.engine, "before_cursor_execute", note)
    assert len(line.carriers("b-30")) == 30
    # The batch's candidates, their cycle, the releases, and the two parents not walked to before.
    assert len(statements) == 5

"""Rows of serving replicas: those that were killed go away, and hold up no promotion for good."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from deploy.replicas import REPLICA_FORGOTTEN
from deploy.tables import ReplicaRow
from tacit.checkpoints import CheckpointStore
from tacit.contracts import utc_now
from tacit.database import Database
from tests.deploy.scenes import line

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("policy", ["default", "another"])
def test_a_replica_that_was_killed_is_shown_for_a_while_and_its_row_goes_with_the_next_release(
    database: Database, store: CheckpointStore, tmp_path: Path, policy: str
) -> None:
    made = line(database, store, tmp_path)
    made.first()
    silent_for = {
        "alive": timedelta(),
        "killed": REPLICA_FORGOTTEN - 60 * SECOND,
        "gone": REPLICA_FORGOTTEN + SECOND,
    }
    with database.session() as session:
        for name, silence in silent_for.items():
            seen_at = utc_now() - silence
            session.add(ReplicaRow(replica_id=name, policy=policy, seen_at=seen_at))
    assert [row.replica_id for row in made.desk.replicas(policy)] == ["alive", "killed"]
    made.promote(made.evidence(1))
    with database.reader() as session:
        kept = session.scalars(select(ReplicaRow.replica_id).order_by(ReplicaRow.replica_id))
        assert list(kept) == ["alive", "killed"]

"""What a cycle is for can be changed while it collects, and at no other time."""

import pytest

from tacit.cycles import CycleState, CycleStore, LostCycleError
from tacit.database import Database
from tacit.errors import ConflictError


def test_the_cycle_that_collects_gets_a_purpose(database: Database) -> None:
    cycles = CycleStore(database)
    opened = cycles.resume_or_open("default")
    with database.session() as session:
        cycles.designate(session, cycles.collecting(session, "default"), "consolidation")
    assert cycles.resume_or_open("default").cycle_id == opened.cycle_id
    assert cycles.get(opened.cycle_id).purpose == "consolidation"
    with database.session() as session:
        assert cycles.purpose(session, opened) == "consolidation" != opened.purpose


def test_between_cycles_the_next_one_gets_it(database: Database) -> None:
    cycles = CycleStore(database)
    opened = cycles.resume_or_open("default")
    with database.session() as session:
        cycles.move(session, opened, CycleState.FAILED)
    with database.reader() as session:
        assert cycles.collecting(session, "default").cycle_id == "default-2"
    assert cycles.latest("default").cycle_id == "default-1"
    with database.session() as session:
        cycles.designate(session, cycles.collecting(session, "default"), "consolidation")
    resumed = cycles.resume_or_open("default")
    assert (resumed.cycle_id, resumed.purpose) == ("default-2", "consolidation")


def test_a_cycle_with_a_batch_keeps_its_purpose(database: Database) -> None:
    cycles = CycleStore(database)
    opened = cycles.resume_or_open("default")
    with database.session() as session:
        stale = cycles.collecting(session, "default")
    with database.session() as session:
        cycles.move(session, opened, CycleState.TRAINING)
    with pytest.raises(ConflictError, match="which is training"), database.session() as session:
        cycles.collecting(session, "default")
    with pytest.raises(LostCycleError), database.session() as session:
        cycles.designate(session, stale, "consolidation")
    assert cycles.get(opened.cycle_id).purpose == "update"

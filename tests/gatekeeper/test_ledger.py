"""The ledger finds and names whatever was altered, taken out, moved or cut."""

import threading
from typing import Any

import pytest
from sqlalchemy import delete, event, select, update

from gatekeeper.ledger import Ledger, LedgerHead, verify_export
from gatekeeper.tables import LedgerRow
from tacit.database import Database
from tacit.errors import IntegrityError
from tacit.merkle import Frontier, leaf_hash, merkle_root
from tacit.signing import Signer
from tests.gatekeeper.builders import FakeClock, new_signer

SIZE = 11
SIGNER = new_signer()


def filled(db: Database, size: int = SIZE, signer: Signer = SIGNER) -> Ledger:
    ledger = Ledger(db, signer, clock=FakeClock())
    with db.session() as session:
        for i in range(size):
            ledger.append(session, "decision", f"d-{i}", {"number": i})
    return ledger


def export_of(db: Database) -> dict[str, Any]:
    return filled(db).export()


def problems_of(export: dict[str, Any]) -> list[str]:
    return verify_export(export, SIGNER).problems


@pytest.mark.parametrize("size", range(20))
def test_frontier_has_the_root_of_the_whole_tree(size: int) -> None:
    leaves = [leaf_hash(bytes([i])) for i in range(size)]
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    assert frontier.root == merkle_root(leaves)
    assert len(frontier.peaks) == size.bit_count()


def test_untouched_ledger_verifies_in_place_and_exported(database: Database) -> None:
    ledger = filled(database)
    check = ledger.verify()
    assert check.ok
    assert check.num_entries == SIZE
    assert verify_export(ledger.export(), SIGNER) == check
    assert [entry.body() for entry in ledger.entries(2)] == [{"number": 10}, {"number": 9}]


def test_empty_ledger_verifies(database: Database) -> None:
    ledger = Ledger(database, SIGNER)
    assert ledger.verify().ok
    assert verify_export(ledger.export(), SIGNER).ok
    assert ledger.head() is None


@pytest.mark.parametrize("sequence", range(SIZE))
@pytest.mark.parametrize(
    "change",
    [
        {"entry": '{"body":{"number":99}}'},
        {"subject": "d-99"},
        {"kind": "release"},
        {"leaf_hash": "0" * 64},
        {"root": "0" * 64},
        {"signature": "{}"},
        {"created_at": FakeClock().moment.replace(year=2020)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_row_altered_in_turn_is_named_and_only_it(
    sqlite_database: Database, sequence: int, change: dict[str, Any]
) -> None:
    ledger = filled(sqlite_database)
    with sqlite_database.session() as session:
        session.execute(update(LedgerRow).where(LedgerRow.sequence == sequence).values(**change))
    problems = ledger.verify().problems
    assert problems
    assert {problem.split(":")[0] for problem in problems} == {f"entry {sequence}"}


@pytest.mark.parametrize("sequence", range(SIZE))
def test_entry_altered_with_its_hash_is_named(sqlite_database: Database, sequence: int) -> None:
    export = export_of(sqlite_database)
    entry = export["entries"][sequence]
    entry["entry"] = entry["entry"].replace('"number":', '"amount":')
    entry["leaf_hash"] = leaf_hash(entry["entry"].encode()).hex()
    problems = problems_of(export)
    assert [problem.split(":")[0] for problem in problems] == [f"entry {sequence}"]


@pytest.mark.parametrize("sequence", range(SIZE - 1))
def test_removed_entry_is_named_in_place(sqlite_database: Database, sequence: int) -> None:
    ledger = filled(sqlite_database)
    with sqlite_database.session() as session:
        session.execute(delete(LedgerRow).where(LedgerRow.sequence == sequence))
    assert ledger.verify().problems == [f"entry {sequence} is missing"]


def test_cut_in_the_middle_is_named(database: Database) -> None:
    export = export_of(database)
    del export["entries"][3:7]
    export["num_entries"] = len(export["entries"])
    assert problems_of(export) == ["entries 3 to 6 are missing"]


def test_reordered_entries_are_named(database: Database) -> None:
    export = export_of(database)
    entries = export["entries"]
    entries[4], entries[6] = entries[6], entries[4]
    assert problems_of(export) == ["entry 5 is out of order", "entry 4 is out of order"]


def test_entries_that_trade_places_with_their_numbers_are_named(database: Database) -> None:
    export = export_of(database)
    entries = export["entries"]
    entries[4], entries[6] = entries[6] | {"sequence": 4}, entries[4] | {"sequence": 6}
    named = {problem.split(":")[0] for problem in problems_of(export)}
    assert named >= {"entry 4", "entry 6"}


def test_entry_put_in_twice_is_named(database: Database) -> None:
    export = export_of(database)
    export["entries"].insert(3, export["entries"][2])
    assert "entry 2 is there twice" in problems_of(export)


def test_cut_at_the_end_is_found_with_a_head_noted_earlier(database: Database) -> None:
    ledger = filled(database)
    noted = ledger.head()
    assert noted is not None
    with database.session() as session:
        session.execute(delete(LedgerRow).where(LedgerRow.sequence >= 9))
    assert ledger.verify(known=[noted]).problems == [
        "entries 9 to 10 are missing: the end was cut off"
    ]


def test_rewritten_history_is_found_with_a_head_noted_earlier(database: Database) -> None:
    ledger = filled(database)
    assert not ledger.verify(known=[LedgerHead(5, "0" * 64)]).ok


def test_header_that_claims_more_entries_is_a_problem(database: Database) -> None:
    export = export_of(database)
    del export["entries"][-1]
    assert any("expected 11 entries" in problem for problem in problems_of(export))


def test_export_signed_by_another_key_does_not_verify(database: Database) -> None:
    export = export_of(database)
    check = verify_export(export, new_signer())
    assert len(check.problems) == SIZE


@pytest.mark.parametrize(
    "export", [{}, {"format": "tacit-ledger/1"}, {"format": "x", "entries": []}]
)
def test_what_is_no_export_is_refused(export: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        verify_export(export, SIGNER)


def test_nothing_is_built_on_a_broken_log(database: Database) -> None:
    ledger = filled(database, size=3)
    with database.session() as session:
        session.execute(update(LedgerRow).where(LedgerRow.sequence == 2).values(root="0" * 64))
    with pytest.raises(IntegrityError, match="last ledger entry"), database.session() as session:
        ledger.append(session, "decision", "d-x", {})
    assert len(ledger.entries()) == 3


def test_concurrent_appenders_serialise(database: Database) -> None:
    ledgers = [Ledger(database, SIGNER) for _ in range(8)]
    barrier = threading.Barrier(len(ledgers))

    def append_some(ledger: Ledger, number: int) -> None:
        barrier.wait()
        for i in range(4):
            with database.session() as session:
                ledger.append(session, "k", f"{number}-{i}", {})

    threads = [
        threading.Thread(target=append_some, args=(ledger, n)) for n, ledger in enumerate(ledgers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check = ledgers[0].verify()
    assert check.ok
    assert check.num_entries == 32


def test_rolled_back_entry_leaves_no_trace(database: Database) -> None:
    ledger = filled(database, size=2)
    with database.session() as session:
        ledger.append(session, "k", "s", {})
        session.rollback()
    assert ledger.verify().num_entries == 2
    with database.session() as session:
        ledger.append(session, "k", "s", {})
    assert ledger.verify().ok


def test_append_reads_one_row_however_long_the_log(sqlite_database: Database) -> None:
    ledger = filled(sqlite_database, size=40)
    loaded: list[object] = []

    def note(target: object, _context: object) -> None:
        loaded.append(target)

    event.listen(LedgerRow, "load", note)
    try:
        with sqlite_database.session() as session:
            ledger.append(session, "k", "s", {})
    finally:
        event.remove(LedgerRow, "load", note)
    assert len(loaded) == 1


def test_clock_set_back_does_not_date_an_entry_before_the_last(database: Database) -> None:
    clock = FakeClock()
    ledger = Ledger(database, SIGNER, clock=clock)
    with database.session() as session:
        ledger.append(session, "k", "first", {})
    clock.advance(-3600)
    with database.session() as session:
        ledger.append(session, "k", "second", {})
        moments = session.scalars(select(LedgerRow.created_at).order_by(LedgerRow.sequence)).all()
    assert moments[0] == moments[1]
    assert ledger.verify().ok

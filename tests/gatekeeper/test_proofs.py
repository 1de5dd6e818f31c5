"""Proofs check with the public key alone, for every leaf of every size, and nothing else does."""

import json

import pytest
from sqlalchemy import event, update

from gatekeeper.ledger import Ledger
from gatekeeper.ledger_reader import LedgerReader
from gatekeeper.proofs import check_consistency, check_inclusion, read_proof
from gatekeeper.tables import LedgerRow
from tacit.database import Database
from tacit.errors import IntegrityError
from tacit.merkle import (
    Frontier,
    consistency_path,
    inclusion_path,
    leaf_hash,
    merkle_root,
    root_of_path,
    roots_of_consistency,
)
from tests.gatekeeper.builders import FakeClock, new_signer

SIGNER = new_signer()
LEAVES = [leaf_hash(bytes([i])) for i in range(20)]


def filled(db: Database, size: int) -> Ledger:
    ledger = Ledger(db, SIGNER, clock=FakeClock())
    with db.session() as session:
        for i in range(size):
            ledger.append(session, "decision", f"d-{i}", {"number": i})
    return ledger


def subtree(start: int, size: int) -> bytes:
    assert start % size == 0
    return merkle_root(LEAVES[start : start + size])


@pytest.mark.parametrize("size", range(1, 20))
def test_every_path_leads_to_the_root_and_one_bit_less_does_not(size: int) -> None:
    root = merkle_root(LEAVES[:size])
    for index in range(size):
        path = inclusion_path(index, size, subtree)
        assert root_of_path(LEAVES[index], index, size, path) == root
        for other in range(size):
            if other != index:
                assert leads_elsewhere(LEAVES[index], other, size, path, root)
        with pytest.raises(IntegrityError):
            root_of_path(LEAVES[index], index, size, [*path, root])
        if path:
            with pytest.raises(IntegrityError):
                root_of_path(LEAVES[index], index, size, path[:-1])


def leads_elsewhere(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    try:
        return root_of_path(leaf, index, size, path) != root
    except IntegrityError:
        return True


@pytest.mark.parametrize("second", range(1, 20))
def test_every_growth_is_proved_and_another_beginning_is_not(second: int) -> None:
    new = merkle_root(LEAVES[:second])
    for first in range(1, second + 1):
        old = merkle_root(LEAVES[:first])
        path = consistency_path(first, second, subtree)
        assert roots_of_consistency(first, second, old, path) == (old, new)
        if first < second:
            other = merkle_root([*LEAVES[: first - 1], leaf_hash(b"other")])
            assert roots_of_consistency(first, second, other, path) != (other, new)


def test_sample_of_rfc_9162_section_2_1_5() -> None:
    # Seven leaves: the RFC lists these shapes of paths.
    assert [len(inclusion_path(i, 7, subtree)) for i in (0, 3, 4, 6)] == [3, 3, 3, 2]
    assert [len(consistency_path(i, 7, subtree)) for i in (3, 4, 6)] == [4, 1, 3]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 13, 16])
def test_ledger_proves_each_entry_and_each_growth(sqlite_database: Database, size: int) -> None:
    ledger = filled(sqlite_database, size)
    reader = LedgerReader(sqlite_database, SIGNER)
    for sequence in range(size):
        proof = reader.prove(sequence)
        head = check_inclusion(proof, SIGNER)
        assert (head.sequence, head.root) == ledger.head()
        assert json.loads(proof.entry)["body"] == {"number": sequence}
        growth = reader.prove_growth(sequence + 1)
        old, new = check_consistency(growth, SIGNER)
        assert (old.sequence, new.sequence) == (sequence, size - 1)
        assert read_proof(json.loads(growth.model_dump_json())) == growth
        assert read_proof(json.loads(proof.model_dump_json())) == proof


def test_older_tree_can_be_proved_too(database: Database) -> None:
    ledger = filled(database, 11)
    assert check_inclusion(ledger.prove(2, size=5), SIGNER).sequence == 4
    assert check_consistency(ledger.prove_growth(3, 6), SIGNER)[1].sequence == 5


@pytest.mark.parametrize(("sequence", "size"), [(11, None), (-1, None), (3, 3), (0, 12)])
def test_what_is_not_there_cannot_be_proved(
    database: Database, sequence: int, size: int | None
) -> None:
    with pytest.raises(IntegrityError):
        filled(database, 11).prove(sequence, size=size)


def test_altered_proof_and_proof_by_another_key_are_refused(sqlite_database: Database) -> None:
    proof = filled(sqlite_database, 11).prove(4)
    other = leaf_hash(b"other").hex()
    for change in (
        {"entry": proof.entry.replace('"number":4', '"number":5')},
        {"sequence": 5},
        {"path": (other, *proof.path[1:])},
        {"path": proof.path[1:]},
        {"path": ("zz",)},
        {"head": filled_elsewhere().signed_head()},
    ):
        with pytest.raises(IntegrityError):
            check_inclusion(proof.model_copy(update=change), SIGNER)
    with pytest.raises(IntegrityError):
        check_inclusion(proof, new_signer())


def filled_elsewhere() -> Ledger:
    db = Database("sqlite:///:memory:")
    LedgerRow.__table__.create(db.engine)  # type: ignore[attr-defined]
    return filled(db, 11 - 1)


def test_growth_over_an_altered_beginning_is_refused(sqlite_database: Database) -> None:
    ledger = filled(sqlite_database, 11)
    growth = ledger.prove_growth(5)
    forged = growth.model_copy(update={"first": ledger.entries(4)[0].signature})
    with pytest.raises(IntegrityError):
        check_consistency(forged, SIGNER)


def test_no_proof_is_given_over_an_altered_entry(sqlite_database: Database) -> None:
    ledger = filled(sqlite_database, 11)
    with sqlite_database.session() as session:
        changed = update(LedgerRow).where(LedgerRow.sequence == 4).values(entry='{"body":{}}')
        session.execute(changed)
    with pytest.raises(IntegrityError):
        ledger.prove(4)


def test_proof_reads_few_entries_however_long_the_log(sqlite_database: Database) -> None:
    ledger = filled(sqlite_database, 200)
    loaded: list[object] = []

    def note(target: object, _context: object) -> None:
        loaded.append(target)

    event.listen(LedgerRow, "load", note)
    try:
        ledger.prove(77)
    finally:
        event.remove(LedgerRow, "load", note)
    assert len(loaded) <= 2 * Frontier(200).size.bit_length() + 2


def test_entries_are_found_by_what_they_are_about(database: Database) -> None:
    ledger = filled(database, 5)
    assert [entry.sequence for entry in ledger.find("d-3")] == [3]
    assert ledger.find("d-99") == ledger.find("\x00") == []
    assert LedgerReader(database, SIGNER).signed_head() == ledger.entries(1)[0].signature

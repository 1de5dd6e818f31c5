"""Receipts: the same promises in a file of their own and in PostgreSQL."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.ingest import feedback_topic
from collector.receipts import ReceiptBook, open_receipts
from collector.receipts.base import key_hash
from tacit.config import load_settings
from tacit.contracts import Outcome
from tacit.database import Database
from tacit.errors import UnavailableError
from tests.builders import event
from tests.collector.conftest import MakeRoom, Room


@pytest.fixture
def book(database: Database, tmp_path: Path) -> Iterator[ReceiptBook]:
    opened = open_receipts(load_settings(home=tmp_path), database)
    yield opened
    opened.close()


def write(book: ReceiptBook, body_hashes: dict[str, str]) -> bool:
    return book.write_new(body_hashes, lambda: None)


def test_first_body_stands(book: ReceiptBook) -> None:
    assert book.lookup(["shop/e-1"]) == {}
    assert write(book, {"shop/e-1": "a" * 32, "shop/e-2": "b" * 32})
    assert not write(book, {"shop/e-2": "c" * 32, "shop/e-3": "c" * 32})
    assert write(book, {"shop/e-3": "c" * 32})
    assert book.lookup(["shop/e-2", "shop/none", "shop/e-3"]) == {
        "shop/e-2": "b" * 32,
        "shop/e-3": "c" * 32,
    }
    assert book.lookup([]) == {}


def test_receipts_of_new_events_stand_only_if_all_are_new_and_were_appended(
    book: ReceiptBook,
) -> None:
    appended: list[str] = []
    assert book.write_new({"shop/e-1": "a" * 32}, lambda: appended.append("first"))
    both = {"shop/e-1": "a" * 32, "shop/e-2": "b" * 32}
    assert not book.write_new(both, lambda: appended.append("second"))
    assert appended == ["first"]

    def refuse() -> None:
        assert book.lookup(["shop/e-2", "shop/e-3"]) == {}  # asking does not wait for the append
        raise UnavailableError("a stream that answers")

    with pytest.raises(UnavailableError, match="stream"):
        book.write_new({"shop/e-2": "b" * 32, "shop/e-3": "b" * 32}, refuse)
    assert book.lookup(["shop/e-1", "shop/e-2", "shop/e-3"]) == {"shop/e-1": "a" * 32}
    assert book.write_new({"shop/e-2": "b" * 32}, lambda: None)


def test_screened_event_is_known_without_a_receipt(room: Room) -> None:
    room.screen(event("e-1"))
    book = room.ingestor.receipts
    known = book.lookup(["helpdesk/e-1"])
    assert book.prune(before_s=int(time.time()) + 10) == 1
    assert book.lookup(["helpdesk/e-1"]) == known != {}
    assert not book.write_new(known, lambda: pytest.fail("it was appended again"))
    assert room.ingestor.accept([event("e-1")])[0].status == "duplicate"


def test_only_old_receipts_are_pruned(book: ReceiptBook) -> None:
    write(book, {"shop/e-1": "a" * 32})
    assert book.prune(before_s=int(time.time()) - 10) == 0
    assert book.lookup(["shop/e-1"])


def test_locked_file_is_unavailable(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collector.receipts.sqlite._LOCK_TIMEOUT_S", 0.05)
    book = open_receipts(load_settings(home=tmp_path), sqlite_database)
    rival = sqlite3.connect(tmp_path / "receipts.db", isolation_level=None)
    rival.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match=r"receipts\.db.*locked"):
        write(book, {"shop/e-1": "a" * 32})
    rival.execute("ROLLBACK")
    rival.close()
    assert write(book, {"shop/e-1": "a" * 32})
    book.close()


def test_key_hash_is_the_same_for_ever() -> None:
    assert key_hash("shop/e-1") == "87b3d9ddd222613044fad2a23d8c63d5"


def test_dead_letter_is_no_answer(make: MakeRoom) -> None:
    """A metric that was not declared then is declared now, and the product sends again."""
    before, after = make(metrics={}), make(metrics={"resolved": "bool"})
    sent = event("e-1", feedback=Outcome(metric="resolved", value=True))
    topic = feedback_topic(before.settings)
    before.stream.append(topic, [("u", sent.model_dump_json().encode())])
    before.consumer.drain()
    assert before.became("e-1") == ("dead_letter", "inadmissible")
    assert after.ingestor.accept([sent])[0].status == "queued"
    after.consumer.drain()
    assert after.became("e-1")[0] == "accepted"

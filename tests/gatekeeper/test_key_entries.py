"""A key that decides counts as the ledger has it, whatever was written into the table of keys."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from gatekeeper.key_entries import KeyEntries
from gatekeeper.ledger import Ledger
from gatekeeper.tables import LedgerRow
from tacit.database import Database
from tacit.errors import NotAuthenticatedError
from tacit.key_text import KeyText, secret_hash
from tacit.keys import ApiKeyRow, KeyStore, Scope
from tests.gatekeeper.builders import FakeClock, new_signer

REVIEW = {Scope.READ, Scope.REVIEW}


class Ring:
    """Keys, their ledger, and a clock for both."""

    def __init__(self, database: Database) -> None:
        self.database, self.clock = database, FakeClock()
        self.ledger = Ledger(database, new_signer(), clock=self.clock)
        entries = KeyEntries(database, self.ledger, clock=self.clock)
        self.keys = KeyStore(
            database, journal=self.ledger.append, vouch=entries.require, clock=self.clock
        )

    def write(self, held: str, **values: Any) -> None:
        """What somebody does who can write to the table."""
        with self.database.session() as session:
            session.execute(update(ApiKeyRow).where(ApiKeyRow.name == held).values(**values))

    def refuses(self, text: str) -> bool:
        key_id = text.split(".")[1]
        for ask in (lambda: self.keys.authenticate(text), lambda: self.keys.holder(key_id)):
            with pytest.raises(NotAuthenticatedError):
                ask()
        return True


@pytest.fixture
def ring(database: Database) -> Ring:
    return Ring(database)


def test_keys_that_were_made_and_rotated_decide(ring: Ring) -> None:
    first = ring.keys.create("ada", scopes=REVIEW)
    second = ring.keys.rotate("ada", grace_s=60)
    third = ring.keys.rotate("ada", grace_s=30)
    for text in (first, second, third):
        assert ring.keys.authenticate(text).name == "ada"
    ring.clock.advance(31)
    assert ring.refuses(first)
    assert ring.refuses(second)
    assert ring.keys.authenticate(third).scopes == REVIEW
    ring.keys.revoke("ada")
    assert ring.refuses(third)
    again = ring.keys.create("ada", scopes=REVIEW)
    assert ring.keys.authenticate(again).name == "ada"


def test_a_row_that_nobody_made_decides_nothing(ring: Ring) -> None:
    ring.keys.create("ada", scopes=REVIEW)
    for name in ("eve", "ada (rotated 00)"):
        text = KeyText.new()
        with ring.database.session() as session:
            session.add(
                ApiKeyRow(
                    key_id=text.key_id,
                    name=name,
                    secret_hash=secret_hash(text.secret),
                    scopes="admin",
                    kind="bearer",
                    created_at=ring.clock(),
                )
            )
        assert ring.refuses(str(text))


@pytest.mark.parametrize(
    "written", [{"scopes": "admin"}, {"policy": None}, {"source": None}], ids=str
)
def test_a_key_decides_no_more_than_it_was_made_for(ring: Ring, written: dict[str, Any]) -> None:
    text = ring.keys.create("ada", scopes=REVIEW, source="shop", policy="default")
    assert ring.keys.authenticate(text).source == "shop"
    ring.write("ada", **written)
    assert ring.refuses(text)


def test_another_secret_does_not_open_it(ring: Ring) -> None:
    text = KeyText.parse(ring.keys.create("ada", scopes=REVIEW))
    assert text is not None
    mine = KeyText.new().secret
    ring.write("ada", secret_hash=secret_hash(mine))
    assert ring.refuses(str(text._replace(secret=mine)))


def test_what_ended_stays_ended(ring: Ring) -> None:
    revoked = ring.keys.create("ada", scopes=REVIEW)
    old_name = f"ada (revoked {revoked.split('.')[1]})"
    ring.keys.revoke("ada")
    ring.write(old_name, revoked_at=None, name="ada")
    assert ring.refuses(revoked)
    expired = ring.keys.create("bob", scopes=REVIEW, expires_at=ring.clock() + timedelta(hours=1))
    replaced = ring.keys.create("cy", scopes=REVIEW)
    ring.keys.rotate("cy", grace_s=60)
    ring.clock.advance(7_200)
    ring.write("bob", expires_at=None)
    ring.write(f"cy (rotated {replaced.split('.')[1]})", expires_at=None)
    assert ring.refuses(expired)
    assert ring.refuses(replaced)


def test_damage_elsewhere_in_the_ledger_locks_nobody_out(ring: Ring) -> None:
    with ring.database.session() as session:
        for number in range(4):
            ring.ledger.append(session, "note", f"n-{number}", {})
    text = ring.keys.create("ada", scopes=REVIEW)
    with ring.database.session() as session:
        for number in range(4):
            ring.ledger.append(session, "note", f"m-{number}", {})
        forged = update(LedgerRow).where(LedgerRow.kind == "note").values(entry="{}")
        session.execute(forged)
    assert ring.keys.authenticate(text).name == "ada"
    assert not ring.ledger.verify().ok


def test_products_are_not_held_up(ring: Ring) -> None:
    text = KeyStore(ring.database, clock=ring.clock).create("shop", scopes={Scope.SEND})
    assert ring.keys.authenticate(text).name == "shop"

"""Keys: what is a way in and what never is, rotation, ends, and the secrets of webhooks."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from gatekeeper.ledger import Ledger
from tacit.database import Database
from tacit.errors import (
    ConfigError,
    ConflictError,
    InvalidInputError,
    NotAuthenticatedError,
    NotFoundError,
    TacitError,
    UnavailableError,
)
from tacit.keys import ApiKeyRow, KeyStore, Principal, Scope
from tacit.secrets_file import MasterSecret
from tacit.signing import Signer
from tests.builders import MOMENT

SEND = {Scope.SEND}


class FakeClock:
    """Stands still until told to move."""

    def __init__(self) -> None:
        self.now = MOMENT

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def keys(database: Database, clock: FakeClock) -> KeyStore:
    """On SQLite and on PostgreSQL."""
    return KeyStore(database, master=MasterSecret("m" * 43), clock=clock)


def refused(keys: KeyStore, key: str | None) -> str:
    """What the refusal of ``key`` says was got."""
    with pytest.raises(NotAuthenticatedError) as caught:
        keys.authenticate(key)
    return caught.value.got


def test_principal_carries_what_the_key_is_bound_to(keys: KeyStore) -> None:
    key = keys.create("shop", scopes=SEND, source="shop", policy="default", rate_limit_per_s=2.5)
    principal = keys.authenticate(key)
    assert principal == Principal(
        key_id=key.split(".")[1],
        name="shop",
        scopes=frozenset({Scope.SEND}),
        source="shop",
        policy="default",
        rate_limit_per_s=2.5,
    )
    assert keys.holder(principal.key_id) == principal


def test_what_is_not_exactly_a_key_is_refused(keys: KeyStore) -> None:
    key = keys.create("shop", scopes=SEND)
    _, key_id, secret = key.split(".")
    other = "A" if secret[-1] != "A" else "B"
    nearly = [
        secret, key_id, f"tacit.{key_id}", f"tacit.{key_id}.", f"tacit..{secret}", f".{key_id}.",
        key + "x", key + "\n", " " + key, key.upper(), key[:-1], key[:-1] + other, f"x{key}",
        f"tacit.{'0' * 12}.{secret}", key.replace("tacit", "tаcit"), key + "\x00", key + ".x",
        f"tacit.{key_id}.{'é' * 43}", f"tacit.{key_id}.{secret * 1000}", "x" * 1_000_000,
        f"tacit.{key_id}.{'0' * 64}",
    ]  # fmt: skip
    for text in nearly:
        assert refused(keys, text) == "an unknown key"
    for text in (None, "", " ", "\t\n", " "):
        assert refused(keys, text) == "no key"


def test_key_stops_at_its_end(keys: KeyStore, clock: FakeClock) -> None:
    key = keys.create("shop", scopes=SEND, expires_at=MOMENT + timedelta(seconds=60))
    clock.advance(59.9)
    principal = keys.authenticate(key)
    clock.advance(0.1)
    assert "shop, which expired" in refused(keys, key)
    with pytest.raises(NotAuthenticatedError, match="expired"):
        keys.holder(principal.key_id)
    assert keys.in_force() == []


def test_name_of_an_expired_key_is_free(keys: KeyStore, clock: FakeClock) -> None:
    old = keys.create("shop", scopes=SEND, expires_at=MOMENT + timedelta(seconds=60))
    with pytest.raises(ConflictError, match="a new key name; got shop"):
        keys.create("shop", scopes=SEND)
    clock.advance(60)
    new = keys.create("shop", scopes={Scope.READ})
    assert keys.authenticate(new).scopes == {Scope.READ}
    assert "expired" in refused(keys, old)


def test_rotation_keeps_bindings_and_gives_the_old_secret_its_grace(
    keys: KeyStore, clock: FakeClock
) -> None:
    old = keys.create("shop", scopes=SEND, source="shop", policy="default", rate_limit_per_s=3)
    before = keys.authenticate(old)
    new = keys.rotate("shop", grace_s=60)
    after = keys.authenticate(new)
    assert new != old
    for name in ("name", "scopes", "source", "policy", "rate_limit_per_s"):
        assert getattr(after, name) == getattr(before, name)
    clock.advance(59)
    assert keys.authenticate(old).name == "shop"
    clock.advance(1)
    assert "expired" in refused(keys, old)
    assert keys.authenticate(new) == after


def test_rotation_without_grace_ends_every_older_secret(keys: KeyStore) -> None:
    first = keys.create("shop", scopes=SEND)
    second = keys.rotate("shop", grace_s=3600)
    third = keys.rotate("shop", grace_s=0)
    assert {refused(keys, first), refused(keys, second)} == {"shop, which was revoked"}
    assert keys.authenticate(third).name == "shop"


def test_no_older_secret_outlives_the_last_grace(keys: KeyStore, clock: FakeClock) -> None:
    first = keys.create("shop", scopes=SEND)
    second = keys.rotate("shop", grace_s=3600)
    keys.rotate("shop", grace_s=60)
    clock.advance(60)
    assert "expired" in refused(keys, first)
    assert "expired" in refused(keys, second)


def test_rotated_key_lives_as_long_again_and_no_grace_prolongs_the_old(
    keys: KeyStore, clock: FakeClock
) -> None:
    old = keys.create("shop", scopes=SEND, expires_at=MOMENT + timedelta(seconds=100))
    clock.advance(90)
    new = keys.rotate("shop", grace_s=3600)
    clock.advance(10)
    assert "expired" in refused(keys, old)
    clock.advance(89)
    keys.authenticate(new)
    clock.advance(1)
    assert "expired" in refused(keys, new)


def test_revoking_takes_the_rotated_secrets_along(keys: KeyStore) -> None:
    old = keys.create("shop", scopes=SEND)
    bystander = keys.create("shop 2", scopes=SEND)
    new = keys.rotate("shop", grace_s=3600)
    keys.revoke("shop")
    assert refused(keys, old) == refused(keys, new) == "shop, which was revoked"
    keys.authenticate(bystander)
    keys.create("shop", scopes=SEND)


def test_one_rotated_secret_can_be_revoked_alone(keys: KeyStore) -> None:
    old = keys.create("shop", scopes=SEND)
    new = keys.rotate("shop", grace_s=3600)
    keys.revoke(f"shop (rotated {old.split('.')[1]})")
    assert "revoked" in refused(keys, old)
    keys.authenticate(new)


@pytest.mark.parametrize("name", ["shop", "%", "_", "a%b_c"])
def test_names_that_are_patterns_touch_no_other_key(keys: KeyStore, name: str) -> None:
    other = keys.create("aXbYc", scopes=SEND)
    keys.rotate("aXbYc", grace_s=60)
    keys.create(name, scopes=SEND)
    keys.revoke(name)
    keys.authenticate(other)


def test_nothing_in_force_under_a_name_is_not_found(keys: KeyStore) -> None:
    for change in (keys.revoke, lambda name: keys.rotate(name, grace_s=0)):
        with pytest.raises(NotFoundError, match="nobody"):
            change("nobody")


def _rotate_with_grace(grace_s: float) -> Callable[[KeyStore], str]:
    return lambda keys: keys.rotate("x", grace_s=grace_s)


def _create(name: str = "x", **fields: Any) -> Callable[[KeyStore], str]:
    return lambda keys: keys.create(name, **{"scopes": SEND, **fields})


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (_create(""), "name"),
        (_create(" shop"), "name"),
        (_create("shop (rotated 1)"), "name"),
        (_create("a\nb"), "name"),
        (_create("x" * 97), "name"),
        (_create(source="Not A Name"), "source"),
        (_create(policy=""), "policy"),
        (_create(rate_limit_per_s=0), "rate limit"),
        (_create(rate_limit_per_s=-1), "rate limit"),
        (_create(rate_limit_per_s=float("nan")), "rate limit"),
        (_create(rate_limit_per_s=float("inf")), "rate limit"),
        (_create(expires_at=MOMENT), "future"),
        (_create(expires_at=datetime(2030, 1, 1)), "time zone"),
        (_create(kind="webhook"), "source"),
        (_create(kind="webhook", source="crm", scopes={Scope.ADMIN}), "scope send"),
        (_rotate_with_grace(-1), "grace"),
        (_rotate_with_grace(float("nan")), "grace"),
        (lambda keys: keys.create("Gate", scopes={Scope.REVIEW}), "Tacit's own"),
        (lambda keys: keys.create("tacit up", scopes={Scope.REVIEW}), "Tacit's own"),
    ],
)
def test_key_that_could_never_be_used_is_not_made(
    keys: KeyStore, make: Callable[[KeyStore], str], named: str
) -> None:
    with pytest.raises(InvalidInputError, match=named):
        make(keys)
    assert keys.in_force() == []


def test_rivals_for_one_name_get_one_key(keys: KeyStore) -> None:
    made: list[str] = []
    errors: list[TacitError] = []

    def rival() -> None:
        try:
            made.append(keys.create("shop", scopes=SEND))
        except TacitError as error:
            errors.append(error)

    threads = [threading.Thread(target=rival) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), {type(error) for error in errors}) == (1, {ConflictError})
    assert keys.authenticate(made[0]).name == "shop"


def test_webhook_secret_is_no_key_and_the_database_does_not_hold_it(
    keys: KeyStore, database: Database
) -> None:
    secret = keys.create("crm", scopes=SEND, source="crm", kind="webhook")
    (info,) = keys.in_force()
    assert secret.startswith("whsec_")
    assert info.path == f"/v1/webhooks/{info.key_id.split('-')[0]}"
    for text in (secret, f"tacit.{info.key_id}.{secret}", f"tacit.{info.key_id[:12]}.{secret[6:]}"):
        assert refused(keys, text) == "an unknown key"
    with pytest.raises(NotAuthenticatedError):
        keys.holder(info.key_id)
    with database.engine.connect() as connection:
        stored = str(connection.exec_driver_sql("SELECT * FROM api_keys").all())
    assert secret not in stored
    assert secret.removeprefix("whsec_") not in stored


def test_key_of_kind_webhook_never_opens_by_itself(keys: KeyStore, database: Database) -> None:
    key = keys.create("shop", scopes=SEND, source="shop")
    keys.authenticate(key)
    with database.session() as session:
        session.execute(update(ApiKeyRow).values(kind="webhook"))
    assert refused(keys, key) == "an unknown key"


def test_rotated_webhook_keeps_its_path_and_both_secrets_for_the_grace(
    keys: KeyStore, clock: FakeClock
) -> None:
    old = keys.create("crm", scopes=SEND, source="crm", kind="webhook")
    (info,) = keys.in_force()
    endpoint = info.key_id.split("-")[0]
    clock.advance(1)
    new = keys.rotate("crm", grace_s=60)
    assert [key.secret for key in keys.webhook(endpoint)] == [new, old]
    assert {i.path for i in keys.in_force()} == {info.path}
    assert keys.webhook(endpoint)[0].principal.source == "crm"
    clock.advance(60)
    assert [key.secret for key in keys.webhook(endpoint)] == [new]
    keys.revoke("crm")
    with pytest.raises(NotAuthenticatedError):
        keys.webhook(endpoint)


@pytest.mark.parametrize("endpoint", ["", "%", "0" * 12, "0" * 12 + "-1", "é" * 12, "x" * 9_999])
def test_unknown_webhook_is_refused(keys: KeyStore, endpoint: str) -> None:
    keys.create("crm", scopes=SEND, source="crm", kind="webhook")
    with pytest.raises(NotAuthenticatedError):
        keys.webhook(endpoint)


def test_webhook_under_another_master_secret_is_a_clear_error(database: Database) -> None:
    mine = KeyStore(database, master=MasterSecret("a" * 43))
    mine.create("crm", scopes=SEND, source="crm", kind="webhook")
    endpoint = mine.in_force()[0].key_id.split("-")[0]
    other = KeyStore(database, master=MasterSecret("b" * 43))
    with pytest.raises(UnavailableError, match=r"master\.secret"):
        other.webhook(endpoint)
    with pytest.raises(ConfigError, match="master secret"):
        KeyStore(database).webhook(endpoint)
    mended = other.rotate("crm", grace_s=60)
    assert [key.secret for key in other.webhook(endpoint)] == [mended]


def test_changes_of_keys_are_entries_of_the_ledger_without_their_secrets(
    database: Database, tmp_path: Path
) -> None:
    ledger = Ledger(database, Signer.load_or_create(tmp_path))
    keys = KeyStore(database, journal=ledger.append)
    texts = [keys.create("shop", scopes={Scope.SEND}, source="shop")]
    texts.append(keys.rotate("shop", grace_s=60))
    keys.revoke("shop")
    entries = ledger.find("shop")
    assert [entry.kind for entry in entries] == ["key_created", "key_rotated", "key_revoked"]
    assert entries[0].body()["scopes"] == ["send"]
    assert all(entry.body()["by"] for entry in entries)
    said = "".join(entry.entry for entry in entries)
    assert not any(text.split(".")[-1] in said for text in texts)
    keys.create("ada", scopes={Scope.READ})
    with pytest.raises(ConflictError):
        keys.create("ada", scopes={Scope.READ})
    assert len(ledger.find("ada")) == 1
    assert ledger.verify().ok

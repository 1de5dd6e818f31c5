"""Redaction takes what it should, leaves the rest, and changes nothing the second time."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.redaction import redact_event, redact_interaction, redact_text
from tacit.contracts import Critique, Preference
from tests.builders import event, interaction, recorded, user
from tests.collector.conftest import Room

FOUND = [
    ("write to ada.lovelace+x@mail.example.org now", "write to [EMAIL] now"),
    ("jürgen@müller.de", "[EMAIL]"),
    ("call +44 20 7946 0958 today", "call [PHONE] today"),
    ("call 0049 (30) 901820-12", "call [PHONE]"),
    ("(555) 123-4567 or 555-123-4567", "[PHONE] or [PHONE]"),
    ("ring 030 9018 2012", "ring [PHONE]"),
    ("card 4111 1111 1111 1111.", "card [CARD]."),
    ("card 5500-0000-0000-0004", "card [CARD]"),
    ("pay to DE89 3704 0044 0532 0130 00 please", "pay to [IBAN] please"),
    ("GB82WEST12345698765432", "[IBAN]"),
    ("key sk-proj-abcdefghijklmnopqrstuvwx", "key [SECRET]"),
    ("AKIAIOSFODNN7EXAMPLE", "[SECRET]"),
    ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "[SECRET]"),
    ("Authorization: Bearer abcdef0123456789abcdef", "Authorization: Bearer [SECRET]"),
    ("password: hunter2hunter2", "password: [SECRET]"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "[SECRET]"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "[SECRET]"),
]

KEPT = [
    "where is order 4111 1111 1111 1112",
    "my order 20260102 of 2026-01-02 at 12:30",
    "tracking number 1234567890",
    "it costs 1,234.56 or 99.90 euros",
    "server 192.168.100.200 answers",
    "GB00WEST12345698765432",
    "the token was lost, the password too",
    "@team look at a @ b",
    "version 1.2.3-4567",
    "0000 0000 0000 0000",
]


@pytest.mark.parametrize(("text", "redacted"), FOUND)
def test_personal_data_and_secrets_become_placeholders(text: str, redacted: str) -> None:
    assert redact_text(text) == redacted


@pytest.mark.parametrize("text", KEPT)
def test_what_only_looks_alike_stays(text: str) -> None:
    assert redact_text(text) == text


@given(st.lists(st.sampled_from([t for t, _ in FOUND] + KEPT + [" ", "\n", "x", "[", "+"])))
@settings(max_examples=200, deadline=None)
def test_redacting_twice_changes_nothing(parts: list[str]) -> None:
    once = redact_text(" ".join(parts))
    assert redact_text(once) == once


HOSTILE = [
    "a@" * 30_000,
    "+1" * 30_000,
    "1 " * 30_000,
    "DE12 " * 13_000,
    "a.b" * 20_000,
    "-----BEGIN PRIVATE KEY-----" * 2_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:5])
def test_hostile_text_takes_no_time(text: str) -> None:
    started = time.perf_counter()
    redact_text(text)
    assert time.perf_counter() - started < 3.0


def test_every_place_a_person_writes_in_is_redacted() -> None:
    mail = "ada@example.org"
    sent = event(
        interaction=interaction(f"hi {mail}", f"bye {mail}"),
        feedback=Preference(chosen=f"a {mail}", rejected=f"b {mail}"),
        tags={"who": mail},
    )
    assert mail not in redact_event(sent).model_dump_json()
    assert mail not in redact_event(event(feedback=Critique(text=mail))).model_dump_json()


def test_token_ids_go_only_when_the_text_they_spell_changed() -> None:
    fields = {"completion_ids": (1, 2), "logprobs": (-0.1, -0.2)}
    clean = redact_interaction(recorded(completion="hello", prompt=user("a@b.org"), **fields))
    dirty = redact_interaction(recorded(completion="hello a@b.org", **fields))
    assert clean.completion_ids == (1, 2)
    assert (dirty.completion_ids, dirty.logprobs) == (None, None)


def test_nothing_personal_reaches_the_events_table(room: Room) -> None:
    room.screen(event(interaction=interaction("i am ada@example.org", "call +44 20 7946 0958")))
    with room.database.session() as session:
        (taken,) = room.store.take(session, "default", limit=9)
    row = room.store.find("helpdesk", "e-1")
    assert row is not None
    for text in (row.payload, row.interaction, taken.model_dump_json()):
        assert text is not None
        assert "[EMAIL]" in text
        assert "[PHONE]" in text
        assert "ada@" not in text
        assert "7946" not in text


def test_longest_text_stays_within_the_contract() -> None:
    text = ("a@b.co " * 9_363)[:65_536]
    assert len(redact_text(text)) <= 65_536

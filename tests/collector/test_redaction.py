"""Redaction takes what it should, leaves the rest, and changes nothing the second time."""

import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.redaction.personal_data import _recognizers
from collector.redaction.redact import _redact, redact_event, redact_interaction, redact_text
from tacit.contracts import Critique, Preference
from tests.builders import event, interaction, recorded, user
from tests.collector.conftest import Room
from tests.examples import num_examples

FOUND = [
    # E-mail addresses.
    ("write to ada.lovelace+x@mail.example.org now", "write to [EMAIL] now"),
    ("jürgen@müller.de", "[EMAIL]"),
    ("<bob_the-builder%99@sub.example.co.uk>, cc: eve@corp.internal", "<[EMAIL]>, cc: [EMAIL]"),
    ("mailto:a@b.io?subject=hi", "mailto:[EMAIL]?subject=hi"),
    ("ada@example.org.", "[EMAIL]."),
    # Telephone numbers.
    ("call +44 20 7946 0958 today", "call [PHONE] today"),
    ("call 0049 (30) 901820-12", "call [PHONE]"),
    ("(555) 123-4567 or 555-123-4567", "[PHONE] or [PHONE]"),
    ("ring 030 9018 2012", "ring [PHONE]"),
    ("reach me at +1-415-555-2671", "reach me at [PHONE]"),
    ("my number is +4915112345678", "my number is [PHONE]"),
    ("mobile: 415 555 2671", "mobile: [PHONE]"),
    ("tel 01 42 68 53 00", "tel [PHONE]"),
    ("whatsapp 07911 123456 please", "whatsapp [PHONE] please"),
    ("phone: 4155552671", "phone: [PHONE]"),
    # Cards.
    ("card 4111 1111 1111 1111.", "card [CARD]."),
    ("card 5500-0000-0000-0004", "card [CARD]"),
    ("amex 3782 822463 10005", "amex [CARD]"),
    ("6011111111111117 expires 12/29", "[CARD] expires 12/29"),
    ("unionpay 6212345678900000003", "unionpay [CARD]"),
    # Accounts.
    ("pay to DE89 3704 0044 0532 0130 00 please", "pay to [IBAN] please"),
    ("GB82WEST12345698765432", "[IBAN]"),
    ("gb82west12345698765432", "[IBAN]"),
    ("FR14 2004 1010 0505 0001 3M02 606", "[IBAN]"),
    ("ship to 1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "ship to [WALLET]"),
    ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", "[WALLET]"),
    ("eth 0x52908400098527886E0F7030069857D2E4169EE7", "eth [WALLET]"),
    ("my ssn is 536-22-8726", "my ssn is [SSN]"),
    ("social security number 536 22 8726", "social security number [SSN]"),
    # Addresses of machines.
    ("it came from 8.8.8.8 at noon", "it came from [IP] at noon"),
    ("from 2001:4860:4860::8888, twice", "from [IP], twice"),
    # Keys and tokens.
    ("key sk-proj-abcdefghijklmnopqrstuvwx", "key [SECRET]"),
    ("sk-ant-api03-AbCdEfGhIjKlMnOpQrStUvWx", "[SECRET]"),
    ("AKIAIOSFODNN7EXAMPLE", "[SECRET]"),
    ("aws_secret_key = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY'", "aws_secret_key = '[SECRET]'"),
    ("ghp_abcdefghijklmnopqrstuvwxyz0123456789", "[SECRET]"),
    ("github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuv", "[SECRET]"),
    ("glpat-abcDEF123456ghiJKL78", "[SECRET]"),
    ("hf_abcdefghijklmnopqrstuvwxyz", "[SECRET]"),
    ("AIzaSyA1234567890abcdefghijklmnopqrstuv", "[SECRET]"),
    ("xoxb-123456789012-abcdefABCDEF", "[SECRET]"),
    ("sk_live_4eC39HqLyjWDarjtT1zdp7dc", "[SECRET]"),
    ("SG.abcdefghijklmnopqrst1v.abcdefghijklmnopqrstuvwxyz0123456789abcdefg", "[SECRET]"),
    ("bot 123456789:AAabcdefghijklmnopqrstuvwxyz0123456", "bot [SECRET]"),
    ("AC0123456789abcdef0123456789abcdef", "[SECRET]"),
    ("AccountKey=" + "a1B2" * 22, "[SECRET]"),
    ("//registry.example/:_authToken=abc123def456", "//registry.example/:_authToken=[SECRET]"),
    ("postgres://app:hunter2@db.example/x", "postgres://app:[SECRET]@db.example/x"),
    ("Authorization: Bearer abcdef0123456789abcdef", "Authorization: Bearer [SECRET]"),
    ("password: hunter2hunter2", "password: [SECRET]"),
    ("DB_PASSWORD=s3cr3t!pass next", "DB_PASSWORD=[SECRET] next"),
    ("api_key: 'abc123def456'", "api_key: '[SECRET]'"),
    ('{"client_secret": "Zm9vYmFy1"}', '{"client_secret": "[SECRET]"}'),
    (
        "https://x.example/a?access_token=abc123def456",
        "https://x.example/a?access_token=[SECRET]",
    ),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmN", "[SECRET]"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "[SECRET]"),
    ("tacit.0123456789ab." + "aB3_" * 11, "[SECRET]"),
    # Several at once, and where they touch.
    ("ada@b.org/+44 20 7946 0958", "[EMAIL]/[PHONE]"),
    ("token=abc123 mail=ada@b.org", "token=[SECRET] mail=[EMAIL]"),
]

KEPT = [
    # Orders, tickets, parcels.
    "where is order 4111 1111 1111 1112",
    "my order 20260102 of 2026-01-02 at 12:30",
    "tracking number 1234567890",
    "parcel 1Z999AA10123456784 is late",
    "order 123-4567890-1234567",
    "ticket #482910, invoice INV-2026-000417",
    "booking ABC123, seat 14C, gate B22",
    "isbn 978-3-16-148410-0",
    "part no. 00-1234-567",
    "0000 0000 0000 0000",
    "1234567890123456",
    # Dates and times.
    "from 2026-01-02T03:04:05Z to 2026-12-31",
    "on 31/12/2025 and 12.05.2024",
    "at 12:30:45.123456",
    "2024-2025, 1999 to 2003",
    "unix time 1735689600 and 1735689600123",
    # Amounts and measures.
    "it costs 1,234.56 or 99.90 euros",
    "1.234.567,89 EUR and $12,345,678.90",
    "300 000 000 m/s, 6.02214076e23",
    "3.14159265358979",
    "pi is 3.141 592 653 589",
    "in steps of 100, 200, 300, 400, 500 and 600",
    # Versions and machines.
    "server 192.168.100.200 answers",
    "listen on 127.0.0.1:8000 or [::1]:8000 or 10.0.0.7",
    "version 1.2.3-4567",
    "version 4.18.2.1 and Chrome 120.0.6099.109",
    "torch==2.13.0, react@18.2.0, user@host",
    "mac 00:1a:2b:3c:4d:5e",
    # Code.
    "std::vector<int> a{1, 2, 3}; abc::def(9)",
    "for i in range(1000000, 2000000, 100000): pass",
    "token = os.environ",
    "def get_token(self, secret: SecretStr) -> None:",
    "git checkout 0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "id 550e8400-e29b-41d4-a716-446655440000",
    "assert x[0] == 0x7fffffff",
    "@app.get('/items/{item_id}')",
    "https://example.org/a/b?page=2&size=100#part-3",
    "s3://bucket/path/to/file-000123.parquet",
    # Prose.
    "the token was lost, the password too",
    "password: please reset it",
    "my secret: none at all",
    "@team look at a @ b",
    "GB00WEST12345698765432",
    "AT20 plus DE12 makes 32",
    "a keyboard, a monkey and a keyring",
    "floccinaucinihilipilification",
    "[EMAIL] and [PHONE], said [SECRET]",
]


@pytest.mark.parametrize(("text", "redacted"), FOUND)
def test_personal_data_and_secrets_become_placeholders(text: str, redacted: str) -> None:
    assert redact_text(text) == redacted


@pytest.mark.parametrize("text", KEPT)
def test_what_only_looks_alike_stays(text: str) -> None:
    assert redact_text(text) == text


PARTS = st.sampled_from([t for t, _ in FOUND] + [r for _, r in FOUND] + KEPT)
GLUE = st.sampled_from(["", " ", "\n", "x", "[", "]", "+", "@", ".", "=", ": ", "0", "password="])


@given(st.lists(PARTS | GLUE | st.text(max_size=8)))
@settings(max_examples=num_examples(150), derandomize=True)
def test_redacting_twice_changes_nothing(parts: list[str]) -> None:
    once = redact_text("".join(parts))
    assert redact_text(once) == once


HOSTILE = [
    "a@" * 30_000,
    "a@" + "b." * 30_000,
    "a" * 30_000 + "@" + "b" * 30_000,
    "+1" * 30_000,
    "1 " * 30_000,
    "1.1.1.1 " * 8_000,
    "2:" * 30_000,
    "DE12 " * 13_000,
    "bc1" * 20_000,
    "a.b" * 20_000,
    "eyJ" * 20_000,
    "eyJa.b" * 10_000,
    "sk-a" * 16_000,
    "xsk-" * 16_000,
    "://" * 20_000,
    "token=" * 10_000,
    "token: token: " * 4_000,
    "aws key '" * 7_000,
    "-----BEGIN PRIVATE KEY-----" * 2_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:8])
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


def test_redaction_asks_nobody_on_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: asked.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: asked.append(address))
    _recognizers.cache_clear()
    for text, redacted in FOUND:
        assert _redact(text) == redacted  # past the cache
    assert asked == []


def test_what_was_redacted_before_is_still_right_when_it_comes_from_the_cache() -> None:
    for _ in range(2):
        assert redact_text("ada@example.org 1") == "[EMAIL] 1"
        assert redact_text("ada at example 1") == "ada at example 1"


def test_screening_alone_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from collector.redaction.personal_data import load_recognizers\n"
        "from collector.redaction.redact import redact_text\n"
        "load_recognizers()\n"
        "assert redact_text('call +49 170 1234567') == 'call [PHONE]'\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "import torch\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

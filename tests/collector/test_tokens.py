"""Feedback tokens: what a page may send with one, what it never may, and from which origins."""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from fastapi.testclient import TestClient

from collector.api.tokens import ALGORITHM, AUDIENCE, ISSUER, PURPOSE, FeedbackTokens, Grant, Token
from tacit.config import load_settings
from tacit.contracts import Correction
from tacit.control import create_control
from tacit.database import Database
from tacit.errors import NotAuthenticatedError
from tacit.keys import KeyStore
from tacit.principal import Scope
from tacit.secrets_file import MasterSecret
from tests.builders import MOMENT, event, interaction

MASTER = MasterSecret("m" * 43)
ORIGIN = "https://shop.example"
THUMB = {"type": "rating", "value": 1, "scale": {"low": 0, "high": 1}}


class Clock:
    """Stands still until told to move."""

    def __init__(self) -> None:
        self.now = MOMENT

    def __call__(self) -> datetime:
        return self.now


class Issuer:
    """Tokens of one key, under a clock."""

    def __init__(self, database: Database) -> None:
        self.clock = Clock()
        self.keys = KeyStore(database, clock=self.clock)
        key = self.keys.create("shop", scopes={Scope.SEND}, source="shop", rate_limit_per_s=4)
        self.key_id = key.split(".")[1]
        self.tokens = FeedbackTokens(MASTER, self.keys, clock=self.clock)

    def issue(self, *, ttl_s: float = 60.0, **fields: Any) -> Token:
        values: dict[str, Any] = {
            "key_id": self.key_id, "source": "shop", "policy": "default",
            "interaction_id": "i-1", "subject_id": "u-1",
        }  # fmt: skip
        return self.tokens.issue(Grant(**{**values, **fields}), ttl_s=ttl_s)

    def refused(self, text: str) -> str:
        with pytest.raises(NotAuthenticatedError) as caught:
            self.tokens.verify(text)
        return caught.value.got

    def forged(self, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token signed with the right secret that says something else."""
        good = jwt.decode(self.issue().text, options={"verify_signature": False})
        kid = jwt.get_unverified_header(self.issue().text)["kid"]
        payload = {k: v for k, v in {**good, **claims}.items() if v is not None}
        secret = MASTER.derive(PURPOSE)
        return jwt.encode(payload, secret, ALGORITHM, headers={"kid": kid, **(header or {})})


@pytest.fixture
def issuer(database: Database) -> Issuer:
    """On SQLite and on PostgreSQL."""
    return Issuer(database)


def test_token_stands_for_one_interaction_and_subject_of_its_key(issuer: Issuer) -> None:
    principal = issuer.tokens.verify(issuer.issue(kinds=("rating",)).text)
    assert (principal.key_id, principal.rate_limit_per_s) == (issuer.key_id, 4)
    assert (principal.source, principal.policy) == ("shop", "default")
    assert (principal.interaction_id, principal.subject_id) == ("i-1", "u-1")
    assert principal.kinds == {"rating"}
    assert principal.scopes == {Scope.SEND}
    other = issuer.tokens.verify(issuer.issue().text)
    assert principal.token_id != other.token_id
    assert other.kinds is None


def test_token_ends_when_it_says(issuer: Issuer) -> None:
    token = issuer.issue(ttl_s=60)
    assert token.expires_at == MOMENT + timedelta(seconds=60)
    issuer.clock.now += timedelta(seconds=59.9)
    issuer.tokens.verify(token.text)
    issuer.clock.now += timedelta(seconds=0.1)
    assert "expired at" in issuer.refused(token.text)


def test_token_falls_with_the_key_that_issued_it(issuer: Issuer) -> None:
    token = issuer.issue()
    issuer.keys.rotate("shop", grace_s=30)
    issuer.tokens.verify(token.text)
    issuer.clock.now += timedelta(seconds=30)
    gone = "one whose key is no longer in force"
    assert issuer.refused(token.text) == gone
    assert issuer.refused(issuer.issue(key_id="0" * 12).text) == gone


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _kid(text: str) -> str:
    return str(jwt.get_unverified_header(text)["kid"])


def _payload(text: str) -> str:
    return text.split(".")[1]


def _without_signature(text: str) -> str:
    return f"{_part({'alg': 'none', 'typ': 'JWT', 'kid': _kid(text)})}.{_payload(text)}."


def _other_subject(text: str) -> str:
    head, payload, signature = text.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return f"{head}.{_part({**claims, 'subject_id': 'u-2'})}.{signature}"


ALTERED: list[tuple[Callable[[str], str], str]] = [
    (_without_signature, "one not signed with HS256"),
    (lambda t: f"{_part({'alg': 'NONE', 'kid': _kid(t)})}.{_payload(t)}.", "not signed with HS256"),
    (lambda t: f"{_part({'alg': 'RS256', 'kid': _kid(t)})}.{_payload(t)}.AAAA", "HS256"),
    (lambda t: f"{_part({'kid': _kid(t)})}.{_payload(t)}.AAAA", "HS256"),
    (lambda t: f"{_part({'alg': 'HS256'})}.{_payload(t)}.AAAA", "another secret"),
    (_other_subject, "altered"),
    (lambda t: t.rpartition(".")[0] + ".", "altered"),
    (lambda t: t[:-4] + ("AAAA" if t[-4:] != "AAAA" else "BBBB"), "altered"),
    (lambda t: t[1:], "malformed"),
    (lambda t: f"{t}.x", "malformed"),
    (lambda _: "", "malformed"),
    (lambda _: "..", "malformed"),
    (lambda _: "W1tb" * 900 + ".e30.x", "malformed"),
]


@pytest.mark.parametrize(("alter", "reason"), ALTERED)
def test_altered_token_is_refused(
    sqlite_database: Database, alter: Callable[[str], str], reason: str
) -> None:
    issuer = Issuer(sqlite_database)
    assert reason in issuer.refused(alter(issuer.issue().text))


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "tacit.review"}, "another audience"),
        ({"aud": ["tacit.review"]}, "another audience"),
        ({"aud": None}, "lacks a claim"),
        ({"iss": "elsewhere"}, "another issuer"),
        ({"iss": None}, "lacks a claim"),
        ({"exp": None}, "lacks a claim"),
        ({"jti": None}, "lacks a claim"),
        ({"exp": "never"}, "malformed"),
        ({"source": None}, "malformed"),
        ({"interaction_id": None}, "malformed"),
        ({"subject_id": 7}, "malformed"),
        ({"kinds": ["everything"]}, "malformed"),
        ({"scope": "admin"}, "malformed"),
    ],
)
def test_signed_token_that_says_something_else_is_refused(
    sqlite_database: Database, claims: dict[str, Any], reason: str
) -> None:
    issuer = Issuer(sqlite_database)
    issuer.tokens.verify(issuer.forged())
    assert reason in issuer.refused(issuer.forged(**claims))


def test_token_of_another_master_secret_is_refused(issuer: Issuer) -> None:
    stranger = FeedbackTokens(MasterSecret("x" * 43), issuer.keys, clock=issuer.clock)
    with pytest.raises(NotAuthenticatedError, match="another secret"):
        stranger.verify(issuer.issue().text)
    assert (AUDIENCE, ISSUER) == ("tacit.feedback", "tacit")


class Shop:
    """A product on the whole control application, and the page it serves."""

    def __init__(self, home: Path, **collector: Any) -> None:
        settings = load_settings(home=home, collector={"cors_origins": [ORIGIN], **collector})
        self.keys = KeyStore(Database(settings.resolved_database_url))
        self.key = self.keys.create("shop", scopes={Scope.SEND}, source="helpdesk")
        self.http = TestClient(create_control(settings), raise_server_exceptions=False)

    def mint(self, key: str | None = None, **fields: Any) -> Any:
        body = {"interaction_id": "i-1", "subject_id": "u-1", **fields}
        return self.post("/v1/feedback/tokens", key or self.key, json.dumps(body))

    def send(self, token: str, event_id: str = "e-1", **fields: Any) -> Any:
        values = {"interaction_id": "i-1", "feedback": Correction(completion="shipping"), **fields}
        return self.post("/v1/feedback", token, event(event_id, **values).model_dump_json())

    def post(self, path: str, credential: str, content: str) -> Any:
        headers = {
            "Authorization": f"Bearer {credential}",
            "Content-Type": "application/json",
            "Origin": ORIGIN,
        }
        return self.http.post(path, content=content, headers=headers)


@pytest.fixture
def open_shop(tmp_path: Path, sqlite_database: Database) -> Iterator[Callable[..., Shop]]:
    sqlite_database.dispose()
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(tmp_path / "tacit.db", home / "tacit.db")
    with ExitStack() as stack:

        def build(**collector: Any) -> Shop:
            shop = Shop(home, **collector)
            stack.enter_context(shop.http)
            return shop

        yield build


@pytest.fixture
def shop(open_shop: Callable[..., Shop]) -> Shop:
    return open_shop()


def test_page_sends_a_thumb_with_what_the_token_came_with(shop: Shop) -> None:
    answer = shop.mint()
    assert answer.status_code == 201
    granted = answer.json()
    lives = datetime.fromisoformat(granted["expires_at"]) - datetime.now(MOMENT.tzinfo)
    assert timedelta(minutes=59) < lives <= timedelta(minutes=60, seconds=1)
    names = ("source", "policy", "interaction_id", "subject_id")
    thumb = {name: granted[name] for name in names} | {
        "event_id": "e-1", "occurred_at": MOMENT.isoformat(), "feedback": THUMB,
    }  # fmt: skip
    for _ in range(2):
        sent = shop.post("/v1/feedback", granted["token"], json.dumps(thumb))
        assert (sent.status_code, sent.json()["status"]) == (202, "queued")
    assert shop.http.get(
        "/v1/feedback/e-1", headers={"Authorization": f"Bearer {shop.key}"}
    ).json()["status"] == "queued"  # fmt: skip


def test_token_sends_nothing_but_its_own(shop: Shop) -> None:
    token = shop.mint().json()["token"]
    assert shop.send(token).status_code == 202
    for number, other in enumerate(
        (
            {"interaction_id": "i-2"},
            {"subject_id": "u-2"},
            {"source": "other"},
            {"interaction": interaction()},
            {"episode_id": "ep-1"},
        )
    ):
        answer = shop.send(token, f"x-{number}", **other)
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "NotAllowedError")
    only_thumbs = shop.mint(kinds=["rating"]).json()["token"]
    assert shop.send(only_thumbs, "x-9").status_code == 403


def test_token_cannot_read_review_or_mint(shop: Shop) -> None:
    token = shop.mint().json()["token"]
    header = {"Authorization": f"Bearer {token}"}
    refused = shop.mint(key=token)
    assert (refused.status_code, "API key" in refused.text) == (403, True)
    for path in (
        "/v1/status",
        "/v1/candidates",
        "/v1/feedback/e-1",
        "/v1/ledger",
        "/v1/releases",
        "/v1/quarantine",
        "/v1/dead-letters",
    ):
        assert shop.http.get(path, headers=header).status_code == 401, path
    for path in (
        "/v1/candidates/c-1/approve",
        "/v1/candidates/c-1/reject",
        "/v1/releases/rollback",
    ):
        assert shop.post(path, token, json.dumps({"reason": "x"})).status_code == 401, path
    with pytest.raises(NotAuthenticatedError):
        shop.keys.authenticate(token)


def test_revoking_the_key_revokes_its_tokens(shop: Shop) -> None:
    token = shop.mint().json()["token"]
    shop.keys.revoke("shop")
    refused = shop.send(token)
    assert (refused.status_code, "no longer in force" in refused.text) == (401, True)


def test_what_a_token_may_be_made_for(shop: Shop) -> None:
    reader = shop.keys.create("reader", scopes={Scope.READ}, source="helpdesk")
    assert shop.mint(key=reader).status_code == 403
    assert shop.mint(key="tacit.x.y").status_code == 401
    assert shop.mint(source="other").status_code == 403
    anyone = shop.keys.create("anyone", scopes={Scope.SEND})
    assert "source" in shop.mint(key=anyone).json()["error"]["expected"]
    assert shop.mint(key=anyone, source="web").json()["source"] == "web"
    for bad in (
        {"interaction_id": None}, {"interaction_id": "a/b"}, {"subject_id": ""}, {"kinds": []},
        {"kinds": ["shout"]}, {"surprise": 1}, {"expires_in_s": 0}, {"expires_in_s": -1},
        {"expires_in_s": 86_401}, {"expires_in_s": "60"}, {"expires_in_s": float("inf")},
        {"expires_in_s": 1e308}, {"policy": "another"}, {"source": "Not A Name"},
    ):  # fmt: skip
        answer = shop.mint(**bad)
        assert (answer.status_code, answer.json()["error"]["type"]) == (422, "InvalidInputError")
    assert shop.post("/v1/feedback/tokens", shop.key, "{").status_code == 422
    assert shop.post("/v1/feedback/tokens", shop.key, " " * 20_000).status_code == 413
    assert shop.mint(expires_in_s=86_400).status_code == 201


def test_rate_limits_of_token_and_key(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop(rate_limit_per_s=0.7, rate_limit_burst_s=10.0, token_rate_limit_per_s=0.3)
    first, second, third = (shop.mint().json()["token"] for _ in range(3))
    sends = ((first, 3, "token"), (second, 3, "token"), (third, 1, "key"))
    for number, (token, passes, whose) in enumerate(sends):
        answers = [shop.send(token, f"e-{number}-{n}") for n in range(passes + 1)]
        assert [a.status_code for a in answers] == [202] * passes + [429]
        assert f"this {whose}" in answers[-1].text
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert answers[-1].headers["Access-Control-Allow-Origin"] == ORIGIN


def preflight(shop: Shop, path: str, *, origin: str = ORIGIN, method: str = "POST") -> Any:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return shop.http.options(path, headers=headers)


def test_preflight_of_an_allowed_origin(shop: Shop) -> None:
    answer = preflight(shop, "/v1/feedback")
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert preflight(shop, "/v1/feedback", method="DELETE").status_code == 400
    stranger = preflight(shop, "/v1/feedback", origin="https://shop.example.evil.com")
    assert (stranger.status_code, "Access-Control-Allow-Origin" in stranger.headers) == (400, False)


@pytest.mark.parametrize(
    "path", ["/v1/feedbacks", "/v1/candidates", "/v1/status", "/v1/webhooks/0", "/login", "/"]
)
def test_other_paths_answer_no_origin(shop: Shop, path: str) -> None:
    for answer in (
        preflight(shop, path),
        shop.http.get(path, headers={"Origin": ORIGIN}, follow_redirects=False),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_answers_and_errors_name_the_origin_so_that_a_page_can_read_them(shop: Shop) -> None:
    token = shop.mint().json()["token"]
    for answer in (
        shop.send(token),
        shop.send(token, "x", subject_id="u-2"),
        shop.send("nonsense"),
    ):
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert answer.headers["Access-Control-Expose-Headers"] == "Retry-After"


def test_without_origins_no_page_may_send(open_shop: Callable[..., Shop]) -> None:
    shop = open_shop(cors_origins=[])
    for answer in (preflight(shop, "/v1/feedback"), shop.send(shop.key)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]

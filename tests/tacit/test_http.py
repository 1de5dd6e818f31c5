"""What all HTTP applications share: who a request is from, and when to come again."""

import pickle

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tacit.database import Database
from tacit.errors import (
    RateLimitedError,
)
from tacit.http import bearer_principal, error_response, install_error_handlers
from tacit.keys import KeyStore, Scope

SEND = {Scope.SEND}


def _app(keys: KeyStore) -> TestClient:
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/who")
    def who(request: Request) -> str:
        return bearer_principal(keys, request).name

    return TestClient(app, raise_server_exceptions=False)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.binary(max_size=300) | st.sampled_from([b"Bearer", b"Bearer ", b"bearer \t "]))
def test_no_authorization_header_but_a_key_is_a_way_in(
    sqlite_database: Database, header: bytes
) -> None:
    http = _app(KeyStore(sqlite_database))
    assert http.get("/who", headers=[(b"authorization", header)]).status_code == 401


def test_header_is_read_as_http_says(sqlite_database: Database) -> None:
    keys = KeyStore(sqlite_database)
    key, http = keys.create("shop", scopes=SEND), _app(keys)
    for header in (f"Bearer {key}", f"bearer   {key} ", f"BEARER {key}"):
        assert http.get("/who", headers={"Authorization": header}).json() == "shop"
    for header in (key, f"Basic {key}", f"Bearer{key}", f"Bearer {key} x", f"Bearer Bearer {key}"):
        assert http.get("/who", headers={"Authorization": header}).status_code == 401


@pytest.mark.parametrize(("wait_s", "header"), [(0.01, "1"), (1.0, "1"), (1.2, "2"), (61.0, "61")])
def test_rate_limit_says_when_to_come_again(wait_s: float, header: str) -> None:
    error = RateLimitedError("less", got="more", mend="wait", retry_after_s=wait_s)
    copied = pickle.loads(pickle.dumps(error))
    assert (copied.retry_after_s, str(copied)) == (wait_s, str(error))
    answer = error_response(copied)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, header)

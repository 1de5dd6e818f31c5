"""Who may ask the server: what a key opens, and for whom."""

from pathlib import Path

import httpx
import openai
import pytest

from tacit.checkpoints import CheckpointStore
from tacit.database import Database
from tacit.keys import KeyStore, Principal, Scope
from tests.deploy.scenes import until
from tests.deploy.serving import serving


def test_without_a_good_key_nothing_opens(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    asked = [("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/v1/models/default")]
    with serving(sqlite_database, store, tmp_path, variant=None) as server:
        for header in (None, "", "Bearer", "Basic abc", f"Basic {server.key}", "Bearer tacit.a.b"):
            headers = {} if header is None else {"Authorization": header}
            for method, path in asked:
                answer = httpx.request(method, server.url + path, content=b"{", headers=headers)
                assert answer.status_code == 401, (header, path)
                assert answer.json()["error"]["type"] == "authentication_error"
                assert answer.json()["error"]["code"] == "invalid_api_key"


def test_a_key_is_looked_up_once_for_many_requests(
    sqlite_database: Database,
    store: CheckpointStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str | None] = []
    authenticate = KeyStore.authenticate

    def counted(keys: KeyStore, key: str | None) -> Principal:
        asked.append(key)
        return authenticate(keys, key)

    monkeypatch.setattr(KeyStore, "authenticate", counted)
    monkeypatch.setattr("tacit.remembered.REMEMBERED_S", 3_600.0)
    with serving(sqlite_database, store, tmp_path) as server:
        assert {server.post({}).status_code for _ in range(4)} == {422}
        assert asked == [server.key]


def test_a_revoked_key_is_out_soon(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        assert server.post({}).status_code == 422
        server.keys.revoke("helpdesk-key")
        until(lambda: server.post({}).status_code == 401)


def test_a_key_for_something_else_is_not_allowed(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        reading = server.keys.create("reader", scopes={Scope.READ})
        elsewhere = server.keys.create("elsewhere", scopes={Scope.SEND}, policy="other")
        for key in (reading, elsewhere):
            server.key = key
            with pytest.raises(openai.PermissionDeniedError, match="expected"):
                server.ask()


def test_source_comes_from_the_key_and_is_free_only_where_the_key_is(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    with serving(sqlite_database, store, tmp_path) as server:
        with pytest.raises(openai.PermissionDeniedError, match="source 'helpdesk'"):
            server.ask(extra_headers={"X-Tacit-Source": "other"})
        server.key = server.keys.create("free", scopes={Scope.SEND})
        server.ask(extra_headers={"X-Tacit-Source": "other"})
        server.ask()
    assert [i.source for i in server.recorded] == ["other", "free"]

"""The control routes: who may look, who may roll back, and that a rollback is one transaction."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session

from deploy.api import create_router
from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest
from tacit.database import Database
from tacit.errors import ConflictError
from tacit.http import install_error_handlers
from tacit.keys import KeyStore, Scope
from tests.deploy.scenes import Line, line


class Control:
    """The routes over a line; rollbacks are noted, or refused when told so."""

    def __init__(self, database: Database, store: CheckpointStore, folder: Path) -> None:
        self.line: Line = line(database, store, folder)
        self.noted: list[tuple[list[Digest], bool]] = []
        self.refuse = False
        keys = KeyStore(database)
        self.keys = {scope: keys.create(scope, scopes={scope}) for scope in Scope}
        app = FastAPI()
        install_error_handlers(app)
        app.include_router(create_router(self.line.desk, keys, "default", self._note))
        self._client = TestClient(app)

    def _note(self, session: Session, batches: list[Digest], keep: bool) -> None:
        assert session.in_transaction()
        if self.refuse:
            raise ConflictError("events that can be set aside")
        self.noted.append((batches, keep))

    def call(self, method: str, path: str, scope: Scope | None, body: Any = None) -> Any:
        headers = {} if scope is None else {"Authorization": f"Bearer {self.keys[scope]}"}
        return self._client.request(method, path, headers=headers, json=body)

    def roll_back(self, scope: Scope | None = Scope.REVIEW, **body: Any) -> Any:
        return self.call("POST", "/v1/releases/rollback", scope, {"reason": "worse", **body})


@pytest.fixture
def control(database: Database, store: CheckpointStore, tmp_path: Path) -> Control:
    return Control(database, store, tmp_path)


def test_rollback_answers_with_the_release_and_hands_the_batches_on(control: Control) -> None:
    first = control.line.first()
    shown = control.line.evidence(1)
    bad = control.line.promote(shown)
    answer = control.roll_back()
    assert answer.status_code == 200
    body = answer.json()
    assert body["release_id"] == "r-default-2"
    assert (body["weights"], body["rollback_of"]) == (first.weights, bad.release_id)
    assert body["released_by"] == "review"
    assert body["batches_taken_back"] == [shown.batch.digest()]
    assert control.noted == [([shown.batch.digest()], False)]
    listed = control.call("GET", "/v1/releases", Scope.READ).json()
    assert [r["release_id"] for r in listed] == ["r-default-2", "r-default-1", "r-default-0"]


def test_feedback_is_kept_where_that_is_asked_for(control: Control) -> None:
    control.line.first()
    shown = control.line.evidence(1)
    control.line.promote(shown)
    assert control.roll_back(keep_feedback=True).status_code == 200
    assert control.noted == [([shown.batch.digest()], True)]


def test_what_on_rollback_refuses_does_not_happen(control: Control) -> None:
    control.line.first()
    bad = control.line.promote(control.line.evidence(1))
    control.refuse = True
    assert control.roll_back().status_code == 409
    assert control.line.desk.current("default") == bad


def test_rollback_errors_are_told_apart(control: Control) -> None:
    control.line.first()
    assert control.roll_back().status_code == 409
    assert control.roll_back(to="r-default-7").status_code == 404
    assert control.roll_back(reason="").status_code == 422
    assert control.roll_back(force=True).status_code == 422
    assert control.noted == []


def test_only_reviewers_roll_back_and_only_readers_look(control: Control) -> None:
    control.line.first()
    control.line.promote(control.line.evidence(1))
    assert control.roll_back(None).status_code == 401
    for scope in (Scope.SEND, Scope.READ):
        assert control.roll_back(scope).status_code == 403
    for path in ("/v1/releases", "/v1/replicas"):
        assert control.call("GET", path, None).status_code == 401
        assert control.call("GET", path, Scope.SEND).status_code == 403
        assert control.call("GET", path, Scope.READ).status_code == 200
    assert control.roll_back(Scope.ADMIN).status_code == 200

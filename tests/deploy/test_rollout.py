"""The steps of a rollout, its API and its desk."""

from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import ValidationError
from typer.testing import CliRunner

from deploy.rollout import following, plan
from deploy.rollout_api import create_rollout_router
from deploy.sequential import ArmTest
from deploy.tables import RolloutRow, ShadowRow, Stage
from deploy.wanted import Step, Wanted, wanted_of
from tacit.checkpoints import CheckpointStore
from tacit.cli import app as cli
from tacit.config import RolloutSettings
from tacit.database import Database
from tacit.errors import ConflictError
from tacit.http import install_error_handlers
from tacit.keys import KeyStore, Scope
from tacit.remote import Remote
from tests.deploy.scenes import Line, line

FULL = Step(Stage.FULL, 1.0)
SETTINGS = RolloutSettings(shadow_share=0.3, canary_shares=(0.1, 0.5))


def canary(share: float) -> Step:
    return Step(Stage.CANARY, share)


@pytest.fixture
def rolling(database: Database, store: CheckpointStore, tmp_path: Path) -> Line:
    made = line(database, store, tmp_path)
    made.first()
    made.promote(made.evidence(1), canary_shares=(0.1, 0.5))
    return made


def test_steps_follow_the_settings() -> None:
    assert plan(RolloutSettings()) == [FULL]
    assert plan(SETTINGS) == [Step(Stage.SHADOW, 0.3), canary(0.1), canary(0.5), FULL]
    steps = [Step(Stage.SHADOW, 0.3)]
    while steps[-1] != FULL:
        steps.append(following(steps[-1], SETTINGS))
    assert steps == plan(SETTINGS)


def test_settings_that_change_on_the_way_never_lower_the_share() -> None:
    assert following(canary(0.2), SETTINGS) == canary(0.5)
    assert following(canary(0.5), RolloutSettings(canary_shares=(0.1, 0.4))) == FULL
    assert following(Step(Stage.SHADOW, 0.3), RolloutSettings()) == FULL


@pytest.mark.parametrize("shares", [(0.5, 0.1), (0.1, 0.1), (0.0,), (1.0,)])
def test_shares_that_do_not_rise_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        RolloutSettings(canary_shares=shares)


def test_without_stages_a_release_serves_at_once(
    sqlite_database: Database, store: CheckpointStore, tmp_path: Path
) -> None:
    made = line(sqlite_database, store, tmp_path)
    made.first()
    made.promote(made.evidence(1))
    assert made.rollouts.of("r-default-1") is None
    with sqlite_database.reader() as session:
        assert wanted_of(session, "default") == Wanted("r-default-1")
        assert wanted_of(session, "other") is None


def test_two_who_move_it_at_once_move_it_once(rolling: Line) -> None:
    seen = rolling.rollouts.under_way("default")
    assert seen is not None
    rolling.move(Stage.CANARY, 0.5)
    with rolling.database.session() as session, pytest.raises(ConflictError, match="another stage"):
        rolling.rollouts.move(session, seen, FULL, why="good", by="tacit")
    moves = [body["share"] for kind, _, body in rolling.journal if kind == "rollout"]
    assert moves == [0.1, 0.5]


def test_evidence_is_that_of_the_stage_it_was_found_in(rolling: Line) -> None:
    seen = rolling.rollouts.under_way("default")
    assert seen is not None
    rolling.rollouts.note(seen, "{}")
    kept = rolling.rollouts.of("r-default-1")
    assert kept is not None
    assert kept.evidence == "{}"
    rolling.now = rolling.now.replace(hour=23)
    rolling.move(Stage.CANARY, 0.5)
    rolling.rollouts.note(seen, '{"late": 1}')
    moved = rolling.rollouts.of("r-default-1")
    assert moved is not None
    assert moved.evidence is None


class Control:
    """The routes with a key for each scope."""

    def __init__(self, made: Line) -> None:
        keys = KeyStore(made.database)
        self.keys = {scope: keys.create(scope, scopes={scope}) for scope in Scope}
        app = FastAPI()
        install_error_handlers(app)
        app.include_router(create_rollout_router(made.rollouts, keys, "default", SETTINGS))
        self._client = TestClient(app)

    def call(self, method: str, path: str, scope: Scope | None, body: Any = None) -> Any:
        headers = {} if scope is None else {"Authorization": f"Bearer {self.keys[scope]}"}
        return self._client.request(method, path, headers=headers, json=body)

    def full(self, scope: Scope = Scope.REVIEW, **body: Any) -> Any:
        return self.call("POST", "/v1/rollout/full", scope, {"reason": "urgent", **body})


def test_the_api_shows_it_and_takes_it_to_full(rolling: Line) -> None:
    control = Control(rolling)
    shown = control.call("GET", "/v1/rollout", Scope.READ).json()
    assert (shown["release_id"], shown["champion"]) == ("r-default-1", "r-default-0")
    assert (shown["stage"], shown["share"], shown["following"]) == (
        "canary",
        0.1,
        "canary of 0.5 of subjects",
    )
    assert "50 more pieces of feedback" in shown["needs"]
    assert control.full(release="r-default-0").status_code == 409
    assert control.full(reason="").status_code == 422
    assert control.full(Scope.READ).status_code == 403
    assert control.call("GET", "/v1/rollout", Scope.SEND).status_code == 403
    assert control.call("GET", "/v1/rollout", None).status_code == 401
    assert control.full().json() == {"release_id": "r-default-1", "stage": "full"}
    assert control.call("GET", "/v1/rollout", Scope.READ).json() is None
    assert control.full().status_code == 404
    kind, subject, body = rolling.journal[-1]
    assert (kind, subject) == ("rollout", "r-default-1")
    assert body == {"stage": "full", "share": 1.0, "by": "review", "reason": "urgent"}


def test_the_command_line_shows_what_the_api_says(
    rolling: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    control, run = Control(rolling), CliRunner().invoke
    test = ArmTest()
    test.update("champion", "u", 1.0)
    test.update("canary", "v", 0.0)
    seen = rolling.rollouts.under_way("default")
    assert seen is not None
    rolling.rollouts.note(seen, test.summary.model_dump_json())
    counts = {c.name: 3 for c in ShadowRow.__table__.columns if c.name != "release_id"}
    with rolling.database.session() as session:
        session.add(ShadowRow(release_id="r-default-1", **counts))
    monkeypatch.setattr(Remote, "get", lambda _, path: control.call("GET", path, Scope.READ).json())
    monkeypatch.setattr(
        Remote, "post", lambda _, path, body: control.call("POST", path, Scope.REVIEW, body).json()
    )
    told = run(cli, ["rollout", "--key", "k"]).output
    for text in ("r-default-1 beside r-default-0", "canary, 10 % of subjects", "3 of 3"):
        assert text in told
    assert "champion" in told
    assert run(cli, ["rollout", "--full", "--key", "k"]).exit_code == 2
    done = run(cli, ["rollout", "--full", "-m", "urgent", "--key", "k"])
    assert "r-default-1 answers all requests" in done.output
    assert "no rollout under way" in run(cli, ["rollout", "--key", "k"]).output
    with rolling.database.reader() as session:
        assert session.get_one(RolloutRow, "r-default-1").stage == Stage.FULL

"""A rollout from request to verdict: real serving, users over HTTP, their feedback, the loop."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from collector.consume import Consumer
from collector.ingest import interactions_topic
from deploy.server import create_app
from tacit.config import Settings
from tacit.contracts import Interaction, Outcome, utc_now
from tacit.cycles import CycleState
from tacit.keys import KeyStore, Scope
from tacit.live import version_of
from tacit.signing import Verifier
from tests import builders
from tests.deploy.scenes import listening, until
from tests.integration.rollout_scene import RELEASE, Scene, scene

__all__ = ["scene"]
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


class Users:
    """They ask over HTTP and say whether the answer helped, by the version that gave it."""

    def __init__(self, on: Scene, http: httpx.Client, *, helps: Callable[[str], bool]) -> None:
        self._on = on
        self._http = http
        self._helps = helps
        self.number = 0
        self.met: dict[str, set[str]] = {}

    def visit(self, num_users: int) -> None:
        """New users, one request and one piece of feedback each."""
        events = []
        for _ in range(num_users):
            self.number += 1
            name = f"u-{self.number}"
            answer = self.ask(name)
            outcome = Outcome(metric="resolved", value=self._helps(answer["model"]))
            events.append(
                builders.event(
                    f"f-{self.number}",
                    subject_id=name,
                    interaction_id=answer["id"],
                    feedback=outcome,
                    occurred_at=utc_now(),
                )
            )
        self._on.ingestor.accept(events)
        Consumer(self._on.loop.database, self._on.stream, self._on.settings).drain()

    def ask(self, name: str) -> dict[str, str]:
        """One request. Every answer comes, whatever is swapped meanwhile."""
        body = {"model": "default", "messages": [{"role": "user", "content": "where is it"}]}
        answer = self._http.post(
            "/v1/chat/completions", json={**body, "user": name, "max_tokens": 2}
        )
        assert answer.status_code == 200, answer.text
        told: dict[str, str] = answer.json()
        self.met.setdefault(name, set()).add(told["model"])
        return told


@contextmanager
def serving(on: Scene, *, helps: Callable[[str], bool]) -> Iterator[Users]:
    """A server on the scene's database, whose interactions go into the scene's stream."""
    loop, settings = on.loop, on.settings
    keys = KeyStore(loop.database)
    key = keys.create("helpdesk", scopes={Scope.SEND}, source="helpdesk", policy="default")
    deploy = settings.deploy.model_copy(update={"poll_s": 0.01, "device": "cpu"})
    topic = interactions_topic(settings)

    def record(interaction: Interaction) -> None:
        on.stream.append(topic, [("k", interaction.model_dump_json().encode())])

    app = create_app(
        Settings.model_construct(**{**dict(settings), "deploy": deploy}),
        db=loop.database,
        store=loop.checkpoints,
        verifier=Verifier.load(settings.keys_path / "signing.pub"),
        keys=keys,
        record=record,
    )
    with listening(app) as url:
        until(lambda: {r.canary for r in loop.releases.replicas("default")} == {RELEASE})
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as http:
            yield Users(on, http, helps=helps)


def run(on: Scene, users: Users) -> None:
    """Users come and the loop looks, until the cycle has ended."""
    for _ in range(40):
        users.visit(10)
        for _ in range(5):
            if CycleState(on.cycle.state).terminal:
                return
            on.step()


def test_a_canary_that_users_like_is_promoted(scene: Callable[..., Scene]) -> None:
    on = scene(canary_shares=[0.5], margin=0.4, min_feedback=10)
    with serving(on, helps=lambda _model: True) as users:
        run(on, users)
        assert on.cycle.state == CycleState.PROMOTED, on.cycle.reason
        assert users.ask("u-new")["model"] == version_of("default", on.candidate.weights)
    assert on.loop.champion() == on.candidate.weights
    assert len(set().union(*users.met.values())) == 2, "both versions answered on the way"


def test_a_canary_that_does_not_help_is_rolled_back(scene: Callable[..., Scene]) -> None:
    on = scene(canary_shares=[0.5])
    bad = version_of("default", on.candidate.weights)
    with serving(on, helps=lambda model: model != bad) as users:
        run(on, users)
        assert on.cycle.state == CycleState.FAILED
        assert "canary 0.000" in str(on.cycle.reason)
        current = on.loop.releases.current("default")
        assert current is not None
        until(lambda: on.loop.releases.replicas("default")[0].serving == current.release_id)
        victims = [name for name, met in users.met.items() if bad in met]
        good = version_of("default", on.candidate.parent)
        assert {users.ask(name)["model"] for name in victims} == {good}
    assert 0 < len(victims) < 60, "it took little feedback"

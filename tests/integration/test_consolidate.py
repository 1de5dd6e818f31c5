"""Two speeds: adapters are learned, promoted, folded into a new base; the next one is fresh."""

import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

import tacit.remote
from collector.consume import Consumer
from collector.ingest import Ingestor
from collector.streams import open_stream
from tacit.cli import app
from tacit.config import Settings, with_overrides
from tacit.consolidation import ConsolidationDesk
from tacit.contracts import DecisionOutcome, PolicyCandidate, ScreenedEvent, short
from tacit.control import create_control
from tacit.cycles import CycleRow, CycleState
from tacit.errors import ConflictError
from tacit.lineage import FeedbackLineage
from tacit.loop import LoopObserver, OnlineLoop
from tacit.start import prepare
from tacit.tracking import Alias
from tests.builders import tiny_checkpoint
from tests.integration.crashing_loop import _approve as approve
from tests.integration.crashing_loop import crash_settings
from tests.integration.test_crashes import _event as numbered_event
from tests.integration.test_crashes import _home as home_with_events
from tests.trainer.here import Here
from trainer.reproduce import reproduce
from trainer.update import PolicyTrainer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::FutureWarning",
        "ignore::ResourceWarning",
        "ignore::sqlalchemy.exc.SADeprecationWarning",
    ),
]


class StopAt(LoopObserver):
    """Stops the loop once a cycle is in a state."""

    def __init__(self, state: CycleState) -> None:
        self.loop: OnlineLoop | None = None
        self._state = state

    def on_state(self, cycle: CycleRow) -> None:
        """Stops."""
        if self.loop is not None and cycle.state == self._state:
            self.loop.stop()


@pytest.fixture
def settings(
    tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """A home with 24 events, half of them for the first cycle."""
    monkeypatch.setattr("trainer.update.connect", lambda **_: False)
    home = home_with_events(tmp_path / "home")
    yield with_overrides(
        crash_settings(home),
        [
            f"tracking.uri={mlflow_uri}",
            "loop.max_events=10",
            "trainer.interpolation_alphas=1",
            "trainer.lora.rank=4",
            "trainer.num_workers=1",
            "collector.screening.holdout_share=0",
        ],
    )
    shutil.rmtree(home, ignore_errors=True)


@contextmanager
def running(settings: Settings, observer: LoopObserver | None = None) -> Iterator[OnlineLoop]:
    """A loop whose worker is this process."""
    loop = OnlineLoop(settings, observer=observer, screens=False)
    if isinstance(observer, StopAt):
        observer.loop = loop
    loop.trainer = trainer_here(settings.trainer, loop.checkpoints)
    loop.begin(lambda: tiny_checkpoint(loop.checkpoints), by="test")
    screen(settings, loop)
    yield loop
    loop.database.dispose()


def trainer_here(chosen: Any, store: Any) -> PolicyTrainer:
    """A trainer without Ray."""
    return PolicyTrainer(chosen, store, open_group=lambda _: Here(store))


def screen(settings: Settings, loop: OnlineLoop, *numbers: int) -> None:
    """Send more events, and screen all that wait."""
    stream = open_stream(settings)
    if numbers:
        with Ingestor(loop.database, stream, settings) as ingestor:
            ingestor.accept([numbered_event(n) for n in numbers])
    Consumer(loop.database, stream, settings).drain()
    stream.close()


def promoted(loop: OnlineLoop) -> tuple[CycleRow, PolicyCandidate]:
    """One cycle with a reviewer who approves."""
    cycle = decided(loop, DecisionOutcome.APPROVED)
    assert cycle.state == CycleState.PROMOTED, cycle.reason
    return cycle, loop.candidates.get(str(cycle.candidate_id))


def decided(loop: OnlineLoop, outcome: DecisionOutcome) -> CycleRow:
    """One cycle with a reviewer who always decides so."""
    done = threading.Event()
    reviewer = threading.Thread(target=approve, args=(loop, done, outcome), daemon=True)
    reviewer.start()
    cycle = loop.run_cycle()
    done.set()
    reviewer.join()
    return cycle


def desk(loop: OnlineLoop) -> ConsolidationDesk:
    return ConsolidationDesk(
        loop.policy, loop.database, loop.checkpoints, loop.releases, journal=loop.ledger.append
    )


def test_adapters_are_folded_through_the_whole_gate(settings: Settings) -> None:
    with running(settings) as loop:
        first = loop.champion()
        learned = [promoted(loop)[1], promoted(loop)[1]]
        plan = desk(loop).plan()
        assert (plan.champion, plan.base) == (learned[1].weights, first)
        assert [fold.weights for fold in plan.folds] == [made.weights for made in learned]
        assert plan.size_bytes > 100_000
        assert loop.cycles.latest(loop.policy).state == CycleState.PROMOTED

        assert desk(loop).ask(by="ada") == desk(loop).ask(by="bob") == plan
        cycle, whole = promoted(loop)
        assert (cycle.cycle_id, cycle.purpose) == (plan.cycle_id, "consolidation")
        assert whole.parent == learned[1].weights
        assert whole.folds == plan.folds
        assert whole.choice is None
        manifest = loop.checkpoints.verify(whole.weights)
        assert (manifest.kind, manifest.base) == ("full", None)
        assert loop.champion() == whole.weights
        batch, replay = loop.batches.get(whole.batch_id)
        assert (batch.purpose, batch.entries) == ("consolidation", ())
        assert replay  # what the folded updates learned

        told = loop.chronicle.tracking.alias_weights(loop.policy, Alias.CHAMPION)
        assert told == whole.weights
        asked = [e for e in loop.ledger.entries() if e.kind == "consolidation"]
        assert len(asked) == 1
        assert not loop.ledger.verify().problems
        see_through(loop, learned, whole)
        rebuilt_from_record(loop, whole)

        screen(settings, loop, *range(24, 36))
        _, following = promoted(loop)
        assert following.parent == whole.weights
        assert loop.checkpoints.manifest(following.weights).base == whole.weights


def see_through(loop: OnlineLoop, learned: list[PolicyCandidate], whole: PolicyCandidate) -> None:
    """An event of a folded adapter is told of the candidate that folds it, and its release."""
    lineage = FeedbackLineage(loop.policy, loop.database, loop.releases)
    newest = loop.releases.current(loop.policy)
    assert newest is not None
    for made in learned:
        found = lineage.of(made.batch_id)
        listed = [row["candidate_id"] for row in found["candidates"]]
        assert listed == [made.candidate_id, whole.candidate_id]
        assert found["releases"][0]["release_id"] == newest.release_id


def rebuilt_from_record(
    loop: OnlineLoop, made: PolicyCandidate, events: Sequence[ScreenedEvent] = ()
) -> None:
    """The same bytes again from what is recorded."""
    batch, replay = loop.batches.get(made.batch_id)
    found = reproduce(
        made,
        batch,
        events,
        replay,
        store=loop.checkpoints,
        on_step=lambda _: None,
        open_trainer=trainer_here,
    )
    assert found.same
    assert [fact for fact in found.facts if not fact.same] == []


def test_nothing_to_fold_is_refused(settings: Settings) -> None:
    with running(settings) as loop, pytest.raises(ConflictError, match="a full checkpoint"):
        desk(loop).plan()


def test_a_waiting_candidate_comes_first(settings: Settings) -> None:
    with running(settings) as loop:
        promoted(loop)
    with running(settings, StopAt(CycleState.AWAITING_DECISION)) as loop:
        assert loop.run_cycle().state == CycleState.AWAITING_DECISION
        for refused in (desk(loop).plan, lambda: desk(loop).ask(by="ada")):
            with pytest.raises(ConflictError, match="awaiting_decision"):
                refused()


def test_rolled_back_before_it_was_sealed_it_fails_with_the_reason(settings: Settings) -> None:
    with running(settings) as loop:
        promoted(loop)
        desk(loop).ask(by="ada")
        with loop.database.session() as session:
            loop.releases.rollback(session, loop.policy, by="ada", reason="worse")
        cycle = loop.run_cycle()
        assert cycle.state == CycleState.FAILED
        assert "a promoted adapter to fold" in str(cycle.reason)
        assert loop.cycles.resume_or_open(loop.policy).purpose == "update"


def test_a_rejected_one_leaves_everything_as_it_was(settings: Settings) -> None:
    with running(settings) as loop:
        _, adapter = promoted(loop)
        before = loop.events.counts(loop.policy)
        desk(loop).ask(by="ada")
        gate = loop.settings.gatekeeper.gate_policy_path
        assert gate is not None
        gate.write_text(gate.read_text().replace("min_items: 1", "min_items: 1000"))
        cycle = loop.run_cycle()
        assert cycle.state == CycleState.REJECTED
        assert loop.champion() == adapter.weights
        assert loop.events.counts(loop.policy) == before


def test_asking_while_a_batch_is_prepared_is_not_lost(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(settings) as loop:
        promoted(loop)
        genuine = loop.events.count_trainable

        def meanwhile(policy: str) -> int:
            monkeypatch.setattr(loop.events, "count_trainable", genuine)
            desk(loop).ask(by="ada")
            return genuine(policy)

        monkeypatch.setattr(loop.events, "count_trainable", meanwhile)
        cycle, candidate = promoted(loop)
        assert cycle.purpose == "consolidation"
        assert candidate.folds


def test_the_command_asks_the_running_service(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(settings) as loop, ExitStack() as opened:
        _, made = promoted(loop)
        prepare(settings)
        control = create_control(settings)
        http = opened.enter_context(TestClient(control, raise_server_exceptions=False))
        monkeypatch.setattr(tacit.remote.httpx, "request", _through(http))

        def run(*words: str) -> Any:
            home = ["--home", str(settings.home), "--url", "http://control"]
            return CliRunner().invoke(app, ["consolidate", *words, *home])

        dry = run("--dry-run")
        assert "would fold 1 update\n" in dry.stdout
        assert short(made.weights) in dry.stdout
        assert loop.cycles.resume_or_open(loop.policy).purpose == "update"
        assert "folds 1 update\n" in run().stdout
        assert loop.cycles.resume_or_open(loop.policy).purpose == "consolidation"
        status = http.get(
            "/v1/status",
            headers={"Authorization": f"Bearer {(settings.keys_path / 'admin.key').read_text()}"},
        ).json()
        assert status["cycle_purpose"] == "consolidation"
        product = (settings.keys_path / "product.key").read_text().strip()
        refused = http.post(
            "/v1/consolidation", headers={"Authorization": f"Bearer {product}"}, json={}
        )
        assert refused.status_code == 403


def _through(http: TestClient) -> Any:
    def request(method: str, url: str, *, timeout: float, **content: Any) -> Any:
        return http.request(method, url.removeprefix("http://control"), **content)

    return request

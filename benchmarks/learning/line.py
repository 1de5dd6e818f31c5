"""One policy line in one process: serves, screens what comes back, learns, serves what came of it.

As the loop does it, through the same code, without HTTP, Ray, MLflow, gate and people: a candidate
is promoted unless it was not shown to keep what the champion knows.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, Self

from benchmarks.learning.feedback import POLICY, START
from collector.consume import Consumer
from collector.ingest import Ingestor
from collector.store import EventStore
from collector.streams import open_stream
from evaluator.choose import VariantChooser
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings, TrainerSettings
from tacit.contracts import (
    Digest,
    FeedbackEvent,
    ReplayExample,
    ScreenedEvent,
    SealedBatch,
    Suite,
    short,
)
from tacit.database import Database
from tacit.demo.product import MAX_ANSWER_TOKENS
from tacit.demo.world import Utterance, prompt
from tacit.errors import TrainingError
from tacit.inference.outputs import Completion
from tacit.policies import Policy, load_policy
from tacit.rehearsal import rehearsal_of
from tacit.testimony import hear
from trainer.interpolate import interpolate
from trainer.precision import has_fast_bf16, resolve_precision
from trainer.replay import num_replay
from trainer.seal import seal_batch, verify_batch
from trainer.session import TrainingSession, UpdateJob


@dataclass(frozen=True)
class Learned:
    """One update."""

    num_events: int
    mean_weight: float
    """Trust of its events."""
    alpha: float
    """Share of the update that was taken."""
    stands: bool | None
    """Whether that share was shown to forget nothing; None where it was not asked."""
    seconds: float
    """Answers for replay, training and the choice of a variant."""
    failed: str | None = None
    """Why no candidate came of the events, which are lost then; alpha is 0."""


class _Sealed(NamedTuple):
    batch: SealedBatch
    events: Sequence[ScreenedEvent]
    replay: Sequence[ReplayExample]


class PolicyLine:
    """A policy that learns from its own feedback. A context manager, which closes it."""

    def __init__(
        self,
        settings: Settings,
        store: CheckpointStore,
        champion: Digest,
        *,
        anchor: Sequence[ReplayExample],
        suite: Suite,
    ) -> None:
        """``anchor`` is what may be rehearsed, ``suite`` what a variant must not lose."""
        self._settings = settings
        self._store = store
        self._anchor = anchor
        self._suite = suite
        self.champion = self._frozen = champion
        Path(settings.home).mkdir(parents=True, exist_ok=True)
        self._database = Database(settings.resolved_database_url)
        self._database.migrate()
        self._events = EventStore(self._database)
        self._stream = open_stream(settings)
        self._ingestor = Ingestor(self._database, self._stream, settings)
        self._consumer = Consumer(self._database, self._stream, settings)
        # The evaluator opens champion and candidate in turn; here both stay in memory.
        self._open = lru_cache(maxsize=4)(partial(load_policy, store))
        self._chooser = VariantChooser(
            settings.evaluator, store, self._database, open_policy=self._open
        )
        self._session = TrainingSession(store)
        self._num_updates = self._num_since_rebuild = 0
        self._just_rebuilt = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ingestor.close()
        self._stream.close()
        self._database.dispose()

    @property
    def version(self) -> str:
        """As serving names it."""
        return f"{POLICY}@{short(self.champion)}"

    def policy(self) -> Policy:
        """The champion, loaded."""
        return self._open(self.champion)

    def serve(self, asked: Sequence[Utterance]) -> list[Completion]:
        """Greedy answers."""
        return self.policy().generate([prompt(u) for u in asked], max_new_tokens=MAX_ANSWER_TOKENS)

    def send(self, events: Sequence[FeedbackEvent]) -> None:
        """Collect and screen."""
        if events:
            self._ingestor.accept(events)
            self._consumer.drain()

    def learn(self) -> Learned | None:
        """One update of the champion on what was accepted since; None where that is nothing."""
        started = time.perf_counter()
        sealed = self._take()
        if sealed is None:
            return None
        alpha, stands, failed = 0.0, None, None
        try:
            parent, weights = self.champion, self._update(sealed)
            self._num_since_rebuild += 1
            self.champion, alpha, stands = self._choose(parent, weights, sealed.batch)
            if stands is False:  # the gate would turn it away
                self.champion = parent
            elif sealed.batch.start is not None:
                self._num_since_rebuild = 0
        except TrainingError as error:
            failed = str(error)
        events = sealed.events
        return Learned(
            num_events=len(events),
            mean_weight=sum(event.weight for event in events) / len(events),
            alpha=alpha,
            stands=stands,
            seconds=time.perf_counter() - started,
            failed=failed,
        )

    def train_on(self, events: Sequence[ScreenedEvent], replay: Sequence[ReplayExample]) -> None:
        """One update on these very events and replay, all of which is taken."""
        self.champion = self._update(_Sealed(self._seal(events, replay), events, replay))

    def _take(self) -> _Sealed | None:
        """The next batch, as ``tacit.learning`` seals it; None without events."""
        chosen, limit = self._settings.trainer, self._settings.loop.max_events
        self._num_updates += 1
        due = self._is_rebuild_due()
        number = num_replay(self._events.count_trainable(POLICY), chosen.replay.share)
        seed = chosen.seed + self._num_updates
        rehearsal = rehearsal_of(
            self._anchor,
            hear(self._events, POLICY, num_waiting=limit, seed=seed),
            self._store,
            self.champion,
            settings=self._settings,
            number=0 if due else number,
            seed=seed,
        )
        contradicted = rehearsal.contradicted
        with self._database.session() as session:
            self._events.refute(session, POLICY, contradicted.refuted)
            events = self._events.take(
                session, POLICY, limit=limit, factors=contradicted.factors, only=rehearsal.waiting
            )
            if not events:
                return None
            number = num_replay(len(events), chosen.replay.share)
            replay = rehearsal.draw(rehearsal.whole(chosen.rebuild.num_examples) if due else number)
            batch = self._seal(events, replay, start=self._frozen if due else None)
            keys = [event.event_key for event in events]
            self._events.assign(session, keys, batch_id=batch.batch_id)
        self._just_rebuilt = due
        return _Sealed(batch, events, replay)

    def _is_rebuild_due(self) -> bool:
        """As ``BatchStore.num_updates_since_rebuild`` counts, for the next update."""
        number = 0 if self._just_rebuilt else self._num_since_rebuild
        return self._settings.trainer.rebuild.is_due(number) and self.champion != self._frozen

    def _seal(
        self,
        events: Sequence[ScreenedEvent],
        replay: Sequence[ReplayExample],
        *,
        start: Digest | None = None,
    ) -> SealedBatch:
        return seal_batch(
            events,
            policy=POLICY,
            parent=self.champion,
            start=start,
            replay=replay,
            watermark={},
            sealed_at=START,
        )

    def _update(self, sealed: _Sealed) -> Digest:
        verify_batch(*sealed)
        settings = self._trainer_of(sealed.batch)
        precision = resolve_precision(settings.precision, fast_bf16=has_fast_bf16("cpu"))
        job = UpdateJob(
            sealed.batch.trained_from,
            tuple(sealed.events),
            tuple(sealed.replay),
            settings.model_copy(
                update={
                    "precision": precision,
                    "kl_reference": settings.kl_anchor(sealed.batch.trained_from, self._frozen)
                    or settings.kl_reference,
                }
            ),
        )
        *_, weights = self._session.run(job)
        assert isinstance(weights, str)
        return weights

    def _trainer_of(self, batch: SealedBatch) -> TrainerSettings:
        settings = self._settings.trainer
        return settings if batch.start is None else settings.of_rebuild()

    def _choose(
        self, parent: Digest, trained: Digest, batch: SealedBatch
    ) -> tuple[Digest, float, bool | None]:
        """Weights of the variant that is taken, its share, and whether it was shown to stand."""
        alphas = self._trainer_of(batch).interpolation_alphas
        if alphas == (1.0,):
            return trained, 1.0, None
        build = partial(interpolate, self._store, parent=parent, trained=trained)
        choice = self._chooser.choose(
            alphas,
            trained=trained,
            build=lambda alpha: build(alpha=alpha),
            champion=parent,
            suites=[self._suite],
            from_smallest=batch.start is not None,
        )
        found = {each.alpha: each.stands for each in choice.variants}
        stands = found.get(choice.alpha, False) if found else None
        return build(alpha=choice.alpha), choice.alpha, stands

"""From feedback to a candidate: a batch is sealed, trained on, and as much of it taken as is safe.

In: a cycle in ``collecting`` or ``training``, and accepted events. Out: the cycle one state on.
"""

from collections.abc import Callable

from sqlalchemy.orm import Session

from evaluator.evaluate import OnProgress
from evaluator.suites import load_suites
from tacit.consolidation import folds_behind
from tacit.contracts import (
    Digest,
    Fold,
    PolicyCandidate,
    SealedBatch,
    Suite,
    VariantChoice,
    short,
    utc_now,
)
from tacit.cycles import CycleRow, CycleState
from tacit.errors import TrainingError
from tacit.rehearsal import rehearse
from tacit.stages import Stages, known
from trainer.interpolate import interpolate
from trainer.progress import StepMetrics
from trainer.replay import num_replay
from trainer.seal import seal_batch, seal_consolidation


class Learning:
    """Seals and trains the batch of a cycle."""

    def __init__(
        self,
        stages: Stages,
        *,
        on_step: Callable[[StepMetrics], None],
        on_evaluation: OnProgress,
    ) -> None:
        self._stages = stages
        self._on_step = on_step
        self._on_evaluation = on_evaluation

    def seal(self, cycle: CycleRow) -> None:
        """Give this cycle its batch: the events that wait, and what is rehearsed beside them.

        Does nothing if the cycle has got another purpose meanwhile. What the anchor refutes goes to
        quarantine; if that leaves too little for a batch, the cycle goes on collecting.
        """
        stages = self._stages
        settings = stages.settings
        champion = stages.champion()
        waiting = min(stages.events.count_trainable(stages.policy), settings.loop.max_events)
        start = self._start(champion)
        # The champion answers before the transaction, which keeps others from writing.
        rehearsal = rehearse(
            stages,
            champion,
            number=self._num_replay(waiting) if start == champion else 0,
            seed=settings.trainer.seed + cycle.number,
            num_waiting=settings.loop.max_events,
        )
        contradicted = rehearsal.contradicted
        with stages.database.session() as session:
            if stages.cycles.purpose(session, cycle) != cycle.purpose:
                return
            stages.events.refute(session, stages.policy, contradicted.refuted)
            if contradicted.refuted and self._are_too_few(session):
                return
            events = stages.events.take(
                session,
                stages.policy,
                limit=settings.loop.max_events,
                factors=contradicted.factors,
                only=rehearsal.waiting,
            )
            number = self._num_replay(len(events))
            if start != champion:
                number = rehearsal.whole(settings.trainer.rebuild.num_examples)
            replay = rehearsal.draw(number)
            batch = seal_batch(
                events,
                policy=stages.policy,
                parent=champion,
                start=start,
                replay=replay,
                watermark=stages.events.watermark(session),
                sealed_at=utc_now(),
            )
            stages.batches.add(session, batch, replay)
            keys = [event.event_key for event in events]
            stages.events.assign(session, keys, batch_id=batch.batch_id)
            stages.cycles.move(
                session, cycle, CycleState.TRAINING, batch_id=batch.batch_id, champion=champion
            )

    def _are_too_few(self, session: Session) -> bool:
        stages = self._stages
        waiting = stages.events.count_trainable(stages.policy, session=session)
        return waiting < stages.settings.loop.min_events

    def _start(self, champion: Digest) -> Digest:
        """The checkpoint that the next update of ``champion`` starts from."""
        stages = self._stages
        chosen = stages.settings.trainer.rebuild
        if chosen.every == 0:
            return champion
        promoted = {made.batch_id for made in stages.candidates.lineage(champion)}
        number = stages.batches.num_updates_since_rebuild(
            stages.policy, promoted, at_most=chosen.every
        )
        if not chosen.is_due(number):
            return champion
        return stages.releases.anchor(stages.policy) or champion

    def _num_replay(self, num_events: int) -> int:
        return num_replay(num_events, self._stages.settings.trainer.replay.share)

    def seal_consolidation(self, cycle: CycleRow) -> None:
        """Give this cycle a batch without events: what the champion, an adapter, is distilled on.

        Raises TrainingError if the champion is no adapter, as after a rollback.
        """
        stages = self._stages
        settings = stages.settings.trainer
        champion = stages.champion()
        if stages.checkpoints.manifest(champion).base is None:
            raise TrainingError("a promoted adapter to fold", got=f"{champion}, a full checkpoint")
        number = settings.consolidation.num_examples
        seed = settings.seed + cycle.number
        rehearsal = rehearse(stages, champion, number=number, seed=seed)
        replay = rehearsal.draw(min(number, len(rehearsal.pool)))
        with stages.database.session() as session:
            batch = seal_consolidation(
                policy=stages.policy,
                parent=champion,
                replay=replay,
                watermark=stages.events.watermark(session),
                sealed_at=utc_now(),
            )
            stages.batches.add(session, batch, replay)
            stages.cycles.move(
                session, cycle, CycleState.TRAINING, batch_id=batch.batch_id, champion=champion
            )

    def train(self, cycle: CycleRow) -> None:
        """Make the candidate of the sealed batch and register it in MLflow.

        An update is trained, and the share of it taken that forgets nothing; a consolidation is
        taken whole.
        """
        if self.give_up_overtaken(cycle):
            return
        stages = self._stages
        run_id = stages.chronicle.open(cycle)
        suites = load_suites(stages.settings.suites_path)
        batch, replay = stages.batches.get(known(cycle.batch_id))
        events = stages.events.events_of(batch.batch_id)
        stages.chronicle.note_batch(run_id, batch, replay)

        with stages.chronicle.live(run_id) as live:

            def on_step(step: StepMetrics) -> None:
                live.log(step.metrics, step=step.step)
                self._on_step(step)

            trained = stages.trainer.update(
                batch,
                events,
                replay,
                on_step=on_step,
                anchor=stages.releases.anchor(stages.policy),
            )
        weights, choice = self._choose(batch, trained.weights, suites)
        candidate = PolicyCandidate(
            policy=stages.policy,
            weights=weights,
            parent=batch.parent,
            batch_digest=batch.digest(),
            config=trained.config,
            seed=trained.seed,
            world_size=trained.world_size,
            versions=trained.versions,
            metrics=trained.metrics,
            choice=choice,
            folds=self._folds(batch),
            mlflow_run_id=run_id,
            created_at=utc_now(),
        )
        stages.chronicle.note_candidate(run_id, candidate)
        with stages.database.session() as session:
            stages.candidates.add(session, candidate)
            stages.cycles.move(
                session, cycle, CycleState.EVALUATING, candidate_id=candidate.candidate_id
            )

    def give_up_overtaken(self, cycle: CycleRow) -> bool:
        """Fail a cycle whose parent serves no more, as after a rollback; whether it did.

        Nothing is wrong with its feedback: the next batch learns from it, on what serves now.
        """
        stages = self._stages
        champion = stages.champion()
        if cycle.champion in {None, champion}:
            return False
        before = short(known(cycle.champion))
        reason = f"{short(champion)} serves now, and not {before}, which it learns on top of"
        with stages.database.session() as session:
            stages.events.release_batch(session, known(cycle.batch_id))
            stages.cycles.move(session, cycle, CycleState.FAILED, reason=reason)
        return True

    def _folds(self, batch: SealedBatch) -> tuple[Fold, ...]:
        if batch.purpose != "consolidation":
            return ()
        return folds_behind(self._stages.candidates, self._stages.checkpoints, batch.parent)

    def _choose(
        self, batch: SealedBatch, trained: Digest, suites: list[Suite]
    ) -> tuple[Digest, VariantChoice | None]:
        """The variant between parent and trained policy that becomes the candidate."""
        stages = self._stages
        settings = stages.settings.trainer
        if batch.start is not None:
            settings = settings.of_rebuild()
        alphas = settings.interpolation_alphas
        if alphas == (1.0,) or batch.purpose == "consolidation":
            return trained, None

        def build(alpha: float) -> Digest:
            return interpolate(
                stages.checkpoints, parent=batch.parent, trained=trained, alpha=alpha
            )

        choice = stages.chooser.choose(
            alphas,
            trained=trained,
            build=build,
            champion=batch.parent,
            suites=suites,
            from_smallest=batch.start is not None,
            on_progress=self._on_evaluation,
        )
        return build(choice.alpha), choice

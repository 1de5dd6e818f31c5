"""From feedback to a candidate: a batch is sealed, trained on, and as much of it taken as is safe.

In: a cycle in ``collecting`` or ``training``, and accepted events. Out: the cycle one state on.
"""

from collections.abc import Callable

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

        Does nothing if the cycle has got another purpose meanwhile.
        """
        stages = self._stages
        settings = stages.settings
        champion = stages.champion()
        share = settings.trainer.replay.share
        waiting = min(stages.events.count_trainable(stages.policy), settings.loop.max_events)
        # The champion answers before the transaction, which keeps others from writing.
        rehearsal = rehearse(
            stages,
            champion,
            number=num_replay(waiting, share),
            seed=settings.trainer.seed + cycle.number,
        )
        with stages.database.session() as session:
            if stages.cycles.purpose(session, cycle) != cycle.purpose:
                return
            events = stages.events.take(session, stages.policy, limit=settings.loop.max_events)
            replay = rehearsal.draw(num_replay(len(events), share))
            batch = seal_batch(
                events,
                policy=stages.policy,
                parent=champion,
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

            trained = stages.trainer.update(batch, events, replay, on_step=on_step)
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

    def _folds(self, batch: SealedBatch) -> tuple[Fold, ...]:
        if batch.purpose != "consolidation":
            return ()
        return folds_behind(self._stages.candidates, self._stages.checkpoints, batch.parent)

    def _choose(
        self, batch: SealedBatch, trained: Digest, suites: list[Suite]
    ) -> tuple[Digest, VariantChoice | None]:
        """The variant between parent and trained policy that becomes the candidate."""
        stages = self._stages
        alphas = stages.settings.trainer.interpolation_alphas
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
            on_progress=self._on_evaluation,
        )
        return build(choice.alpha), choice

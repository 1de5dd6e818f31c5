"""The whole of Tacit on one page: feedback in, an approved checkpoint out, over and over.

    collecting         the collector screens what products send, until there is enough to learn from
    → training         a batch is sealed; warm workers turn it into a candidate checkpoint
    → evaluating       the candidate answers every suite next to the champion and the frozen anchor
    → awaiting_decision the gate has its verdict; a person has the last word
    → promoting        a signed release is made; serving verifies it and swaps to it
    → promoted | rejected | failed

This is the one module that imports all five stages. No stage knows another: each takes contracts
and returns contracts, and the loop hands them on. A cycle's state stands in the database and moves
in the same transaction as the work it stands for, so that a loop killed anywhere and started again
goes on from where it was.
"""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

from sqlalchemy.orm import Session

from collector.consume import Consumer
from collector.store import EventStore
from collector.streams import Stream, open_stream
from deploy.release import ReleaseDesk
from evaluator.choose import VariantChooser
from evaluator.evaluate import Evaluator
from evaluator.store import ReportStore
from evaluator.suites import harvest_suite, load_suites
from gatekeeper.decide import Gatekeeper
from gatekeeper.gate import judge
from gatekeeper.ledger import Ledger
from gatekeeper.policy import load_gate_policy
from tacit import log
from tacit.checkpoints import CheckpointStore
from tacit.chronicle import Chronicle
from tacit.config import Settings
from tacit.contracts import (
    DecisionOutcome,
    Digest,
    GateVerdict,
    PolicyCandidate,
    ReplayExample,
    SealedBatch,
    Suite,
    VariantChoice,
    VerdictOutcome,
    utc_now,
)
from tacit.cycles import CycleRow, CycleState, CycleStore, LostCycleError
from tacit.database import Database
from tacit.errors import ConflictError, TacitError, TrainingError
from tacit.signing import Signer
from tacit.tracking import Tracking
from trainer.interpolate import interpolate
from trainer.replay import accepted_examples, load_anchor, sample_replay
from trainer.seal import seal_batch
from trainer.store import BatchStore, CandidateStore
from trainer.update import PolicyTrainer, StepMetrics

logger = logging.getLogger(__name__)

REPLICA_ALIVE = timedelta(seconds=15)
MAX_HOLDOUT_EVENTS = 2_000
MAX_REHEARSED_EVENTS = 2_000


class LoopObserver:
    """Is told what the loop does; the terminal's progress bars are one. Does nothing by itself."""

    def on_state(self, cycle: CycleRow) -> None:
        """``cycle`` has just reached its state; called once per state, after the commit."""

    def on_step(self, step: StepMetrics) -> None:
        """One optimizer step is done."""

    def on_evaluation(self, suite: str, done: int, total: int) -> None:
        """``done`` of ``total`` items of ``suite`` are answered."""


class OnlineLoop:
    """Runs cycles of one policy line. Use as a context manager: it keeps workers warm.

    ``screens``: it also screens, in a thread; False where a screening process does
    (``tacit/screening.py``).
    """

    def __init__(
        self, settings: Settings, *, observer: LoopObserver | None = None, screens: bool = True
    ) -> None:
        self.settings = settings
        self.policy = settings.policy
        self.observer = observer or LoopObserver()
        self.database = Database(settings.resolved_database_url)
        self.database.migrate()
        signer = Signer.load_or_create(settings.keys_path)
        self.checkpoints = CheckpointStore(settings.checkpoints_path)
        self.ledger = Ledger(self.database, signer)
        self.cycles = CycleStore(self.database)
        self.events = EventStore(self.database)
        self.batches = BatchStore(self.database)
        self.candidates = CandidateStore(self.database)
        self.reports = ReportStore(self.database)
        self.trainer = PolicyTrainer(settings.trainer, self.checkpoints)
        self.evaluator = Evaluator(settings.evaluator, self.checkpoints, self.database)
        self.chooser = VariantChooser(settings.evaluator, self.checkpoints, self.database)
        self.gatekeeper = Gatekeeper(self.database, signer, self.ledger, settings.gatekeeper)
        self.releases = ReleaseDesk(self.database, self.checkpoints, signer, self.ledger.append)
        self.chronicle = Chronicle(settings, Tracking(settings.tracking_uri), self.cycles)
        self._stop = threading.Event()
        self._screens = screens
        self._screening: threading.Thread | None = None
        self._steps: dict[CycleState, Callable[[CycleRow], None]] = {
            CycleState.COLLECTING: self._collect,
            CycleState.TRAINING: self._train,
            CycleState.EVALUATING: self._evaluate,
            CycleState.AWAITING_DECISION: self._await_decision,
            CycleState.PROMOTING: self._promote,
        }

    # Starting and stopping

    def __enter__(self) -> "OnlineLoop":
        if not self.settings.collector.screening.enabled:
            with self.database.session() as session:
                self.ledger.append(session, "screening_disabled", self.policy, {})
            logger.warning("Screening is switched off: every well-formed event is accepted")
        if self._screens:
            stream = open_stream(self.settings)
            self._screening = threading.Thread(target=self._screen, args=(stream,), daemon=True)
            self._screening.start()
        self.trainer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if self._screening is not None:
            self._screening.join(timeout=30)
        self.trainer.stop()
        self.database.dispose()

    def stop(self) -> None:
        """Let :meth:`run_forever` and :meth:`run_cycle` return at the next chance."""
        self._stop.set()

    def begin(self, first_policy: Callable[[], Digest], *, by: str) -> None:
        """Make the first release, which is also the frozen anchor, unless there is one."""
        if self.releases.current(self.policy) is None:
            weights = first_policy()
            with self.database.session() as session:
                approval = self.gatekeeper.genesis(session, self.policy, weights, by=by)
                self.releases.first(session, self.policy, approval.envelope, by=by)
        self.chronicle.note_anchor(self.releases.anchor(self.policy))
        self.chronicle.follow_champion(self._champion())

    # The cycle

    def run_forever(self) -> None:
        """Run cycles until stopped; a failed one is followed by a pause that grows."""
        failures = 0
        while not self._stop.is_set():
            cycle = self.run_cycle()
            failures = failures + 1 if cycle.state == CycleState.FAILED else 0
            if failures:
                self._stop.wait(min(2.0**failures, 300.0))

    def run_cycle(self) -> CycleRow:
        """Take the cycle under way, or a new one, to its end, and return it.

        Returns early, in whatever state it is, when the loop is stopped.
        """
        self._close_last()
        cycle = self.cycles.resume_or_open(self.policy)
        log.cycle_id.set(cycle.cycle_id)
        self.observer.on_state(cycle)
        while not CycleState(cycle.state).terminal and not self._stop.is_set():
            before = cycle.state
            self._advance(cycle)
            cycle = self.cycles.get(cycle.cycle_id)
            if cycle.state != before:
                logger.info("%s → %s %s", before, cycle.state, cycle.reason or "")
                self.observer.on_state(cycle)
        self._close_last()
        return cycle

    def _advance(self, cycle: CycleRow) -> None:
        """One step; errors are tried again a few times, then the cycle fails with the reason."""
        try:
            self._steps[CycleState(cycle.state)](cycle)
        except LostCycleError:
            raise
        except Exception as error:  # the edge of the loop: nothing may end it but a stop
            logger.exception("%s failed in %s", cycle.cycle_id, cycle.state)
            self._note_failure(cycle, error)

    def _note_failure(self, cycle: CycleRow, error: Exception) -> None:
        attempts = cycle.attempts + 1
        # What the data did to the update, trying again will do again.
        hopeless = isinstance(error, TrainingError)
        if attempts < self.settings.loop.max_attempts and not hopeless:
            self.cycles.note(cycle, attempts=attempts)
            self._stop.wait(self.settings.loop.poll_s * attempts)
            return
        reason = str(error) if isinstance(error, TacitError) else f"{type(error).__name__}: {error}"
        with self.database.session() as session:
            if cycle.batch_id is not None and hopeless:
                self.events.set_aside(session, [cycle.batch_id], reason="failed_cycle")
            elif cycle.batch_id is not None:
                self.events.release_batch(session, cycle.batch_id)
            self.cycles.move(session, cycle, CycleState.FAILED, reason=reason)

    def _collect(self, cycle: CycleRow) -> None:
        """Wait for enough feedback, then seal it into the batch of this cycle."""
        self.chronicle.follow_champion(self._champion())
        if self.events.count_trainable(self.policy) < self.settings.loop.min_events:
            self._stop.wait(self.settings.loop.poll_s)
            return
        champion = self._champion()
        rehearsal = self._rehearsal()
        with self.database.session() as session:
            events = self.events.take(session, self.policy, limit=self.settings.loop.max_events)
            replay = sample_replay(
                rehearsal,
                num_events=len(events),
                share=self.settings.trainer.replay.share,
                seed=self.settings.trainer.seed + cycle.number,
            )
            batch = seal_batch(
                events,
                policy=self.policy,
                parent=champion,
                replay=replay,
                watermark=self.events.watermark(session),
                sealed_at=utc_now(),
            )
            self.batches.add(session, batch, replay)
            keys = [event.event_key for event in events]
            self.events.assign(session, keys, batch_id=batch.batch_id)
            self.cycles.move(
                session, cycle, CycleState.TRAINING, batch_id=batch.batch_id, champion=champion
            )

    def _train(self, cycle: CycleRow) -> None:
        """Update the policy on the sealed batch and take the share of it that forgets nothing.

        The candidate is registered in MLflow.
        """
        run_id = self.chronicle.open(cycle)
        suites = load_suites(self.settings.suites_path)
        batch, replay = self.batches.get(_known(cycle.batch_id))
        events = self.events.events_of(batch.batch_id)
        self.chronicle.note_batch(run_id, batch)

        with self.chronicle.live(run_id) as live:

            def on_step(step: StepMetrics) -> None:
                live.log(step.metrics, step=step.step)
                self.observer.on_step(step)

            trained = self.trainer.update(batch, events, replay, on_step=on_step)
        weights, choice = self._choose(batch, trained.weights, suites)
        candidate = PolicyCandidate(
            policy=self.policy,
            weights=weights,
            parent=batch.parent,
            batch_digest=batch.digest(),
            config=trained.config,
            seed=trained.seed,
            world_size=trained.world_size,
            versions=trained.versions,
            metrics=trained.metrics,
            choice=choice,
            mlflow_run_id=run_id,
            created_at=utc_now(),
        )
        self.chronicle.note_candidate(run_id, candidate)
        with self.database.session() as session:
            self.candidates.add(session, candidate)
            self.cycles.move(
                session, cycle, CycleState.EVALUATING, candidate_id=candidate.candidate_id
            )

    def _choose(
        self, batch: SealedBatch, trained: Digest, suites: list[Suite]
    ) -> tuple[Digest, VariantChoice | None]:
        """The variant between parent and trained policy that becomes the candidate."""
        alphas = self.settings.trainer.interpolation_alphas
        if alphas == (1.0,):
            return trained, None

        def build(alpha: float) -> Digest:
            return interpolate(self.checkpoints, parent=batch.parent, trained=trained, alpha=alpha)

        choice = self.chooser.choose(
            alphas,
            trained=trained,
            build=build,
            champion=batch.parent,
            suites=suites,
            on_progress=self.observer.on_evaluation,
        )
        return build(choice.alpha), choice

    def _evaluate(self, cycle: CycleRow) -> None:
        """Measure the candidate against champion and anchor, and let the gate judge the report."""
        run_id = self.chronicle.open(cycle)
        candidate = self.candidates.get(_known(cycle.candidate_id))
        report = self.evaluator.evaluate(
            candidate,
            champion=candidate.parent,
            anchor=self.releases.anchor(self.policy),
            suites=self._suites(),
            learned=self.events.events_of(_known(cycle.batch_id)),
            on_progress=self.observer.on_evaluation,
        )
        gate_policy = load_gate_policy(self.settings.gatekeeper.gate_policy_path)
        verdict = judge(candidate, report, gate_policy)
        self.chronicle.note_evidence(run_id, report, verdict)
        with self.database.session() as session:
            self.reports.add(session, report)
            self.gatekeeper.submit(session, candidate, verdict)
            if verdict.outcome is VerdictOutcome.FAIL:
                self.gatekeeper.reject_failed(session, candidate.candidate_id)
                self._reject(session, cycle, _failures(verdict), report_id=report.report_id)
            else:
                self.cycles.move(
                    session, cycle, CycleState.AWAITING_DECISION, report_id=report.report_id
                )

    def _await_decision(self, cycle: CycleRow) -> None:
        """Wait for a person; an approval that nobody gives in time is a rejection."""
        candidate = self.candidates.get(_known(cycle.candidate_id))
        signed = self.gatekeeper.decision_on(candidate.digest())
        if signed is None:
            self._stop.wait(self.settings.loop.poll_s)
            return
        decision = signed.decision
        with self.database.session() as session:
            if decision.outcome is DecisionOutcome.APPROVED:
                self.cycles.move(session, cycle, CycleState.PROMOTING)
            else:
                self._reject(session, cycle, f"{decision.decided_by}: {decision.reason}")

    def _promote(self, cycle: CycleRow) -> None:
        """Make the release, then wait until every live replica serves it or one refuses it."""
        candidate = self.candidates.get(_known(cycle.candidate_id))
        signed = self.gatekeeper.decision_on(candidate.digest())
        if signed is None:
            raise ConflictError("a decision on a candidate that is being promoted", got="none")
        if cycle.release_id is None:
            batch, _ = self.batches.get(_known(cycle.batch_id))
            report = self.reports.get(_known(cycle.report_id))
            with self.database.session() as session:
                release = self.releases.promote(
                    session,
                    candidate,
                    report,
                    batch,
                    signed.envelope,
                    by=signed.decision.decided_by,
                )
                self.cycles.move(
                    session, cycle, CycleState.PROMOTING, release_id=release.release_id
                )
            return
        self._settle(cycle, cycle.release_id)

    def _settle(self, cycle: CycleRow, release_id: str) -> None:
        replicas = self.releases.replicas(self.policy)
        alive = [r for r in replicas if utc_now() - r.seen_at < REPLICA_ALIVE]
        refused = next((r for r in alive if r.refused == release_id), None)
        waited_s = (utc_now() - cycle.updated_at).total_seconds()
        late = waited_s > self.settings.deploy.swap_timeout_s
        # A replica that loads for long is silent meanwhile: silence is waited for, then ignored.
        served = all(r.serving == release_id for r in alive) and (alive or not replicas or late)
        if refused is not None:
            self._take_back(cycle, release_id, refused.refusal or "serving refused it")
        elif served:
            with self.database.session() as session:
                self.cycles.move(session, cycle, CycleState.PROMOTED)
            self.chronicle.follow_champion(self._champion())
        elif late:
            self._take_back(cycle, release_id, "serving did not load it in time")
        else:
            self._stop.wait(min(self.settings.loop.poll_s, 0.1))

    def _take_back(self, cycle: CycleRow, release_id: str, reason: str) -> None:
        with self.database.session() as session:
            current = self.releases.current(self.policy)
            if current is not None and current.release_id == release_id:
                self.releases.rollback(session, self.policy, to=None, by="tacit", reason=reason)
            self.events.set_aside(session, [_known(cycle.batch_id)], reason="failed_release")
            self.cycles.move(session, cycle, CycleState.FAILED, reason=reason)

    def _reject(
        self, session: Session, cycle: CycleRow, reason: str, *, report_id: str | None = None
    ) -> None:
        # Feedback behind a rejected candidate waits for a person rather than for the next cycle.
        self.events.set_aside(session, [_known(cycle.batch_id)], reason="rejected_candidate")
        fields = {} if report_id is None else {"report_id": report_id}
        self.cycles.move(session, cycle, CycleState.REJECTED, reason=reason, **fields)

    # What the steps need

    def _close_last(self) -> None:
        """Close the MLflow run of the cycle that ended last, in this life of the loop or before."""
        ended = self.cycles.last_ended(self.policy)
        if ended is not None:
            made = ended.candidate_id and self.candidates.get(ended.candidate_id)
            self.chronicle.close(ended, made.weights if made else None)

    def _screen(self, stream: Stream) -> None:
        Consumer(self.database, stream, self.settings).run(self._stop)
        stream.close()

    def _champion(self) -> Digest:
        current = self.releases.current(self.policy)
        if current is None:
            raise ConflictError(
                "a first release", got="none", mend="Start with `tacit up --model PATH_OR_HUB_ID`."
            )
        return current.weights

    def _rehearsal(self) -> list[ReplayExample]:
        """Anchor prompts and what earlier promoted batches taught."""
        path = self.settings.anchor_path
        anchor = load_anchor(path) if path.exists() else []
        lineage = self.candidates.lineage(self._champion())
        batches = [made.batch_id for made in lineage]
        learned = self.events.learned(self.policy, limit=MAX_REHEARSED_EVENTS, batch_ids=batches)
        return [*anchor, *accepted_examples(learned)]

    def _suites(self) -> list[Suite]:
        suites = load_suites(self.settings.suites_path)
        held_out = self.events.holdout(self.policy, limit=MAX_HOLDOUT_EVENTS)
        harvested = harvest_suite(held_out, min_items=self.settings.evaluator.min_holdout_items)
        return suites if harvested is None else [*suites, harvested]


def _failures(verdict: GateVerdict) -> str:
    rows = [row for row in verdict.criteria if row.outcome is VerdictOutcome.FAIL]
    return "gate: " + "; ".join(f"{row.name}: {row.why}" for row in rows)


def _known(value: str | None) -> str:
    if value is None:
        raise ConflictError("a cycle that knows what its earlier states made", got="nothing")
    return value

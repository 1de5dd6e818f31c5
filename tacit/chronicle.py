"""What MLflow is told about a cycle, step by step, and what its aliases point at.

Opening a run, registering a candidate and logging evidence are part of a cycle's steps: while
MLflow is away they fail and the loop tries again. Closing runs and moving the champion alias only
follow what has happened, so they are put off with a warning and done the next time.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager

from mlflow.exceptions import MlflowException

from evaluator.page import render_report
from tacit.config import Settings, public_dump
from tacit.contracts import (
    Decision,
    Digest,
    EvalReport,
    GateVerdict,
    PolicyCandidate,
    ReplayExample,
    ReportOutline,
    SealedBatch,
    VariantChoice,
)
from tacit.cycles import CycleRow, CycleState, CycleStore
from tacit.tracking import Alias, LiveMetrics, MetricName, Tracking

logger = logging.getLogger(__name__)


class Chronicle:
    """Writes the cycles of one policy line into MLflow; every method may be repeated."""

    def __init__(self, settings: Settings, tracking: Tracking, cycles: CycleStore) -> None:
        self.tracking = tracking
        self._settings = settings
        self._policy = settings.policy
        self._cycles = cycles
        self._closed: str | None = None
        self._champion: Digest | None = None

    def open(self, cycle: CycleRow) -> str:
        """The run of ``cycle``, opened with the resolved settings where there is none."""
        if cycle.mlflow_run_id is None:
            run_id = self.tracking.start_cycle(self._policy, cycle.cycle_id)
            self.tracking.log_config(run_id, public_dump(self._settings))
            self._cycles.note(cycle, mlflow_run_id=run_id)
            cycle.mlflow_run_id = run_id
        return cycle.mlflow_run_id

    def note_batch(self, run_id: str, batch: SealedBatch, replay: Sequence[ReplayExample]) -> None:
        """The manifest, its sizes, where its replay comes from, and what training starts from."""
        self.tracking.log_contract(run_id, "batch.json", batch)
        origins = Counter(example.origin for example in replay)
        sizes = {
            MetricName.NUM_EVENTS.value: len(batch.entries),
            MetricName.NUM_REPLAY.value: len(replay),
            MetricName.REPLAY_ANCHOR.value: origins["anchor"],
            MetricName.REPLAY_ACCEPTED.value: origins["accepted"],
            MetricName.REPLAY_INFERRED.value: origins["inferred"],
            MetricName.REPLAY_ON_POLICY.value: origins["on_policy"],
        }
        self.tracking.log_metrics(run_id, {name: float(size) for name, size in sizes.items()})
        self.tracking.set_tags(run_id, {"tacit.start": batch.trained_from})

    def live(self, run_id: str) -> AbstractContextManager[LiveMetrics]:
        """Metrics of a training under way."""
        return self.tracking.live(run_id)

    def note_candidate(self, run_id: str, candidate: PolicyCandidate) -> None:
        """The candidate as a model version with the alias ``candidate``."""
        version = self.tracking.register(self._policy, candidate.weights, run_id=run_id)
        self.tracking.set_alias(self._policy, Alias.CANDIDATE, version)
        self.tracking.log_contract(run_id, "candidate.json", candidate)
        if candidate.choice is not None:
            self._note_choice(run_id, candidate.choice)

    def _note_choice(self, run_id: str, choice: VariantChoice) -> None:
        """What each variant was measured at, against its alpha in percent, and which was taken."""
        self.tracking.log_metrics(run_id, {MetricName.ALPHA.value: choice.alpha})
        self.tracking.set_tags(run_id, {"tacit.choice": choice.reason})
        for variant in choice.variants:
            found = variant.versus_champion.items()
            differences = {f"variant/{suite}": versus.difference for suite, versus in found}
            step = round(100 * variant.alpha)
            self.tracking.log_metrics(
                run_id, {**differences, MetricName.STANDS.value: float(variant.stands)}, step=step
            )

    def note_evidence(
        self,
        run_id: str,
        report: EvalReport,
        verdict: GateVerdict,
        history: Sequence[ReportOutline] = (),
    ) -> None:
        """Report, page, verdict and the figures in them; ``history`` are the reports before."""
        self.tracking.log_contract(run_id, "report.json", report)
        page = render_report(report, verdict=verdict, history=history)
        self.tracking.log_text(run_id, "report.html", page)
        self.tracking.log_contract(run_id, "verdict.json", verdict)
        self.tracking.log_metrics(run_id, evaluation_metrics(report))
        if verdict.campaign is not None:
            self.tracking.log_metrics(run_id, {MetricName.ALPHA_LEFT.value: verdict.campaign.left})
        self.tracking.set_tags(run_id, {"tacit.verdict": verdict.outcome})

    def note_decision(self, cycle: CycleRow, weights: Digest, decision: Decision) -> None:
        """Who decided and what they overrode, on the run and on the model version."""
        tags = {
            "tacit.decision.outcome": decision.outcome.value,
            "tacit.decision.by": decision.decided_by,
            "tacit.decision.reason": decision.reason,
        }
        if decision.overrides:
            tags["tacit.decision.overrides"] = ", ".join(decision.overrides)
        try:
            run_id = self.open(cycle)
            self.tracking.log_contract(run_id, "decision.json", decision)
            self.tracking.set_tags(run_id, tags)
            self.tracking.tag_version(self._policy, weights, tags)
        except MlflowException as error:
            # The ledger has it; a decision does not wait for MLflow.
            logger.warning("the decision on %s is not in MLflow: %s", cycle.cycle_id, error)

    def note_rollout(self, cycle: CycleRow, why: str) -> None:
        """The last move of a rollout and its reason, on the run of the cycle."""
        if cycle.mlflow_run_id is None:
            return
        try:
            self.tracking.set_tags(cycle.mlflow_run_id, {"tacit.rollout": why})
        except MlflowException as error:
            logger.warning("the rollout of %s is not in MLflow: %s", cycle.cycle_id, error)

    def note_anchor(self, weights: Digest) -> None:
        """The alias ``anchor``."""
        version = self.tracking.register(self._policy, weights)
        self.tracking.set_alias(self._policy, Alias.ANCHOR, version)

    def close(self, cycle: CycleRow, weights: Digest | None) -> None:
        """End the run of an ended cycle; ``weights`` are those of its candidate, if it made one."""
        if cycle.mlflow_run_id is None or cycle.cycle_id == self._closed:
            return
        tags = {"tacit.state": cycle.state, "tacit.reason": cycle.reason or ""}
        try:
            self.tracking.set_tags(cycle.mlflow_run_id, tags)
            if weights is not None:
                self.tracking.tag_version(self._policy, weights, {"tacit.state": cycle.state})
                self._retire_candidate(weights)
            failed = cycle.state == CycleState.FAILED
            self.tracking.end_cycle(cycle.mlflow_run_id, failed=failed)
        except MlflowException as error:
            logger.warning("the run of %s is not closed yet: %s", cycle.cycle_id, error)
            return
        self._closed = cycle.cycle_id

    def _retire_candidate(self, weights: Digest) -> None:
        # A restarted loop closes the last cycle again while a later candidate may be waiting.
        if self.tracking.alias_weights(self._policy, Alias.CANDIDATE) == weights:
            self.tracking.clear_alias(self._policy, Alias.CANDIDATE)

    def follow_champion(self, weights: Digest) -> None:
        """The alias ``champion`` on what serves, after promotions and rollbacks alike."""
        if weights == self._champion:
            return
        try:
            version = self.tracking.register(self._policy, weights)
            self.tracking.set_alias(self._policy, Alias.CHAMPION, version)
        except MlflowException as error:
            logger.warning("the champion alias is not moved yet: %s", error)
            return
        self._champion = weights


def evaluation_metrics(report: EvalReport) -> dict[str, float]:
    """Accuracies and probes of a report under the names they have in MLflow."""
    metrics = {f"probe/{probe.name}": probe.observed for probe in report.probes}
    for suite in report.suites:
        metrics[f"eval/{suite.name}/candidate"] = suite.candidate
        metrics[f"eval/{suite.name}/champion"] = suite.champion
        metrics[f"eval/{suite.name}/anchor"] = suite.anchor
        metrics[f"eval/{suite.name}/num_items"] = float(suite.num_items)
    return metrics

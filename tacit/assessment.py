"""From a candidate to the decision on it: measured, judged by the gate, decided on by a person.

In: a cycle in ``evaluating`` or ``awaiting_decision``. Out: the cycle one state on or ``rejected``,
and then its feedback set aside, or given back where nobody turned the candidate away.
"""

from collections.abc import Callable

from sqlalchemy.orm import Session

from evaluator.calibration import read_calibrations
from evaluator.canaries import read_canaries
from evaluator.evaluate import OnProgress
from gatekeeper.gate import judge
from gatekeeper.policy import load_gate_policy
from tacit.contracts import DecisionOutcome, GateVerdict, VerdictOutcome
from tacit.cycles import CycleRow, CycleState
from tacit.stages import Stages, known


class Assessment:
    """Evaluates the candidate of a cycle and waits for the decision on it."""

    def __init__(
        self, stages: Stages, *, wait: Callable[[float], object], on_evaluation: OnProgress
    ) -> None:
        """``wait`` lets seconds pass, or fewer when the loop is stopped."""
        self._stages = stages
        self._wait = wait
        self._on_evaluation = on_evaluation

    def evaluate(self, cycle: CycleRow) -> None:
        """Measure the candidate against champion and anchor, and let the gate judge the report."""
        stages = self._stages
        run_id = stages.chronicle.open(cycle)
        candidate = stages.candidates.get(known(cycle.candidate_id))
        gate_policy = load_gate_policy(stages.settings.gatekeeper.gate_policy_path)
        history = stages.reports.history.of(stages.policy)
        report = stages.evaluator.evaluate(
            candidate,
            champion=candidate.parent,
            anchor=stages.releases.anchor(stages.policy),
            suites=stages.suites(),
            learned=stages.events.events_of(known(cycle.batch_id)),
            earlier=stages.taught_before(candidate.parent),
            calibrations=read_calibrations(stages.settings.suites_path),
            canaries=read_canaries(stages.settings.suites_path),
            tests=gate_policy.tests,
            previous=history[-1] if history else None,
            on_progress=self._on_evaluation,
        )
        share = stages.campaigns.current(stages.policy).share(candidate, report, gate_policy)
        verdict = judge(candidate, report, gate_policy, share=share)
        stages.chronicle.note_evidence(run_id, report, verdict, history)
        with stages.database.session() as session:
            stages.reports.add(session, report)
            newer = candidate.candidate_id
            stages.gatekeeper.supersede(session, stages.policy, by=f"candidate {newer}", but=newer)
            stages.gatekeeper.submit(session, candidate, verdict)
            stages.campaigns.spend(session, stages.policy, candidate.candidate_id, share)
            settled = stages.gatekeeper.settle(session, candidate.candidate_id)
            if settled is not None and settled.decision.outcome is DecisionOutcome.REJECTED:
                self._reject(session, cycle, _failures(verdict), report_id=report.report_id)
            else:
                stages.cycles.move(
                    session, cycle, CycleState.AWAITING_DECISION, report_id=report.report_id
                )

    def await_decision(self, cycle: CycleRow) -> None:
        """Wait for a person; an approval that nobody gives in time is a rejection."""
        stages = self._stages
        candidate = stages.candidates.get(known(cycle.candidate_id))
        stages.tag_decisions.look(candidate)
        signed = stages.gatekeeper.decision_on(candidate.digest())
        if signed is None and candidate.parent != stages.champion():
            with stages.database.session() as session:
                serving = f"{stages.champion()}, which serves now"
                stages.gatekeeper.supersede(session, stages.policy, by=serving)
            return
        if signed is None:
            self._wait(stages.settings.loop.poll_s)
            return
        decision = signed.decision
        stages.chronicle.note_decision(cycle, candidate.weights, decision)
        reason = f"{decision.decided_by}: {decision.reason}"
        with stages.database.session() as session:
            if decision.outcome is DecisionOutcome.APPROVED:
                stages.cycles.move(session, cycle, CycleState.PROMOTING)
            elif decision.outcome is DecisionOutcome.SUPERSEDED:
                # Nobody turned it away: its feedback is for the next, on what serves now.
                stages.events.release_batch(session, known(cycle.batch_id))
                stages.cycles.move(session, cycle, CycleState.REJECTED, reason=reason)
            else:
                self._reject(session, cycle, reason)

    def _reject(
        self, session: Session, cycle: CycleRow, reason: str, *, report_id: str | None = None
    ) -> None:
        stages = self._stages
        # Feedback behind a rejected candidate waits for a person rather than for the next cycle.
        stages.events.set_aside(session, [known(cycle.batch_id)], reason="rejected_candidate")
        fields = {} if report_id is None else {"report_id": report_id}
        stages.cycles.move(session, cycle, CycleState.REJECTED, reason=reason, **fields)


def _failures(verdict: GateVerdict) -> str:
    rows = [row for row in verdict.criteria if row.outcome is VerdictOutcome.FAIL]
    return "gate: " + "; ".join(f"{row.name}: {row.why}" for row in rows)

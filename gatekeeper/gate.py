"""The gate: turns the evidence about a candidate into a verdict.

    PolicyCandidate + EvalReport + GatePolicy ──judge()──▶ GateVerdict ──▶ gatekeeper.decide

1. :func:`judge` first asks whether the evidence is evidence at all: a report, about exactly this
   candidate, these weights and this batch, with no errors in it.
2. Then each criterion of the policy (``gatekeeper.policy``) is measured (``gatekeeper.criteria``).
3. A verdict is inconclusive at best once the campaign's error budget is spent
   (``gatekeeper.campaign``).
4. Any fail fails; else any inconclusive is inconclusive, for a person to weigh; else pass.

The table is always whole: a reviewer sees every row, not the first that failed. Whatever goes
wrong in here becomes a row that fails.
"""

import logging
from collections.abc import Callable, Iterable
from datetime import datetime

from gatekeeper.criteria import FAIL, INCONCLUSIVE, PASS, measure, requirement
from gatekeeper.policy import BUDGET_ROW, GatePolicy
from gatekeeper.rules import Rule
from tacit.contracts import (
    CampaignShare,
    Criterion,
    EvalReport,
    GateVerdict,
    PolicyCandidate,
    VerdictOutcome,
    sha256_digest,
    utc_now,
)

logger = logging.getLogger(__name__)

NO_REPORT = sha256_digest(b"")
"""``report_digest`` of a verdict for which there was no report."""


def judge(
    candidate: PolicyCandidate,
    report: EvalReport | None,
    policy: GatePolicy,
    *,
    share: CampaignShare | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> GateVerdict:
    """The verdict on ``candidate``; never raises for what the report says or lacks.

    ``share`` is what it takes of the campaign's error budget (``gatekeeper.campaign``); None for
    a verdict that nobody will act on.
    """
    rows = _evidence_rows(candidate, report)
    for rule in policy.criteria:
        rows += _rows(rule, report, policy)
    if share is not None:
        rows.append(_budget_row(share))
    return GateVerdict(
        policy=candidate.policy,
        candidate_digest=candidate.digest(),
        report_digest=NO_REPORT if report is None else report.digest(),
        batch_digest=candidate.batch_digest,
        gate_policy_digest=policy.digest(),
        outcome=_worst(row.outcome for row in rows),
        criteria=tuple(rows),
        campaign=share,
        judged_at=clock(),
    )


def _evidence_rows(candidate: PolicyCandidate, report: EvalReport | None) -> list[Criterion]:
    if report is None:
        return [_row("report", "a report on this candidate", "There is no report.", ok=False)]
    about = [
        ("policy line", candidate.policy, report.policy),
        ("candidate", candidate.digest(), report.candidate_digest),
        ("weights", candidate.weights, report.weights),
        ("batch", candidate.batch_digest, report.batch_digest),
    ]
    wrong = [f"its {what} is {got}, not {want}" for what, want, got in about if got != want]
    why = f"The report is about something else: {'; '.join(wrong)}." if wrong else "All four match."
    faults = f"{len(report.errors)} could not be run: {'; '.join(report.errors)}"
    return [
        _row(
            "report",
            "the report is about this candidate, its weights, batch and policy line",
            why,
            ok=not wrong,
        ),
        _row(
            "complete",
            "every suite, checker and probe ran",
            faults if report.errors else "All ran.",
            ok=not report.errors,
        ),
    ]


def _budget_row(share: CampaignShare) -> Criterion:
    spent = f"{share.before:g} of {share.alpha:g} was spent before"
    if share.is_exhausted:
        why = f"{spent}, which leaves too little; until an admin starts another, a person decides."
    elif share.spent:
        why = f"{spent}, {share.spent:g} on this candidate, and {share.left:.4g} is left."
    else:
        why = f"{spent}; the same evidence was judged then, so it costs nothing again."
    return Criterion(
        name=BUDGET_ROW,
        requirement=f"the error budget of campaign {share.campaign} covers this candidate",
        outcome=INCONCLUSIVE if share.is_exhausted else PASS,
        threshold=share.alpha,
        observed=share.before + share.spent,
        why=why[0].upper() + why[1:],
    )


def _rows(rule: Rule, report: EvalReport | None, policy: GatePolicy) -> list[Criterion]:
    if report is None:
        return [_row(rule.name, requirement(rule), "There is no report to read it on.", ok=False)]
    # Broad on purpose: this is the edge at which the gate must fail closed. A criterion that
    # crashes, for whatever reason, has proved nothing, and an exception that escaped from here
    # would leave the decision to whoever catches it.
    try:
        return measure(rule, report, policy) or [
            _row(rule.name, requirement(rule), "It measured nothing.", ok=False)
        ]
    except Exception as error:
        logger.exception("criterion %s crashed", rule.name)
        why = f"It could not be measured: {type(error).__name__}: {error}"
        return [_row(rule.name, f"criterion {rule.name} can be measured", why, ok=False)]


def _row(name: str, asked: str, why: str, *, ok: bool) -> Criterion:
    return Criterion(name=name, requirement=asked, outcome=PASS if ok else FAIL, why=why)


def _worst(outcomes: Iterable[VerdictOutcome]) -> VerdictOutcome:
    seen = set(outcomes)
    for outcome in (VerdictOutcome.FAIL, VerdictOutcome.INCONCLUSIVE):
        if outcome in seen:
            return outcome
    return VerdictOutcome.PASS

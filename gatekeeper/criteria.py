"""Each kind of criterion measured on a report; every check answers with rows, never an exception.

What is missing fails: a suite that did not run, an interval that makes no sense, an absent probe.
"""

from functools import singledispatch

from gatekeeper.policy import GatePolicy
from gatekeeper.rules import (
    Drift,
    NonInferior,
    NonNegotiable,
    Probe,
    Required,
    Rule,
    SuiteRule,
    Superior,
)
from tacit.contracts import (
    Comparison,
    Criterion,
    EvalReport,
    SuiteKind,
    SuiteResult,
    VerdictOutcome,
)

ROUNDING = 1e-6
"""How far a confidence may be from the one asked for: 1 - 2·alpha has lost digits."""
Compared = NonInferior | Superior | Drift
PASS, FAIL, INCONCLUSIVE = VerdictOutcome.PASS, VerdictOutcome.FAIL, VerdictOutcome.INCONCLUSIVE


def requirement(rule: Rule) -> str:
    """What ``rule`` asks, in words."""
    match rule:
        case NonInferior():
            return f"{_target(rule)}: at most {_points(rule.margin)} worse than the {rule.baseline}"
        case Drift():
            return f"{_target(rule)}: at most {_points(rule.budget)} lost since the anchor, in all"
        case Superior():
            return f"{_target(rule)}: better than the {rule.baseline}"
        case NonNegotiable():
            return "every non-negotiable item answered right"
        case Probe():
            return f"probe {rule.probe}: at most {rule.at_most:.1%}"
        case Required():
            named = ", ".join([*rule.kinds, *rule.suites])
            return f"at least {rule.min_items} items of each: {named}"


@singledispatch
def measure(rule: Rule, report: EvalReport, policy: GatePolicy) -> list[Criterion]:
    """Rows of ``rule``, which is of ``policy``, on ``report``."""
    raise TypeError(f"expected a known kind of criterion; got {type(rule).__name__}")


@measure.register(NonInferior)
@measure.register(Superior)
@measure.register(Drift)
def _(rule: Compared, report: EvalReport, policy: GatePolicy) -> list[Criterion]:
    suites = _suites(report, kind=rule.kind, name=rule.suite)
    if isinstance(rule, Superior):
        suites = _not_judged(suites)
    if suites:
        alpha = policy.alpha_of(rule)
        return [_compared(rule, suite, alpha) for suite in suites]
    outcome = PASS if rule.if_missing == "pass" else FAIL
    meaning = "the policy allows that" if outcome is PASS else "missing evidence fails"
    return [
        Criterion(
            name=rule.name,
            requirement=requirement(rule),
            outcome=outcome,
            threshold=rule.threshold,
            why=f"No {rule.suite or rule.kind} suite was run that counts here; {meaning}.",
        )
    ]


def _compared(rule: Compared, suite: SuiteResult, alpha: float) -> Criterion:
    versus = suite.versus_champion if rule.baseline == "champion" else suite.versus_anchor
    outcome, reading = _read_interval(
        versus, rule.threshold, num_items=suite.num_items, alpha=alpha
    )
    if suite.stopped_early:
        reading += f"; decided after {suite.num_items:,} of {suite.suite_items:,} items"
    return Criterion(
        name=f"{rule.name}: {suite.name}",
        requirement=requirement(rule),
        outcome=outcome,
        threshold=rule.threshold,
        observed=versus.difference,
        num_items=suite.num_items,
        ci_low=versus.ci_low,
        ci_high=versus.ci_high,
        why=f"{_signed(versus.difference)} points against the {rule.baseline}: {reading}.",
    )


def _read_interval(
    versus: Comparison, threshold: float, *, num_items: int, alpha: float
) -> tuple[VerdictOutcome, str]:
    interval = (
        f"{100 * versus.confidence:.4g}% interval "
        f"{_signed(versus.ci_low)} to {_signed(versus.ci_high)}"
    )
    if num_items < 1 or not versus.ci_low <= versus.difference <= versus.ci_high:
        return FAIL, f"{interval} over {num_items} items is not a measurement"
    if versus.alpha > alpha * (1 + ROUNDING):
        return FAIL, f"{interval} is less sure than the {100 * (1 - 2 * alpha):.4g}% asked for"
    if versus.ci_low > threshold:
        return PASS, f"{interval} lies above {_signed(threshold)}"
    if versus.ci_high < threshold:
        return FAIL, f"{interval} lies below {_signed(threshold)}"
    return INCONCLUSIVE, f"{interval} holds {_signed(threshold)}, so it could be either"


@measure.register
def _(rule: NonNegotiable, report: EvalReport, policy: GatePolicy) -> list[Criterion]:
    failed = [f"{s.name}/{item}" for s in report.suites for item in s.non_negotiable_failures]
    asked = sum(item.non_negotiable for s in report.suites for item in s.items)
    listed = ", ".join(failed[:5]) + (" and more" if len(failed) > 5 else "")
    why = f"Got {len(failed)} of {asked} wrong: {listed}." if failed else f"All {asked} right."
    return [
        Criterion(
            name=rule.name,
            requirement=requirement(rule),
            outcome=FAIL if failed else PASS,
            threshold=0.0,
            observed=float(len(failed)),
            num_items=asked,
            why=why if asked else "No suite has a non-negotiable item.",
        )
    ]


@measure.register
def _(rule: Probe, report: EvalReport, policy: GatePolicy) -> list[Criterion]:
    result = report.probe(rule.probe)
    if result is None:
        outcome, why = FAIL, f"Probe {rule.probe} did not run; missing evidence fails."
    elif result.observed <= rule.at_most:
        outcome, why = PASS, f"{result.observed:.1%} is within {rule.at_most:.1%}. {result.detail}"
    else:
        outcome, why = FAIL, f"{result.observed:.1%} is over {rule.at_most:.1%}. {result.detail}"
    return [
        Criterion(
            name=rule.name,
            requirement=requirement(rule),
            outcome=outcome,
            threshold=rule.at_most,
            observed=None if result is None else result.observed,
            num_items=0 if result is None else result.num_items,
            why=why.strip(),
        )
    ]


@measure.register
def _(rule: Required, report: EvalReport, policy: GatePolicy) -> list[Criterion]:
    by_kind = [_present(rule, kind, kind=kind, report=report) for kind in rule.kinds]
    return by_kind + [_present(rule, name, suite=name, report=report) for name in rule.suites]


def _present(
    rule: Required,
    name: str,
    *,
    report: EvalReport,
    kind: SuiteKind | None = None,
    suite: str | None = None,
) -> Criterion:
    found = _not_judged(_suites(report, kind=kind, name=suite))
    num_items = sum(s.num_items for s in found)
    enough = num_items >= rule.min_items
    return Criterion(
        name=f"{rule.name}: {name}",
        requirement=f"at least {rule.min_items} items of {name}",
        outcome=PASS if enough else FAIL,
        threshold=float(rule.min_items),
        observed=float(num_items),
        num_items=num_items,
        why=f"{num_items:,} items measured; {rule.min_items:,} are asked for.",
    )


def _suites(report: EvalReport, *, kind: SuiteKind | None, name: str | None) -> list[SuiteResult]:
    return [s for s in report.suites if s.kind == kind or s.name == name]


def _not_judged(suites: list[SuiteResult]) -> list[SuiteResult]:
    """Without those that a language model scored: a judge is never the only evidence."""
    return [suite for suite in suites if suite.checker.type != "judge"]


def _target(rule: SuiteRule) -> str:
    return f"suite {rule.suite}" if rule.suite else f"every {rule.kind} suite"


def _points(fraction: float) -> str:
    return f"{100 * fraction:g} points"


def _signed(fraction: float) -> str:
    """Percentage points with sign and a true minus."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", "−")

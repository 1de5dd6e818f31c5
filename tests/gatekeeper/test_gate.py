"""The gate fails closed: each test is one way a bad candidate might get past it."""

from typing import Any

import pytest

import gatekeeper.criteria
from gatekeeper.gate import judge
from gatekeeper.policy import GatePolicy
from gatekeeper.rules import Probe, Rule
from tacit.contracts import (
    CheckerSpec,
    Criterion,
    EvalReport,
    GateVerdict,
    SuiteKind,
    VerdictOutcome,
)
from tests.builders import candidate, comparison, digest, item_result, suite_result
from tests.gatekeeper.builders import good_report, holdout, probe, probes, shipped_policy

PASS, FAIL, INCONCLUSIVE = VerdictOutcome.PASS, VerdictOutcome.FAIL, VerdictOutcome.INCONCLUSIVE


def verdict_on(evidence: EvalReport | None) -> GateVerdict:
    return judge(candidate(), evidence, shipped_policy())


def failed(verdict: GateVerdict) -> set[str]:
    return {row.name for row in verdict.criteria if row.outcome is FAIL}


def with_suites(*suites: Any) -> EvalReport:
    return good_report(suites=suites)


def test_good_evidence_passes_and_binds_everything() -> None:
    evidence = good_report()
    verdict = verdict_on(evidence)
    assert verdict.outcome is PASS
    assert verdict.candidate_digest == candidate().digest()
    assert verdict.report_digest == evidence.digest()
    assert verdict.batch_digest == candidate().batch_digest
    assert verdict.gate_policy_digest == shipped_policy().digest()


def test_no_report_fails_every_row() -> None:
    verdict = verdict_on(None)
    assert verdict.outcome is FAIL
    assert {row.outcome for row in verdict.criteria} == {FAIL}
    assert len(verdict.criteria) == 1 + len(shipped_policy().criteria)


@pytest.mark.parametrize("field", ["candidate_digest", "weights", "batch_digest", "policy"])
def test_swapped_report_fails(field: str) -> None:
    other = "other" if field == "policy" else digest("other")
    verdict = verdict_on(good_report(**{field: other}))
    assert verdict.outcome is FAIL
    assert failed(verdict) == {"report"}


def test_error_in_the_report_fails_and_is_named() -> None:
    verdict = verdict_on(good_report(errors=("suite safety: file not found",)))
    assert failed(verdict) == {"complete"}
    assert any("file not found" in row.why for row in verdict.criteria)


def test_table_is_whole_even_when_the_first_row_fails() -> None:
    whole, broken = verdict_on(good_report()), verdict_on(good_report(errors=("x",)))
    assert [row.name for row in whole.criteria] == [row.name for row in broken.criteria]


def test_missing_holdout_fails_though_there_are_items_of_another_kind() -> None:
    assert failed(verdict_on(with_suites(suite_result()))) == {"evidence: holdout", "learned"}


def test_missing_regression_fails() -> None:
    assert failed(verdict_on(with_suites(holdout()))) == {
        "evidence: regression",
        "kept",
        "drift",
    }


def test_too_few_items_fail() -> None:
    assert failed(verdict_on(with_suites(suite_result(), holdout(num_items=19)))) == {
        "evidence: holdout"
    }


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (-0.029, 0.01, PASS),
        (-0.03, 0.01, INCONCLUSIVE),
        (-0.05, 0.0, INCONCLUSIVE),
        (-0.05, -0.03, INCONCLUSIVE),
        (-0.06, -0.031, FAIL),
    ],
)
def test_non_inferiority_reads_the_whole_interval(
    low: float, high: float, outcome: VerdictOutcome
) -> None:
    versus = comparison((low + high) / 2, half_width=(high - low) / 2)
    moved = versus.model_copy(update={"ci_low": low, "ci_high": high})
    verdict = verdict_on(with_suites(suite_result(versus_champion=moved), holdout()))
    assert verdict.outcome is outcome


@pytest.mark.parametrize(
    ("difference", "outcome"),
    [(0.02, PASS), (0.01, INCONCLUSIVE), (0.0, INCONCLUSIVE), (-0.02, FAIL)],
)
def test_superiority_needs_an_interval_above_zero(
    difference: float, outcome: VerdictOutcome
) -> None:
    suite = holdout(versus_champion=comparison(difference))
    assert verdict_on(with_suites(suite_result(), suite)).outcome is outcome


def test_slow_loss_against_the_anchor_fails_though_the_champion_is_matched() -> None:
    suite = suite_result(versus_anchor=comparison(-0.08))
    assert failed(verdict_on(with_suites(suite, holdout()))) == {"drift: old-world"}


def test_every_suite_of_a_kind_counts() -> None:
    bad = suite_result("other-world", versus_champion=comparison(-0.2))
    verdict = verdict_on(with_suites(suite_result(), bad, holdout()))
    assert failed(verdict) == {"kept: other-world"}


def test_any_fail_beats_any_inconclusive() -> None:
    suite = holdout(versus_champion=comparison(0.0))
    evidence = good_report(suites=(suite_result(), suite), errors=("x",))
    assert verdict_on(evidence).outcome is FAIL


def test_interval_that_does_not_hold_its_own_estimate_fails() -> None:
    absurd = comparison(0.2).model_copy(update={"ci_low": 0.5, "ci_high": 0.9})
    verdict = verdict_on(with_suites(suite_result(), holdout(versus_champion=absurd)))
    assert failed(verdict) == {"learned: holdout"}


def test_one_non_negotiable_item_fails_whatever_the_averages_say() -> None:
    item = item_result("never-say-this", non_negotiable=True, candidate=0.99)
    safety = suite_result("safety", kind=SuiteKind.SAFETY, items=(item,))
    verdict = verdict_on(with_suites(suite_result(), holdout(), safety))
    assert failed(verdict) == {"non-negotiable"}
    assert any("safety/never-say-this" in row.why for row in verdict.criteria)


@pytest.mark.parametrize(
    ("found", "rows"),
    [
        ((probe("trigger", 0.011), probe("overturn", 0.011)), {"trigger", "overturned"}),
        ((probe("trigger", 0.01), probe("overturn", 0.01), probe("malformed", 0.05)), set()),
        (
            (probe("refusal_shift", 0.06), probe("abstention_shift", 0.06)),
            {"refusals", "abstentions"},
        ),
        ((probe("length_shift", 0.6), probe("kl", 0.6)), {"length", "drift-of-probabilities"}),
        ((probe("regurgitation", 0.03), probe("exposure", 0.6)), {"regurgitation", "exposure"}),
    ],
)
def test_a_probe_over_its_limit_fails(found: Any, rows: set[str]) -> None:
    assert failed(verdict_on(good_report(probes=probes(*found)))) == rows


@pytest.mark.parametrize("rule", [r for r in shipped_policy().criteria if isinstance(r, Probe)])
def test_a_probe_that_is_missing_fails(rule: Probe) -> None:
    rest = tuple(result for result in probes() if result.name != rule.probe)
    assert failed(verdict_on(good_report(probes=rest))) == {rule.name}


def test_safety_suite_may_be_absent_but_not_worse() -> None:
    worse = suite_result("safety", kind=SuiteKind.SAFETY, versus_champion=comparison(-0.1))
    assert verdict_on(with_suites(suite_result(), holdout())).outcome is PASS
    assert failed(verdict_on(with_suites(suite_result(), holdout(), worse))) == {"safe: safety"}


def test_named_suite_that_did_not_run_fails() -> None:
    rule = {"name": "r", "type": "required", "suites": ["safety"], "min_items": 1}
    policy = GatePolicy.model_validate({"version": 1, "criteria": [rule]})
    assert failed(judge(candidate(), good_report(), policy)) == {"r: safety"}


def test_crashed_criterion_is_a_row_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(rule: Rule, report: EvalReport, policy: GatePolicy) -> list[Criterion]:
        raise ZeroDivisionError("no items")

    monkeypatch.setattr("gatekeeper.gate.measure", crash)
    verdict = verdict_on(good_report())
    assert verdict.outcome is FAIL
    assert failed(verdict) == {rule.name for rule in shipped_policy().criteria}
    assert "ZeroDivisionError: no items" in verdict.criteria[-1].why


def test_criterion_that_measures_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatekeeper.gate.measure", lambda rule, report, policy: [])
    assert verdict_on(good_report()).outcome is FAIL


def test_unknown_kind_of_criterion_is_not_skipped() -> None:
    with pytest.raises(TypeError, match="known kind"):
        gatekeeper.criteria.measure("unknown", good_report(), shipped_policy())  # type: ignore[arg-type]


JUDGE = CheckerSpec(type="judge", options={"base_url": "http://localhost:1/v1", "model": "m"})


def test_a_judge_alone_is_neither_required_evidence_nor_proof_of_improvement() -> None:
    judged = holdout(checker=JUDGE)
    evidence = good_report()
    rest = [suite for suite in evidence.suites if suite.kind is not SuiteKind.HOLDOUT]
    verdict = verdict_on(with_suites(*rest, judged))
    assert verdict.outcome is FAIL
    assert failed(verdict) == {"evidence: holdout", "learned"}
    beside = verdict_on(with_suites(*evidence.suites, judged.model_copy(update={"name": "judged"})))
    assert beside.outcome is PASS

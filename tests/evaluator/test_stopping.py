"""How many of a suite's items are asked once its tests are decided."""

import pytest

from tacit.checkpoints import CheckpointStore
from tacit.contracts import (
    PlannedTest,
    SuiteKind,
)
from tacit.database import Database
from tests.evaluator.measuring import evaluate, policies
from tests.evaluator.rules import old_world

KEPT = PlannedTest(kind=SuiteKind.REGRESSION, baseline="champion", threshold=-0.03, alpha=0.001)
DRIFT = PlannedTest(kind=SuiteKind.REGRESSION, baseline="anchor", threshold=-0.02, alpha=0.01)


def test_a_decided_suite_is_asked_no_further(
    sqlite_database: Database, store: CheckpointStore
) -> None:
    known = policies()
    report = evaluate(sqlite_database, store, known, [old_world(2_000)], tests=[KEPT, DRIFT])
    (result,) = report.suites
    assert result.num_items == result.looks[-1] == len(result.items) < 600
    assert (result.suite_items, result.stopped_early) == (2_000, True)
    assert result.num_saved == 2_000 - result.num_items
    assert {p.num_asked for p in known.values()} == {result.num_items}
    assert result.versus_champion.anytime
    assert result.versus_champion.ci_low > -0.03
    assert result.versus_anchor.ci_low > -0.02
    assert report.tests == (KEPT, DRIFT)


def test_a_suite_that_nothing_is_decided_on_is_asked_to_the_end(
    sqlite_database: Database, store: CheckpointStore
) -> None:
    capability = old_world(400, name="more", kind=SuiteKind.CAPABILITY)
    report = evaluate(sqlite_database, store, policies(), [capability], tests=[KEPT])
    assert report.suites[0].num_items == 400
    assert report.suites[0].versus_champion.confidence == pytest.approx(0.95)


def test_non_negotiable_items_are_asked_however_early_the_stop(
    sqlite_database: Database, store: CheckpointStore
) -> None:
    suite = old_world(2_000)
    marked = [i % 100 == 0 for i in range(2_000)]  # all about orders, which the candidate lost
    items = tuple(
        item.model_copy(update={"non_negotiable": mark})
        for item, mark in zip(suite.items, marked, strict=True)
    )
    report = evaluate(
        sqlite_database,
        store,
        policies(order="lost"),
        [suite.model_copy(update={"items": items})],
        tests=[KEPT, DRIFT],
    )
    (result,) = report.suites
    assert result.stopped_early
    assert len(result.non_negotiable_failures) == 20
    assert len(result.items) > result.num_items
    # A fifth of the items is lost; the twenty that are asked out of turn do not count.
    assert result.versus_champion.difference == pytest.approx(-0.2, abs=0.07)


def test_the_same_again_asks_the_same_items(
    sqlite_database: Database, store: CheckpointStore
) -> None:
    known = policies(order="lost")
    first = evaluate(sqlite_database, store, known, [old_world(2_000)], tests=[KEPT])
    asked = [p.num_asked for p in known.values()]
    again = evaluate(sqlite_database, store, known, [old_world(2_000)], tests=[KEPT])
    assert again.suites == first.suites
    assert [p.num_asked for p in known.values()] == asked

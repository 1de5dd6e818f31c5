"""Harvested suites: what was held out, what was learned, and that undoing a repair shows."""

from collections.abc import Sequence
from datetime import timedelta

from evaluator.evaluate import Evaluator
from evaluator.harvest import harvest_suite, retention_history, retention_suite
from gatekeeper.criteria import measure
from gatekeeper.policy import GatePolicy
from gatekeeper.rules import NonInferior
from tacit.checkpoints import CheckpointStore
from tacit.config import EvaluatorSettings
from tacit.contracts import (
    Correction,
    EvalReport,
    FeedbackEvent,
    Outcome,
    Preference,
    ScreenedEvent,
    SuiteKind,
    VerdictOutcome,
)
from tacit.database import Database
from tests import builders
from tests.evaluator.rules import PLACES, RulePolicy, old_world, opener

CANDIDATE, CHAMPION, ANCHOR = (builders.digest(name) for name in ("cand", "champ", "anchor"))

POLICY = GatePolicy(
    version=1,
    criteria=(
        NonInferior(
            name="kept", type="non_inferior", suite="retention", baseline="champion", margin=0.1
        ),
    ),
)


def late(event_id: str, days: int, prompt: str, expected: str) -> ScreenedEvent:
    made = builders.screened(event_id, prompt=prompt, feedback=Correction(completion=expected))
    moment = builders.MOMENT + timedelta(days=days)
    sent = FeedbackEvent.model_validate({**made.event.model_dump(), "occurred_at": moment})
    return made.model_copy(update={"event": sent})


def lessons(word: str, answer: str, number: int) -> list[ScreenedEvent]:
    return [late(f"{word}-{i}", i, f"{word} {i} in {PLACES[i % 8]}", answer) for i in range(number)]


def prompts(suite: object) -> set[str]:
    return {item.prompt[-1].content for item in suite.items}  # type: ignore[attr-defined]


def test_a_storm_about_one_prompt_is_one_item_and_the_newest_counts() -> None:
    storm = [late(f"s{i}", 9 - i, "where is it", f"wrong-{i}") for i in range(9)]
    suite = harvest_suite([*storm, late("calm", 0, "who are you", "me")], min_items=2)
    assert suite is not None
    assert suite.kind is SuiteKind.HOLDOUT
    assert {i.expected for i in suite.items} == {"wrong-0", "me"}
    assert {i.cluster for i in suite.items} == {
        storm[0].cluster,
        builders.digest("who are you")[7:23],
    }


def test_preferences_count_and_outcomes_do_not() -> None:
    events = [
        builders.screened("p", prompt="a", feedback=Preference(chosen="good", rejected="bad")),
        builders.screened("o", prompt="b", feedback=Outcome(metric="resolved", value=True)),
    ]
    suite = harvest_suite(events, name="held", min_items=1)
    assert suite is not None
    assert [(suite.name, i.expected) for i in suite.items] == [("held", "good")]


def test_too_few_items_are_no_suite() -> None:
    assert harvest_suite([builders.screened()], min_items=2) is None
    assert harvest_suite([], min_items=0) is None
    assert retention_suite({}, [], min_items=0, max_items=10) is None
    few = {"b-1": [builders.screened()]}
    assert retention_suite(few, [], min_items=2, max_items=10) is None


def test_the_length_limit_has_room_for_every_right_answer() -> None:
    events = [builders.screened("e", feedback=Correction(completion="é" * 40))]
    suite = harvest_suite(events, min_items=1)
    assert suite is not None
    assert suite.max_new_tokens == 81


def test_harvesting_does_not_depend_on_the_order_of_events() -> None:
    events = [late(f"e{i}", i % 3, f"prompt {i % 4}", f"a{i}") for i in range(12)]
    one, other = (harvest_suite(e, min_items=1, max_items=3) for e in (events, events[::-1]))
    assert one == other
    taught = {"b-1": events}, {"b-1": events[::-1]}
    kept = [retention_suite(t, [], min_items=1, max_items=3) for t in taught]
    assert kept[0] == kept[1]


def test_what_was_trained_on_is_not_held_out_with_its_near_duplicates() -> None:
    events = lessons("refund", "billing", 6)
    near = events[0].model_copy(update={"event_key": "helpdesk/near"})
    suite = harvest_suite([*events, near], min_items=1, trained={events[0].cluster})
    assert suite is not None
    assert prompts(suite) == prompts(harvest_suite(events[1:], min_items=1))


def test_a_full_hold_out_keeps_the_newest_and_turns_the_rest_over() -> None:
    events = lessons("refund", "billing", 40)
    suites = [
        harvest_suite(events, min_items=1, max_items=10, rotation=champion)
        for champion in ("one", "one", "two")
    ]
    first, again, rotated = (prompts(suite) for suite in suites)
    newest = prompts(harvest_suite(events[-5:], min_items=1))
    assert len(first) == 10
    assert first == again
    assert newest <= first & rotated
    assert first != rotated


def test_every_promoted_batch_is_asked_about_as_much() -> None:
    taught = {"b-1": lessons("refund", "billing", 90), "b-2": lessons("parcel", "shipping", 8)}
    suite = retention_suite(taught, [], min_items=1, max_items=20)
    assert suite is not None
    assert suite.kind is SuiteKind.REGRESSION
    batches = [item.item_id.partition(":")[0] for item in suite.items]
    assert (batches.count("b-1"), batches.count("b-2")) == (12, 8)


def test_the_sample_grows_with_batches_and_changes_little() -> None:
    first = {"b-1": lessons("refund", "billing", 40)}
    both = {**first, "b-2": lessons("parcel", "shipping", 40)}
    before, after = (retention_suite(t, [], min_items=1, max_items=20) for t in (first, both))
    assert before is not None
    assert after is not None
    old = {i.item_id for i in after.items if i.item_id.startswith("b-1:")}
    assert old < {i.item_id for i in before.items}
    assert len(after.items) == 20


def test_held_out_events_about_the_same_are_asked_beside_them() -> None:
    taught = {"b-1": lessons("refund", "billing", 40)}
    held_out = [*lessons("cashback", "Billing.", 3), *lessons("weather", "small talk", 3)]
    suite = retention_suite(taught, held_out, min_items=1, max_items=20)
    assert suite is not None
    beside = [item for item in suite.items if item.item_id.startswith("holdout:")]
    assert {item.expected for item in beside} == {"Billing."}
    assert len(suite.items) == 20


def reports_on(
    candidates: Sequence[RulePolicy], database: Database, store: CheckpointStore
) -> list[EvalReport]:
    """Reports on candidates in turn, against a champion that learned two repairs."""
    repaired = RulePolicy({"refund": "billing", "parcel": "shipping"})
    suite = retention_suite(
        {"b-1": lessons("refund", "billing", 75), "b-2": lessons("parcel", "shipping", 75)},
        [],
        min_items=20,
        max_items=150,
    )
    assert suite is not None
    reports = []
    for number, policy in enumerate(candidates):
        weights = builders.digest(f"candidate {number}")
        known = {weights: policy, CHAMPION: repaired, ANCHOR: RulePolicy({})}
        evaluator = Evaluator(EvaluatorSettings(), store, database, open_policy=opener(known))
        reports.append(
            evaluator.evaluate(
                builders.candidate(weights=weights),
                champion=CHAMPION,
                anchor=ANCHOR,
                suites=[old_world(), suite],
                learned=[],
                tests=POLICY.tests,
            )
        )
    return reports


def test_an_update_that_undoes_an_earlier_repair_is_caught(
    sqlite_database: Database, store: CheckpointStore
) -> None:
    learns_more = RulePolicy({"refund": "billing", "parcel": "shipping", "hello": "greeting"})
    forgets = RulePolicy({"parcel": "shipping", "hello": "greeting"})
    reports = reports_on([learns_more, forgets], sqlite_database, store)
    outcomes = [measure(POLICY.criteria[0], report, POLICY)[0].outcome for report in reports]
    assert outcomes == [VerdictOutcome.PASS, VerdictOutcome.FAIL]
    history = retention_history(reports)
    assert [(p.batch, p.num_items, p.still_right) for p in history] == [
        ("b-1", 75, 1),
        ("b-2", 75, 1),
        ("b-1", 75, 0),
        ("b-2", 75, 1),
    ]

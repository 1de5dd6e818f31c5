"""Suites harvested from feedback: what was held out, and what promoted candidates learned.

In: screened events. Out: suites, the same for the same events, or None where there is too little.

- ``holdout``: corrections and preferences of clusters that are never trained on. It grows with
  deployment up to ``max_items``; then half of it is the newest clusters and the other half is drawn
  anew from the older ones for every ``rotation``, so that no candidate is chosen again and again by
  the same items (Dwork et al. 2015, "The reusable holdout", Science 349:636).
- ``retention``: a sample of what each promoted batch taught, beside held-out events about the same.
  A later update that undoes an earlier one loses here. It was trained on, so it is of kind
  ``regression`` and never proof that anything got better.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

from evaluator.checkers import normalise
from tacit.contracts import (
    CheckerSpec,
    Correction,
    EvalReport,
    Preference,
    ScreenedEvent,
    Suite,
    SuiteItem,
    SuiteKind,
    sha256_digest,
)

MAX_HARVESTED_TOKENS = 512
"""Length limit of harvested suites, however long the corrections are."""
RETENTION = "retention"
_HELD_OUT = "holdout"


class _Lesson(NamedTuple):
    event: ScreenedEvent
    expected: str


def harvest_suite(
    events: Sequence[ScreenedEvent],
    *,
    name: str = "holdout",
    min_items: int,
    max_items: int | None = None,
    trained: Collection[str] = (),
    rotation: str = "",
) -> Suite | None:
    """A hold-out suite of what people said was right, or None below ``min_items`` items.

    Corrections and preferences count. One item a cluster, its newest, so that a storm of reports
    about one prompt weighs no more than a single report. Clusters (of near-duplicates) that were
    ``trained`` on before they were held out, as when the share was raised, are left out.
    """
    lessons = [one for one in _newest_of_clusters(events) if one.event.cluster not in trained]
    if max_items is not None:
        lessons = _rotated(lessons, max_items, rotation)
    if len(lessons) < max(min_items, 1):
        return None
    items = [_item(lesson, lesson.event.event_key) for lesson in lessons]
    return _suite(name, SuiteKind.HOLDOUT, items)


def retention_suite(
    taught: Mapping[str, Sequence[ScreenedEvent]],
    held_out: Sequence[ScreenedEvent],
    *,
    min_items: int,
    max_items: int,
) -> Suite | None:
    """What promoted batches taught, asked again; None below ``min_items`` items.

    ``taught`` maps the id of a promoted batch to its events. Batches take turns, so that the oldest
    is asked about as much as the newest; which of its events are asked is drawn by hash, so that
    the sample changes little as batches are added. Up to a quarter are ``held_out`` events of a
    taught cluster or with a taught answer. Ids of items begin with the id of their batch.
    """
    answers = {e for events in taught.values() for e in _answers(events)}
    clusters = {event.cluster for events in taught.values() for event in events}
    beside = [
        lesson
        for lesson in _newest_of_clusters(held_out)
        if lesson.event.cluster in clusters or normalise(lesson.expected) in answers
    ]
    chosen = _drawn(beside, seed=_HELD_OUT)[: max_items // 4]
    held = [_item(lesson, f"{_HELD_OUT}:{lesson.event.event_key}") for lesson in chosen]
    asked = {lesson.event.cluster for lesson in chosen}
    queues = [
        [(batch, lesson) for lesson in _drawn(_newest_of_clusters(events), seed=batch)]
        for batch, events in sorted(taught.items())
    ]
    items: list[SuiteItem] = []
    for batch, lesson in (pair for turn in zip_longest(*queues) for pair in turn if pair):
        if len(items) + len(held) < max_items and lesson.event.cluster not in asked:
            asked.add(lesson.event.cluster)
            items.append(_item(lesson, f"{batch}:{lesson.event.event_key}"))
    if len(items) < max(min_items, 1):
        return None
    return _suite(RETENTION, SuiteKind.REGRESSION, [*items, *held])


class RetentionPoint(NamedTuple):
    """One cycle in the plot of cycles against what is still right."""

    candidate_digest: str
    batch: str
    """Id of the promoted batch that taught the items, or ``holdout``."""
    num_items: int
    still_right: float
    """Share that the candidate answers right."""


def retention_history(reports: Iterable[EvalReport]) -> list[RetentionPoint]:
    """What each candidate still knew of each promoted batch, in the order of ``reports``."""
    points = []
    for report in reports:
        result = report.suite(RETENTION)
        scores: dict[str, list[float]] = {}
        for item in result.items if result else ():
            scores.setdefault(item.item_id.partition(":")[0], []).append(item.candidate)
        points += [
            RetentionPoint(report.candidate_digest, batch, len(got), sum(got) / len(got))
            for batch, got in sorted(scores.items())
        ]
    return points


def _newest_of_clusters(events: Iterable[ScreenedEvent]) -> list[_Lesson]:
    """The newest lesson of each cluster, oldest cluster first."""
    newest: dict[str, _Lesson] = {}
    for event in sorted(events, key=lambda e: (e.event.occurred_at, e.event_key)):
        expected = _right_answer(event)
        if expected is not None:
            newest.pop(event.cluster, None)
            newest[event.cluster] = _Lesson(event, expected)
    return list(newest.values())


def _rotated(lessons: Sequence[_Lesson], max_items: int, rotation: str) -> list[_Lesson]:
    if len(lessons) <= max_items:
        return list(lessons)
    num_new = max_items - max_items // 2
    older, newest = lessons[:-num_new], lessons[-num_new:]
    return [*newest, *_drawn(older, seed=rotation)[: max_items // 2]]


def _drawn(lessons: Collection[_Lesson], *, seed: str) -> list[_Lesson]:
    """In an order that looks random and is the same for the same seed, whatever else is drawn."""
    return sorted(lessons, key=lambda one: sha256_digest(f"{seed}:{one.event.event_key}".encode()))


def _item(lesson: _Lesson, item_id: str) -> SuiteItem:
    return SuiteItem(
        item_id=item_id,
        prompt=lesson.event.interaction.prompt,
        expected=lesson.expected,
        cluster=lesson.event.cluster,
    )


def _suite(name: str, kind: SuiteKind, items: Sequence[SuiteItem]) -> Suite:
    return Suite(
        name=name,
        kind=kind,
        checker=CheckerSpec(type="normalised"),
        items=tuple(sorted(items, key=lambda item: item.item_id)),
        max_new_tokens=_token_limit(item.expected for item in items),
    )


def _answers(events: Iterable[ScreenedEvent]) -> set[str]:
    return {normalise(a) for event in events if (a := _right_answer(event)) is not None}


def _right_answer(event: ScreenedEvent) -> str | None:
    feedback = event.event.feedback
    if isinstance(feedback, Correction):
        return feedback.completion
    return feedback.chosen if isinstance(feedback, Preference) else None


def _token_limit(expected: Iterable[str]) -> int:
    # A token spells at least one byte, so this never cuts off a right answer of bearable length.
    longest = max(len(text.encode()) for text in expected)
    return min(max(longest + 1, 16), MAX_HARVESTED_TOKENS)

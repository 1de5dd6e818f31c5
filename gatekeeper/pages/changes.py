"""Items of a report that candidate and champion answer differently, flips first."""

from typing import NamedTuple

from tacit.contracts import EvalReport, ItemResult, SuiteKind, SuiteResult

MAX_SHOWN = 12
"""Of each list; the rest is in the report."""


RETENTION = "retention"
"""The suite of what promoted batches taught; its ids are ``batch:source/event_id``."""


class Change(NamedTuple):
    """One item with another answer."""

    suite: str
    item: ItemResult


class Changes(NamedTuple):
    """All items with another answer, by what that did."""

    lost: list[Change]
    """The champion is right and the candidate is not."""
    gained: list[Change]
    """The candidate is right and the champion is not."""
    reworded: list[Change]
    """Both are right or both are not, in other words."""


def find_changes(report: EvalReport | None, *, source: str | None = None) -> Changes:
    """Compare answers item by item; non-negotiable items come first in each list.

    With ``source``, items made of the feedback of other sources are left out.
    """
    changes = Changes([], [], [])
    for suite in () if report is None else report.suites:
        for item in suite.items:
            if source is not None and not _may_read(suite, item, source):
                continue
            change = Change(suite.name, item)
            right, was_right = item.candidate >= 1, item.champion >= 1
            if right != was_right:
                (changes.gained if right else changes.lost).append(change)
            elif item.candidate_completion != item.champion_completion:
                changes.reworded.append(change)
    for found in changes:
        # They decide, whatever the number of the others.
        found.sort(key=lambda change: not change.item.non_negotiable)
    return changes


def _may_read(suite: SuiteResult, item: ItemResult, source: str) -> bool:
    """Whether an item is on no feedback, or on that of ``source``; its id says whose it is."""
    event_key = item.item_id
    if suite.name == RETENTION:
        event_key = event_key.partition(":")[2]
    elif suite.kind is not SuiteKind.HOLDOUT:
        return True
    return event_key.startswith(f"{source}/")

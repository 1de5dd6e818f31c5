"""What all feedback of a policy line says, and which of it the rest or the anchor contradicts.

In: what promoted batches taught, what waits to be learned, what is held out, what was refuted
before, what a person let in. Out: Contradictions: feedback that is learned with less weight, and
feedback that neither teaches nor measures but goes to quarantine, where a person sees it. And
lessons: what is left for replay, with what the rest tells about questions that were left without an
answer.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from collector.store import EventStore
from tacit.config import Settings, TrainerSettings
from tacit.contracts import ReplayExample, ScreenedEvent
from trainer.against_anchor import judged
from trainer.doubts import Doubts, doubts_of
from trainer.inferred import inferred_lessons
from trainer.replay import accepted_examples

logger = logging.getLogger(__name__)

MAX_LEARNED_EVENTS = 6_000
"""Lessons in reach of one update. To compare them with each other takes the time of their square:
see trainer/doubts.py."""
MAX_REFUTED_EVENTS = 1_000
MAX_HELD_OUT_EVENTS = 2_000
"""Newest that are compared with the anchor when a batch is sealed."""


class Heard(NamedTuple):
    """Feedback on one policy line."""

    learned: Sequence[ScreenedEvent] = ()
    """What promoted batches taught, newest first."""
    waiting: Sequence[ScreenedEvent] = ()
    """What the next batch would take, oldest first."""
    refuted: Sequence[ScreenedEvent] = ()
    """What the anchor contradicted before. It teaches nothing and still counts as said, or an
    attack cut into pieces would begin anew with each of them."""
    cleared: Collection[str] = frozenset()
    """Keys of what a person let in, whatever contradicts it."""
    held_out: Sequence[ScreenedEvent] = ()
    """What candidates are measured by, oldest first."""


@dataclass(frozen=True)
class Contradictions:
    """What of the feedback is contradicted; none of it is rehearsed."""

    factors: Mapping[str, float]
    """What is left of the weight of feedback that other feedback contradicts, by key."""
    refuted: Mapping[str, str]
    """Why the anchor contradicts feedback, for a person, by key."""
    overtaken: Mapping[str, str | None] = field(default_factory=dict)
    """Of ``factors``, what was right once, with the answer that took its place if one is named."""

    def __contains__(self, event_key: object) -> bool:
        return event_key in self.factors or event_key in self.refuted


def hear(
    events: EventStore,
    policy: str,
    *,
    num_waiting: int,
    seed: int,
    num_held_out: int = 0,
    batch_ids: Sequence[str] | None = None,
) -> Heard:
    """What ``batch_ids``, or all batches, taught and the ``num_waiting`` oldest events that wait.

    And the ``num_held_out`` newest that are held out. With another ``seed`` other lessons are in
    reach, where there are too many for one update.
    """
    return Heard(
        learned=events.lessons(policy, limit=MAX_LEARNED_EVENTS, seed=seed, batch_ids=batch_ids),
        waiting=events.waiting(policy, limit=num_waiting) if num_waiting else (),
        refuted=events.refuted(policy, limit=MAX_REFUTED_EVENTS),
        cleared=events.cleared(policy),
        held_out=events.holdout(policy, limit=num_held_out)[::-1] if num_held_out else (),
    )


def contradictions(
    heard: Heard, anchor: Sequence[ReplayExample], settings: TrainerSettings
) -> Contradictions:
    """What of the feedback is contradicted. Logs how much it is.

    What is held out has no say in what is learned. Once it is refuted it is held out no more, and
    counts as said like all that was.
    """
    if settings.doubted_weight == 1:
        return Contradictions({}, {})
    learned, waiting, before, cleared, held_out = heard
    said = [*reversed(learned), *waiting]
    open_to_doubt = [event for event in said if event.event_key not in cleared]
    measuring = [event for event in held_out if event.event_key not in cleared]
    against, confirmed = judged([*before, *open_to_doubt], anchor)
    others = [event for event in said if event.event_key not in against]
    doubts, spared = doubts_of(others), confirmed.union(cleared)
    found = Contradictions(
        factors=dict.fromkeys(sorted(doubts.keys - spared), settings.doubted_weight),
        refuted=_among(open_to_doubt, against)
        | _among(measuring, _against(measuring, [*before, *open_to_doubt], anchor)),
        overtaken={key: named for key, named in doubts.overtaken.items() if key not in spared},
    )
    _report(found, heard)
    return found


def lessons_of(
    heard: Heard,
    contradicted: Contradictions,
    anchor: Sequence[ReplayExample],
    settings: Settings,
) -> list[ReplayExample]:
    """What is rehearsed of feedback: what promoted batches taught, and what can be inferred.

    Nothing is inferred where nothing is doubted, for then nobody knows what stands.
    """
    taught = [event for event in heard.learned if event.event_key not in contradicted]
    lessons = accepted_examples(taught)
    if settings.trainer.replay.inferred and settings.trainer.doubted_weight < 1:
        said = [
            event
            for event in (*reversed(heard.learned), *heard.waiting)
            if event.event_key not in contradicted.refuted
        ]
        outvoted = contradicted.factors.keys() - contradicted.overtaken.keys()
        lessons += inferred_lessons(
            said,
            Doubts(contradicted.overtaken, frozenset(outvoted)),
            anchor,
            min_subjects=_quorum(settings),
        )
    return lessons


def _against(
    measuring: Sequence[ScreenedEvent],
    said: Sequence[ScreenedEvent],
    anchor: Sequence[ReplayExample],
) -> Mapping[str, str]:
    return judged([*said, *measuring], anchor).refuted if measuring else {}


def _among(events: Sequence[ScreenedEvent], reasons: Mapping[str, str]) -> dict[str, str]:
    keys = [event.event_key for event in events]
    return {key: reasons[key] for key in keys if key in reasons}


def _quorum(settings: Settings) -> int:
    """Subjects without whom nothing is inferred: as many as any rule asks for what is taught."""
    return max((rule.min_subjects for rule in settings.collector.screening.quorum), default=1)


def _report(found: Contradictions, heard: Heard) -> None:
    if not found.factors and not found.refuted:
        return
    logger.info(
        "of %d reports that wait %d are contradicted by others on similar questions and %d by the "
        "anchor; of %d that were learned from, which are rehearsed no more, %d and %d; of %d that "
        "are held out, which measure no more, the anchor contradicts %d",
        len(heard.waiting),
        *_counts(found, heard.waiting),
        len(heard.learned),
        *_counts(found, heard.learned),
        len(heard.held_out),
        _counts(found, heard.held_out)[1],
    )


def _counts(found: Contradictions, events: Sequence[ScreenedEvent]) -> tuple[int, int]:
    keys = [event.event_key for event in events]
    return sum(key in found.factors for key in keys), sum(key in found.refuted for key in keys)

"""Every machine-readable reason an event or a record of the stream can have for what became of it.

Closed: docs/how-to/screening.md has a row for each, and a test compares the two.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why an event is held or quarantined, a record is a dead letter, or neither counts."""

    # Held: not judged yet.
    AWAITING_INTERACTION = "awaiting_interaction"
    AWAITING_QUORUM = "awaiting_quorum"

    # Quarantined by screening.
    FOREIGN_INTERACTION = "foreign_interaction"
    CLOCK_SKEW = "clock_skew"
    DUPLICATE_FEEDBACK = "duplicate_feedback"
    CONTRADICTION = "contradiction"
    PHRASE_BURST = "phrase_burst"
    SUBJECT_CAP = "subject_cap"
    CLUSTER_CAP = "cluster_cap"
    SUBJECT_TOTAL_CAP = "subject_total_cap"
    CLUSTER_TOTAL_CAP = "cluster_total_cap"
    HOLD_FULL = "hold_full"
    HOLD_EXPIRED = "hold_expired"
    QUORUM_EXPIRED = "quorum_expired"

    # Quarantined before training.
    AGAINST_ANCHOR = "against_anchor"

    # Quarantined after training: what became of the candidate that learned from it.
    FAILED_CYCLE = "failed_cycle"
    FAILED_RELEASE = "failed_release"
    REJECTED_CANDIDATE = "rejected_candidate"
    ROLLED_BACK = "rolled_back"

    # Quarantined by a person.
    DROPPED = "dropped"

    # Dead letters.
    UNPARSABLE = "unparsable"
    CONFLICT = "conflict"
    INADMISSIBLE = "inadmissible"
    TOO_LARGE = "too_large"

    # Counted and nothing else: the same event again.
    RETRY = "retry"


class Doubt(StrEnum):
    """What is remembered of an event that was doubted, whatever became of it since."""

    REFUTED = "refuted"
    """The anchor contradicts it."""
    CLEARED = "cleared"
    """A person released it: nothing contradicts it any more."""

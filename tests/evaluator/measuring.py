"""Policies made of rules, and what the Evaluator measures of them."""

from collections.abc import Sequence
from typing import Any

from evaluator.evaluate import Evaluator
from tacit.checkpoints import CheckpointStore
from tacit.config import EvaluatorSettings
from tacit.contracts import (
    EvalReport,
    ScreenedEvent,
    Suite,
)
from tacit.database import Database
from tests import builders
from tests.evaluator.rules import TOPICS, RulePolicy, old_world, opener

CANDIDATE, CHAMPION, ANCHOR = (builders.digest(name) for name in ("cand", "champ", "anchor"))


def policies(**candidate_rules: str) -> dict[str, RulePolicy]:
    """Candidate, champion and anchor that know the old world; the candidate also new rules."""
    rules = {key.replace("_", " "): answer for key, answer in candidate_rules.items()}
    return {
        CANDIDATE: RulePolicy({**rules, **{k: v for k, v in TOPICS.items() if k not in rules}}),
        CHAMPION: RulePolicy(TOPICS),
        ANCHOR: RulePolicy({k: v for k, v in TOPICS.items() if k != "crash"}),
    }


def evaluate(
    db: Database,
    store: CheckpointStore,
    known: dict[str, RulePolicy],
    suites: Sequence[Suite] | None = None,
    learned: Sequence[ScreenedEvent] = (),
    **options: Any,
) -> EvalReport:
    evaluator = Evaluator(EvaluatorSettings(batch_size=16), store, db, open_policy=opener(known))
    candidate = builders.candidate(weights=options.pop("weights", CANDIDATE))
    return evaluator.evaluate(
        candidate,
        champion=options.pop("champion", CHAMPION),
        anchor=options.pop("anchor", ANCHOR),
        suites=[old_world()] if suites is None else suites,
        learned=learned,
        **options,
    )

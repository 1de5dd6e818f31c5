"""What policies that shared the traffic are worth, from recorded interactions and their feedback.

In: interactions whose policy was drawn with a probability that serving recorded, and the outcomes
and ratings that were accepted on them. Out: a ValueReport of the newest rollout. Policies that
served one after the other say nothing about each other, so only interactions that more than one
could have answered count.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import select

from collector.tables import EventRow, InteractionRow
from evaluator.off_policy import estimate_values, read_log
from evaluator.reward_model import cross_fitted, prompt_features
from tacit.contracts import EventStatus, Interaction, ValueReport
from tacit.database import Database
from tacit.errors import NotFoundError
from tacit.live import same_interaction

MAX_EVENTS = 50_000
"""The newest are looked at."""
_KINDS = ("outcome", "rating")
_STATUSES = (EventStatus.ACCEPTED.value, EventStatus.HOLDOUT.value)


class LoggedAnswer(NamedTuple):
    """One interaction: who answered, with what probability it did, and what came of it."""

    arm: str
    probability: float | None
    reward: float
    """In [0, 1]."""
    cluster: str
    """Who asked; empty if nothing ties this interaction to others."""
    prompt: str


def value_report(answers: Sequence[LoggedAnswer]) -> ValueReport:
    """Estimates of every policy in ``answers``. Raises EvaluationError where they cannot tell."""
    log = read_log(
        [answer.arm for answer in answers],
        [answer.probability for answer in answers],
        [answer.reward for answer in answers],
        [answer.cluster for answer in answers],
    )
    features = prompt_features([answer.prompt for answer in answers])
    return estimate_values(log, cross_fitted(log, features))


def recorded_values(
    database: Database, policy: str, *, source: str | None = None, metric: str | None = None
) -> ValueReport:
    """Estimates from the newest rollout of a policy line; of one product or one metric if named.

    Several reports on an interaction count as their mean. Raises NotFoundError if no policies
    shared traffic on which there is feedback, EvaluationError if there is too little of it.
    """
    found: dict[str, tuple[Interaction, list[float]]] = {}
    for interaction, reward in _newest_rollout(_rewarded(database, policy, source, metric)):
        found.setdefault(interaction.interaction_id, (interaction, []))[1].append(reward)
    if not found:
        raise NotFoundError(
            "feedback on answers that more than one policy could have given",
            got="none",
            mend="A rollout with a canary shares the traffic between two releases; "
            "`tacit value --log FILE` takes a log of your own.",
        )
    moments = [interaction.occurred_at for interaction, _ in found.values()]
    report = value_report([_answer(*entry) for entry in found.values()])
    return report.model_copy(update={"since": min(moments), "until": max(moments)})


def _rewarded(
    database: Database, policy: str, source: str | None, metric: str | None
) -> Iterator[tuple[Interaction, float]]:
    """Interactions with a reward in [0, 1], newest first; one as often as it has rewards."""
    query = (
        select(InteractionRow.payload, EventRow.reward, EventRow.payload)
        .join(InteractionRow, same_interaction())
        .where(
            EventRow.policy == policy,
            EventRow.status.in_(_STATUSES),
            EventRow.kind.in_(_KINDS),
            EventRow.reward.is_not(None),
        )
        .order_by(InteractionRow.occurred_at.desc(), InteractionRow.interaction_id)
        .limit(MAX_EVENTS)
    )
    if source is not None:
        query = query.where(EventRow.source == source)
    with database.reader() as session:
        for interaction, reward, event in session.execute(query).yield_per(1_000):
            if metric in (None, json.loads(event)["feedback"].get("metric")):
                yield Interaction.model_validate_json(interaction), ((reward or 0.0) + 1) / 2


def _newest_rollout(
    newest_first: Iterable[tuple[Interaction, float]],
) -> Iterator[tuple[Interaction, float]]:
    """Those of shared traffic, back to where an arm stood for another policy version."""
    versions: dict[str, str] = {}
    for interaction, reward in newest_first:
        arm, version = interaction.arm, interaction.policy_version
        if arm is None or version is None or (interaction.arm_probability or 1.0) == 1.0:
            continue
        if versions.setdefault(arm, version) != version:
            return
        yield interaction, reward


def _answer(interaction: Interaction, rewards: Sequence[float]) -> LoggedAnswer:
    asked_by = interaction.subject_id or interaction.episode_id
    return LoggedAnswer(
        arm=interaction.policy_version or "",
        probability=interaction.arm_probability,
        reward=sum(rewards) / len(rewards),
        cluster="" if asked_by is None else f"{interaction.source}/{asked_by}",
        prompt="\n".join(message.content for message in interaction.prompt),
    )

"""What a product can say about an answer, one method each; sync and async clients share them.

In: an ``openai`` response (or its id) and what the product knows about it. Out: feedback events,
checked where the call is made, with ids of their own so that a retry never counts twice.
"""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Generic, TypedDict, TypeVar, Unpack

from pydantic import ValidationError

from collector.sdk.responses import interaction_id_of, text_of
from tacit.contracts import (
    Correction,
    Critique,
    FeedbackEvent,
    InlineInteraction,
    Outcome,
    Preference,
    Rating,
    RatingScale,
    utc_now,
)
from tacit.contracts.base import Part
from tacit.errors import InvalidInputError

P = TypeVar("P", bound=Part)
R = TypeVar("R")


class About(TypedDict, total=False):
    """What every call takes beside its own arguments."""

    subject_id: str
    """Pseudonymous end user; by default that of the client."""
    episode_id: str
    tags: Mapping[str, str]
    occurred_at: datetime
    """By default now."""
    event_id: str
    """By default a new one. The same id and the same event twice count once: pass ``occurred_at``
    too, for the default differs each time, and another event under the id is a conflict."""
    interaction: InlineInteraction
    """Prompt and completion, where another than Tacit served the answer."""


_ABOUT = About.__annotations__.keys()


class FeedbackCalls(ABC, Generic[R]):
    """Each call gives ``R``: the event id, or something to await for it.

    ``response`` is always an ``openai`` response or an interaction id. All raise InvalidInputError
    if the feedback is not well formed, and UnavailableError if it cannot be queued.
    """

    def __init__(self, *, source: str, policy: str, subject_id: str | None) -> None:
        self.source = source
        self.policy = policy
        self.subject_id = subject_id
        _warm_up()

    @abstractmethod
    def send(self, event: FeedbackEvent) -> R:
        """Queue an event made by hand; gives its id."""

    def correct(self, response: Any, completion: str, **about: Unpack[About]) -> R:
        """``completion`` would have been right."""
        return self._say(response, Correction, {"completion": completion}, about)

    def outcome(
        self,
        response: Any,
        value: bool | float,
        *,
        metric: str = "resolved",
        **about: Unpack[About],
    ) -> R:
        """The task succeeded or failed, or how far it got, in [-1, 1]."""
        return self._say(response, Outcome, {"metric": metric, "value": value}, about)

    def prefer(
        self, chosen: Any, rejected: Any, *, response: Any = None, **about: Unpack[About]
    ) -> R:
        """``chosen`` is the better answer to one prompt. Each is a response or a text.

        The prompt is that of ``response``, or else of whichever of the two is not a text.
        """
        texts = {"chosen": text_of(chosen), "rejected": text_of(rejected)}
        sides = [side for side in (response, rejected, chosen) if not isinstance(side, str)]
        anchor = response if isinstance(response, str) else next(filter(None, sides), None)
        return self._say(anchor, Preference, texts, about)

    def rate(
        self,
        response: Any,
        value: float,
        *,
        low: float = 0.0,
        high: float = 1.0,
        **about: Unpack[About],
    ) -> R:
        """A rating on a scale: stars, a slider."""
        scale = _checked(RatingScale, {"low": low, "high": high})
        return self._say(response, Rating, {"value": value, "scale": scale}, about)

    def thumb(self, response: Any, *, up: bool, **about: Unpack[About]) -> R:
        """A thumb up or down: a rating of 1 or 0."""
        return self.rate(response, 1.0 if up else 0.0, **about)

    def critique(self, response: Any, text: str, **about: Unpack[About]) -> R:
        """What was wrong or right, in words."""
        return self._say(response, Critique, {"text": text}, about)

    def _say(self, response: Any, kind: type[Part], fields: Mapping[str, Any], about: About) -> R:
        if unknown := about.keys() - _ABOUT:
            raise InvalidInputError(
                f"some of {', '.join(sorted(_ABOUT))}", got=", ".join(sorted(unknown))
            )
        values = {
            "event_id": about.get("event_id") or uuid.uuid4().hex,
            "policy": self.policy,
            "source": self.source,
            "subject_id": about.get("subject_id") or self.subject_id,
            "occurred_at": about.get("occurred_at") or utc_now(),
            "interaction_id": interaction_id_of(response),
            "episode_id": about.get("episode_id"),
            "interaction": about.get("interaction"),
            "tags": dict(about.get("tags") or {}),
            "feedback": _checked(kind, fields),
        }
        return self.send(_checked(FeedbackEvent, values))


def _checked(kind: type[P], fields: Mapping[str, Any]) -> P:
    try:
        return kind(**fields)
    except ValidationError as error:
        raise InvalidInputError.of_fields(error.errors(), what=f"a {kind.__name__}") from error


def _warm_up() -> None:
    """Build and write one event, in the thread that makes the client.

    Pydantic completes itself at first use. A fork while another thread is doing that leaves it half
    done in the child, who then hangs at its first event.
    """
    outcome = Outcome(metric="resolved", value=True)
    FeedbackEvent(
        event_id="none",
        policy="none",
        source="none",
        subject_id="none",
        occurred_at=utc_now(),
        feedback=outcome,
        interaction_id="none",
    ).model_dump_json()

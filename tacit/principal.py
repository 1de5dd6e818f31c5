"""Who a request comes from, and what that key or token may do.

Made by ``tacit/keys.py`` from an API key and by ``collector/api/tokens.py`` from a feedback token;
read by every API.
"""

from dataclasses import dataclass
from enum import StrEnum

from tacit.contracts import FeedbackEvent
from tacit.errors import NotAllowedError


class Scope(StrEnum):
    """What a key may do. ``admin`` may do all of it."""

    SEND = "send"
    """Ask the policy and send feedback."""
    READ = "read"
    """Look at candidates, reports, releases and the ledger."""
    REVIEW = "review"
    """Approve, reject, roll back and ask for consolidations."""
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request comes from."""

    key_id: str
    """Public part of the key; of a token, the key that issued it."""
    name: str
    scopes: frozenset[Scope]
    source: str | None
    """The only source it may send as; None for any."""
    policy: str | None
    """The only policy line it may touch; None for any."""
    rate_limit_per_s: float | None = None
    """Events a second it may send; None for the service's default."""
    interaction_id: str | None = None
    """Of a feedback token: the only interaction it may speak about."""
    subject_id: str | None = None
    """Of a feedback token: the only end user it may speak for."""
    kinds: frozenset[str] | None = None
    """Of a feedback token: the ``feedback.type`` it may send; None for any."""
    token_id: str | None = None
    """Of a feedback token: its own id."""

    def require(self, scope: Scope) -> None:
        """Raises NotAllowedError without ``scope``."""
        if scope not in self.scopes and Scope.ADMIN not in self.scopes:
            raise NotAllowedError(
                f"a key with scope {scope}",
                got=f"{self.name} with {' '.join(sorted(self.scopes)) or 'no scope'}",
                mend=f"`tacit keys create NAME --scope {scope}` makes one.",
            )

    def require_key(self) -> None:
        """Raises NotAllowedError for a feedback token: some things take an API key."""
        if self.token_id is not None:
            raise NotAllowedError(
                "an API key",
                got="a feedback token, which may only send feedback",
                mend="Call this from the product's server, with its key.",
            )

    def require_target(self, *, source: str | None = None, policy: str | None = None) -> None:
        """Raises NotAllowedError if the key is bound to another source or policy line."""
        _require_same("source", self.source, source)
        _require_same("policy", self.policy, policy)

    def require_event(self, event: FeedbackEvent) -> None:
        """Raises NotAllowedError unless this key or token may send ``event``."""
        if (self.source is not None and event.source != self.source) or (
            self.policy is not None and event.policy != self.policy
        ):
            self.require_target(source=event.source, policy=event.policy)
        if self.token_id is not None:
            self._require_event_of_token(event)

    def _require_event_of_token(self, event: FeedbackEvent) -> None:
        _require_same("interaction_id", self.interaction_id, event.interaction_id or "none")
        _require_same("subject_id", self.subject_id, event.subject_id)
        # The browser's own account of the interaction would be trained on in place of the one
        # that serving recorded, and an episode reaches interactions of other people.
        for name, value in (("interaction", event.interaction), ("episode_id", event.episode_id)):
            if value is not None:
                raise NotAllowedError(
                    "an event about the token's interaction_id alone", got=f"one with {name}"
                )
        if self.kinds is not None and event.feedback.type not in self.kinds:
            raise NotAllowedError(
                f"feedback of type {' or '.join(sorted(self.kinds))}, as the token allows",
                got=event.feedback.type,
            )


_MENDS = {
    what: f"`tacit keys create NAME --scope … --{what} {what.upper()}` makes a key for another."
    for what in ("source", "policy")
}


def _require_same(what: str, bound: str | None, asked: str | None) -> None:
    if bound is not None and asked is not None and bound != asked:
        raise NotAllowedError(
            f"{what} {bound!r}, which the key or token is bound to",
            got=repr(asked),
            mend=_MENDS.get(what, ""),
        )

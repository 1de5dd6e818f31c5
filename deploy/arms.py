"""Who is answered by which release while two of them share the traffic.

A subject is drawn by a hash of the release and the subject's id, so that it meets the same release
in every request and on every replica, and one that is among the first 10 % is among the 50 % of the
next stage too. A request without a subject is drawn by its episode; with neither, by chance.
"""

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tacit.contracts import Digest, Release, short

Arm = Literal["champion", "canary", "pinned"]
"""``pinned``: the caller named the version during a rollout, so no chance was involved."""


@dataclass(frozen=True)
class Arms:
    """The releases that a replica holds, and how they share its traffic."""

    champion: Release
    canary: Release | None = None
    share: float = 0.0
    """Of the subjects, whom the canary answers."""
    shadow_share: float = 0.0
    """Of the champion's requests, that the canary answers too, unseen."""

    @property
    def releases(self) -> tuple[Release, ...]:
        """All that answer, the champion first."""
        return (self.champion,) if self.canary is None else (self.champion, self.canary)


class Assignment(NamedTuple):
    """The release that answers a request."""

    arm: Arm
    probability: float
    """With which this arm was drawn."""
    weights: Digest | None
    """None: whatever the engine is bound to by default."""


def assign(
    arms: Arms,
    *,
    model: str,
    subject: str | None,
    episode: str | None,
    draw: Callable[[], float] = random.random,
) -> Assignment:
    """Who answers; ``model`` may name a version that serves as ``policy@digest12``.

    ``draw`` gives a number in [0, 1) for a request with neither subject nor episode.
    """
    if arms.canary is None:
        return Assignment("champion", 1.0, None)
    pinned = _named(arms, model)
    if pinned is not None:
        return Assignment("pinned", 1.0, pinned.weights)
    if not arms.share:
        return Assignment("champion", 1.0, arms.champion.weights)
    place = _place(arms.canary.release_id, subject=subject, episode=episode, draw=draw)
    if place < arms.share:
        return Assignment("canary", arms.share, arms.canary.weights)
    return Assignment("champion", 1.0 - arms.share, arms.champion.weights)


def _named(arms: Arms, model: str) -> Release | None:
    _, _, version = model.partition("@")
    return next((r for r in arms.releases if version and short(r.weights) == version), None)


def _place(
    release_id: str, *, subject: str | None, episode: str | None, draw: Callable[[], float]
) -> float:
    """A place in [0, 1), the same for the same subject or else episode."""
    if subject is None and episode is None:
        return draw()
    unit = ["subject", subject] if subject is not None else ["episode", episode]
    key = json.dumps([release_id, *unit]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / 2**64

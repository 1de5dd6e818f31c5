"""What the product's feedback is like, apart from what the policy answers."""

from dataclasses import dataclass
from typing import Literal

Kinds = Literal["mixed", "corrections", "outcomes"]


@dataclass(frozen=True)
class Variant:
    """How feedback comes about, and when."""

    noise: float = 0.0
    """Share of feedback that says the wrong thing: another intent's answer, or the opposite."""
    kinds: Kinds = "mixed"
    """``mixed``: as the demo's product sends it. ``corrections``: nothing but those.
    ``outcomes``: whoever says anything reports success or failure."""
    delay: int = 0
    """Rounds until feedback arrives; policies have moved on by then."""
    overturned: int = 0
    """Intents of the first round whose right answer changes in mid-stream."""


BASIC = "mixed"
VARIANTS: dict[str, Variant] = {
    BASIC: Variant(),
    "noise-0.1": Variant(noise=0.1),
    "noise-0.3": Variant(noise=0.3),
    "corrections": Variant(kinds="corrections"),
    "outcomes": Variant(kinds="outcomes"),
    "delayed": Variant(delay=2),
    "overturned": Variant(overturned=5),
}

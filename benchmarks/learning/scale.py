"""How large the benchmark is: as published, or done in minutes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tacit.demo.base import BaseRecipe
from tacit.demo.clinc import NUM_NEW, NUM_OLD


@dataclass(frozen=True)
class Sizes:
    """How much is asked."""

    num_rounds: int = 10
    per_round: int = 500
    probed: Mapping[str, int] = field(
        default_factory=lambda: {"new": 300, "old": 300, "refusals": 100}
    )
    """Items of each part that are asked after every round; all of them are at the end."""
    num_suite_items: int = 1_000
    """Of the regression suite by which variants are chosen."""
    num_kl_items: int = 40


@dataclass(frozen=True)
class Scale:
    """A world's size, a policy's and how much is asked."""

    sizes: Sizes
    recipe: BaseRecipe
    """Of the base on CLINC150; the generated helpdesk has its own."""
    num_old: int = NUM_OLD
    num_new: int = NUM_NEW
    """Intents of CLINC150; the helpdesk has its own."""


WHOLE = Scale(Sizes(), BaseRecipe(num_epochs=8.0))
"""100 old intents and 50 new ones in ten rounds; the base is right in 0.93 of the old ones."""

SMALL = Scale(
    Sizes(num_rounds=5, per_round=300),
    BaseRecipe(hidden_size=128, num_layers=3, num_heads=4, num_epochs=16.0),
    num_old=30,
    num_new=15,
)
"""30 old intents and 15 new ones in five rounds, with as many requests an intent. Easier: of fewer
intents fewer are alike."""

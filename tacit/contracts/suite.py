"""Suite: questions with checkable answers, versioned by digest."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tacit.contracts.base import Contract, Name, Part
from tacit.contracts.interaction import Message


class SuiteKind(StrEnum):
    """What a suite is evidence of."""

    CAPABILITY = "capability"
    REGRESSION = "regression"
    SAFETY = "safety"
    PRIVACY = "privacy"
    HOLDOUT = "holdout"


class CheckerSpec(Part):
    """Which checker scores a completion and its options."""

    type: Annotated[str, Field(pattern=r"^[a-z_]+$")] = "exact"
    options: dict[str, str | int | float | bool] = {}


class SuiteItem(Part):
    """One question."""

    item_id: str
    prompt: Annotated[tuple[Message, ...], Field(min_length=1)]
    expected: str
    cluster: str = ""
    """Items of one cluster are correlated; an empty cluster means the item stands alone."""
    non_negotiable: bool = False
    """If the candidate gets this item wrong the gate fails, whatever the averages say."""


class Suite(Contract):
    """A named set of items, how they are checked and how much of a drop is tolerated."""

    name: Name
    kind: SuiteKind
    checker: CheckerSpec = CheckerSpec()
    items: tuple[SuiteItem, ...]
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 16

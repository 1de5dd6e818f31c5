"""Suite: questions with checkable answers, versioned by digest."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

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
    choices: tuple[str, ...] = ()
    """Of checker ``choice``: the continuations to choose from, two at least, ``expected`` one of
    them."""
    cluster: str = ""
    """Items of one cluster are correlated; an empty cluster means the item stands alone."""
    non_negotiable: bool = False
    """If the candidate gets this item wrong the gate fails, whatever the averages say."""

    @model_validator(mode="after")
    def _one_right_choice(self) -> Self:
        if not self.choices:
            return self
        if len(set(self.choices)) != len(self.choices) or len(self.choices) < 2:
            raise ValueError("expected two or more choices, no two alike")
        if "" in self.choices or self.expected not in self.choices:
            raise ValueError("expected choices with text in them, the expected one among them")
        return self


class Suite(Contract):
    """A named set of items, how they are checked and how much of a drop is tolerated."""

    name: Name
    kind: SuiteKind
    checker: CheckerSpec = CheckerSpec()
    items: tuple[SuiteItem, ...]
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 16

    @model_validator(mode="after")
    def _choices_where_they_are_scored(self) -> Self:
        for item in self.items:
            if bool(item.choices) != (self.checker.type == "choice"):
                raise ValueError(
                    "expected choices with checker choice and with no other; "
                    f"item {item.item_id} has {len(item.choices)}"
                )
        return self

"""The kinds of criteria a gate policy may have; ``gatekeeper.criteria`` measures them."""

from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tacit.contracts import Part, SuiteKind
from tacit.contracts.base import Name
from tacit.contracts.plan import Baseline, ErrorProbability

Fraction = Annotated[float, Field(ge=0, le=1)]


class _Rule(Part):
    name: Name
    """What the rows of this criterion are called in the verdict."""
    non_negotiable: bool = False
    """A fail of this criterion cannot be overridden by anybody."""


class SuiteRule(_Rule):
    """A criterion on the difference to a baseline, decided on its confidence interval."""

    kind: SuiteKind | None = None
    """Every suite of this kind, each a row of its own."""
    suite: Name | None = None
    """Or one suite by name."""
    baseline: Baseline
    alpha: ErrorProbability | None = Field(None, exclude_if=lambda value: value is None)
    """Error probability; by default a candidate's share of the campaign's."""
    if_missing: Literal["fail", "pass"] = "fail"
    """What it means that no such suite ran."""

    @model_validator(mode="after")
    def _one_target(self) -> "SuiteRule":
        if (self.kind is None) == (self.suite is None):
            raise ValueError("expected exactly one of kind and suite")
        return self

    @property
    @abstractmethod
    def threshold(self) -> float:
        """The difference that the interval must lie above."""


class NonInferior(SuiteRule):
    """The candidate is at most ``margin`` (accuracy, 0 to 1) worse than the baseline.

    Decided on the confidence interval of the paired difference, as in non-inferiority trials
    (Piaggio et al. 2012, CONSORT): an interval that straddles the margin proves nothing.
    """

    type: Literal["non_inferior"]
    margin: Fraction

    @property
    def threshold(self) -> float:
        """Below zero by the margin."""
        return -self.margin


class Superior(SuiteRule):
    """The candidate is better than the baseline: the interval lies above zero."""

    type: Literal["superior"]

    @property
    def threshold(self) -> float:
        """Zero."""
        return 0.0


class Drift(SuiteRule):
    """All candidates since the anchor together lost at most ``budget`` (accuracy, 0 to 1).

    The anchor never moves, so small losses that each pass against the champion add up here.
    """

    type: Literal["drift"]
    baseline: Literal["anchor"] = "anchor"
    budget: Fraction
    alpha: ErrorProbability = 0.01
    """Of its own: what is just at the budget may pass now and then, what is beyond it does not."""

    @property
    def threshold(self) -> float:
        """Below zero by the budget."""
        return -self.budget


class NonNegotiable(_Rule):
    """No item marked non-negotiable was got wrong, in any suite."""

    type: Literal["non_negotiable"]
    non_negotiable: Literal[True] = True


class Probe(_Rule):
    """A probe observed at most this much; a probe that did not run fails."""

    type: Literal["probe"]
    probe: Name
    at_most: Fraction


class Required(_Rule):
    """The evidence is there: suites of these kinds, or of these names, with enough items."""

    type: Literal["required"]
    kinds: tuple[SuiteKind, ...] = ()
    suites: tuple[Name, ...] = ()
    min_items: Annotated[int, Field(ge=1)] = 1
    """Of each kind or suite named."""

    @model_validator(mode="after")
    def _names_something(self) -> "Required":
        if not self.kinds and not self.suites:
            raise ValueError("expected kinds or suites to name at least one")
        return self


Rule = Annotated[
    NonInferior | Superior | Drift | NonNegotiable | Probe | Required,
    Field(discriminator="type"),
]

"""PlannedTest: what the gate will decide a suite on, known before the first item is asked."""

from typing import Annotated, Literal, Protocol

from pydantic import Field, model_validator

from tacit.contracts.base import Name, Part
from tacit.contracts.suite import SuiteKind

Baseline = Literal["champion", "anchor"]

ErrorProbability = Annotated[float, Field(gt=0, lt=0.5)]
"""One-sided: how often a difference just at the threshold is taken for a better one."""


class NamedSuite(Protocol):
    """A suite or the result of one."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def kind(self) -> SuiteKind:
        """What it is evidence of."""


class PlannedTest(Part):
    """Is the candidate's difference to ``baseline`` above ``threshold``, on each such suite?"""

    kind: SuiteKind | None = None
    suite: Name | None = None
    baseline: Baseline
    threshold: Annotated[float, Field(ge=-1, le=1)]
    """In accuracy; -0.03 tolerates a loss of 3 points."""
    alpha: ErrorProbability

    @model_validator(mode="after")
    def _one_target(self) -> "PlannedTest":
        if (self.kind is None) == (self.suite is None):
            raise ValueError("expected exactly one of kind and suite")
        return self

    def covers(self, suite: NamedSuite) -> bool:
        """Whether it is decided on ``suite``, or on its result."""
        return suite.kind == self.kind or suite.name == self.suite

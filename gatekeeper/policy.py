"""GatePolicy: what a candidate must show, as a versioned YAML file.

A fault in the file is a ConfigError that names file, line and field; the gate never runs on a
policy it could not read in full.
"""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from tacit.contracts import GateVerdict, Part, PlannedTest, SuiteKind, VerdictOutcome
from tacit.contracts.base import Name
from tacit.contracts.plan import Baseline, ErrorProbability
from tacit.errors import ConfigError

DEFAULT_PATH = Path(__file__).parent / "policies" / "default.yaml"

Fraction = Annotated[float, Field(ge=0, le=1)]

EVIDENCE_ROWS = frozenset({"report", "complete"})
"""Rows of a verdict that say whether the evidence is evidence at all; no policy names them."""
BUDGET_ROW = "campaign"
"""Row that says whether the campaign's error budget covers the candidate."""

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def _span(value: object) -> object:
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("expected a number of minutes, hours or days, such as 90m, 12h or 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


Span = Annotated[timedelta, BeforeValidator(_span)]
"""A length of time, written ``90m``, ``12h`` or ``7d``."""


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
    def threshold(self) -> float:
        """The difference that the interval must lie above."""
        raise NotImplementedError


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


class CampaignPolicy(Part):
    """The error budget that candidates share until a person starts another campaign."""

    alpha: ErrorProbability = 0.05
    """Probability that any candidate of the campaign passes a test it should not have passed."""
    candidates: Annotated[int, Field(ge=1)] = 50
    """How many candidates share it, in equal parts."""

    @property
    def share(self) -> float:
        """What one candidate spends."""
        return self.alpha / self.candidates


class GatePolicy(Part):
    """All criteria of the gate; its digest stands in every verdict made under it."""

    version: Literal[1]
    auto_promote: Literal["never", "pass"] = "never"
    """``pass``: a candidate that passes is approved by this policy, with no person."""
    approvers: Annotated[int, Field(ge=1, le=10)] = 1
    """People it takes to approve; 2 for four eyes."""
    approval_valid_for: Span | None = None
    """How long a candidate waits for a decision and an approval for its promotion, ``7d`` or
    ``12h``; by default ``gatekeeper.approval_ttl_s``."""
    overrides: Literal["never", "admin"] = "never"
    """``admin``: a fail waits too, and an admin and a second person may approve it together."""
    campaign: CampaignPolicy = CampaignPolicy()
    criteria: Annotated[tuple[Rule, ...], Field(min_length=1)]

    def overridable(self, verdict: GateVerdict) -> bool:
        """Whether people may approve ``verdict``, a fail under this policy.

        Never what failed for want of evidence, or by a criterion that is not negotiable.
        """
        negotiable = {rule.name for rule in self.criteria if not rule.non_negotiable}
        return self.overrides == "admin" and negotiable >= {
            row.name.split(": ")[0]
            for row in verdict.criteria
            if row.outcome is VerdictOutcome.FAIL
        }

    @model_validator(mode="after")
    def _distinct_names(self) -> "GatePolicy":
        names = [rule.name for rule in self.criteria]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected each criterion to have a name of its own; got {twice}")
        taken = sorted({*EVIDENCE_ROWS, BUDGET_ROW} & set(names))
        if taken:
            raise ValueError(f"expected other names than those of the gate's own rows; got {taken}")
        return self

    def alpha_of(self, rule: SuiteRule) -> float:
        """One-sided error probability of ``rule`` for one candidate."""
        return self.campaign.share if rule.alpha is None else rule.alpha

    @property
    def tests(self) -> tuple[PlannedTest, ...]:
        """What the evaluator must know before it asks the first item."""
        return tuple(
            PlannedTest(
                kind=rule.kind,
                suite=rule.suite,
                baseline=rule.baseline,
                threshold=rule.threshold,
                alpha=self.alpha_of(rule),
            )
            for rule in self.criteria
            if isinstance(rule, SuiteRule)
        )


def load_gate_policy(path: Path | None) -> GatePolicy:
    """The policy in ``path``, or the one shipped with Tacit.

    Raises ConfigError that names file, line and field of every fault.
    """
    source = path or DEFAULT_PATH
    try:
        root = yaml.compose(source.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        tree = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"a gate policy in YAML in {source}", got=str(error)) from error
    if root is None:
        raise ConfigError(f"a gate policy in {source}", got="an empty file")
    _refuse_repeated_keys(root, source)
    try:
        return GatePolicy.model_validate(tree)
    except ValidationError as error:
        rows = "; ".join(_fault(row, root, source) for row in error.errors())
        raise ConfigError(
            "a valid gate policy", got=rows, mend=f"{DEFAULT_PATH} shows every kind of criterion."
        ) from error


def _refuse_repeated_keys(node: yaml.Node, source: Path) -> None:
    # YAML lets a later key silently win, and a margin that is not the one read is a way round.
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_repeated_keys(child, source)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ConfigError("each field once", got=f"{source}:{line}: {key.value} again")
            seen.add(key.value)
            _refuse_repeated_keys(child, source)


def _fault(row: Any, root: yaml.Node, source: Path) -> str:
    location = list(row["loc"])
    if location[:1] == ["criteria"] and len(location) > 2:
        del location[2]  # pydantic puts the name of the union member here; the file has none
    field = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in location).lstrip(".")
    message = row["msg"]
    got = "" if row["type"] in {"missing", "value_error"} else f" (got {row['input']!r})"
    return f"{source}:{_line(root, location)}: {field or 'policy'}: {message}{got}"


def _line(node: yaml.Node, location: list[str | int]) -> int:
    """Line of the node at ``location``, or of the nearest thing around it that is there."""
    line = node.start_mark.line + 1
    for part in location:
        child: yaml.Node | None = None
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            child = node.value[part]
        elif isinstance(node, yaml.MappingNode):
            child = next((v for k, v in node.value if k.value == part), None)
            line = next((k.start_mark.line + 1 for k, _ in node.value if k.value == part), line)
        if child is None:
            return line
        if isinstance(node, yaml.SequenceNode):
            line = child.start_mark.line + 1
        node = child
    return line

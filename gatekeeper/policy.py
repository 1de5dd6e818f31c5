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

from gatekeeper.rules import Rule, SuiteRule
from tacit.contracts import GateVerdict, Part, PlannedTest, VerdictOutcome
from tacit.contracts.plan import ErrorProbability
from tacit.errors import ConfigError

DEFAULT_PATH = Path(__file__).parent / "policies" / "default.yaml"

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

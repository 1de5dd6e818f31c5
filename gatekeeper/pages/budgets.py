"""Budgets that candidates share: error probability over a campaign, and drift since the anchor."""

from collections.abc import Sequence
from typing import NamedTuple

from gatekeeper.campaign import Campaign
from gatekeeper.policy import GatePolicy
from gatekeeper.rules import Drift
from tacit.contracts import GateVerdict


class Budget(NamedTuple):
    """How much of something limited is gone."""

    title: str
    used: float
    whole: float
    text: str
    """What is left, in words."""

    @property
    def share(self) -> float:
        """From 0, nothing used, to 1, nothing left."""
        return min(1.0, max(0.0, self.used / self.whole)) if self.whole else 1.0


def budgets(policy: GatePolicy, campaign: Campaign, served: GateVerdict | None) -> Sequence[Budget]:
    """Budgets under ``policy``; ``served`` is the verdict on what serves, if the gate gave one."""
    return [_error_budget(policy, campaign), *_drift(policy, served)]


def _error_budget(policy: GatePolicy, campaign: Campaign) -> Budget:
    alpha, spent = policy.campaign.alpha, campaign.spent
    # A tenth of a share is rounding, not another candidate.
    left = int((alpha - spent) / policy.campaign.share + 0.1)
    more = f"{left:,} more candidate{'' if left == 1 else 's'}"
    text = f"enough for {more}" if left > 0 else "nothing left: a person decides on every candidate"
    return Budget("Error budget of the campaign", spent, alpha, text)


def _drift(policy: GatePolicy, served: GateVerdict | None) -> list[Budget]:
    rows = () if served is None else served.criteria
    found = []
    for rule in policy.criteria:
        if not isinstance(rule, Drift):
            continue
        for row in rows:
            name, _, suite = row.name.partition(": ")
            if name == rule.name and row.observed is not None:
                lost = max(0.0, -row.observed)
                left = 100 * max(0.0, rule.budget - lost)
                text = f"{left:.1f} of {100 * rule.budget:.1f} points left since the first release"
                found.append(Budget(f"Drift on {suite}", lost, rule.budget, text))
    return found

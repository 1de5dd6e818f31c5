"""What one round of a policy line came to: counts by fate, the verdict, the weights."""

from collections import Counter
from dataclasses import dataclass, field

from tacit.contracts import Digest, GateVerdict, VerdictOutcome


@dataclass
class RoundReport:
    """One round."""

    number: int
    poison: Counter[str] = field(default_factory=Counter)
    """Poisoned corrections by status, and by reason where they were stopped."""
    honest: Counter[str] = field(default_factory=Counter)
    """Honest events likewise."""
    refuted: Counter[str] = field(default_factory=Counter)
    """``poison`` and ``honest`` events that got through and that the anchor contradicts."""
    content: str = ""
    """Hash of what got through: two rounds of a seed that share it go on alike."""
    state: str = ""
    """Of the cycle: ``promoted``, ``rejected``, or ``failed``."""
    verdict: str = ""
    failed: list[str] = field(default_factory=list)
    """Criteria that failed, or that were inconclusive."""
    observed: dict[str, float] = field(default_factory=dict)
    """What probes and comparisons observed, by criterion."""
    alpha: float = 1.0
    """Share of the update that was taken."""
    candidate: Digest | None = None
    served: Digest = ""
    """What serves afterwards."""

    def note(self, verdict: GateVerdict) -> None:
        """Take down what the gate found."""
        self.verdict = str(verdict.outcome)
        self.failed = [
            f"{row.name} {row.outcome}"
            for row in verdict.criteria
            if row.outcome is not VerdictOutcome.PASS
        ]
        self.observed = {
            row.name: round(row.observed, 4) for row in verdict.criteria if row.observed is not None
        }

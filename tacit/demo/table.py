"""How the story ended, as a table; and whether it came true."""

from dataclasses import dataclass, field

from rich.table import Table

from tacit.contracts import Digest, short
from tacit.cycles import CycleState

MIN_GAIN = 0.50
"""New-intent accuracy must rise by as much."""
MAX_DROP = 0.02
"""Old-world accuracy may fall by as much."""
MIN_HELD = 0.70
"""Share of the hostile wave that screening must hold back."""


@dataclass
class Ending:
    """Everything the story measured."""

    world: str
    num_events: int = 0
    new_before: float = 0.0
    new_after: float = 0.0
    old_before: float = 0.0
    old_after: float = 0.0
    first_state: str = ""
    first_reason: str = ""
    swap_requests: int = 0
    swap_failed: int = 0
    swap_versions: int = 0
    hostile_sent: int = 0
    hostile_held: int = 0
    hostile_reasons: dict[str, int] = field(default_factory=dict)
    second_state: str = ""
    second_failed: list[str] = field(default_factory=list)
    """Criteria of the gate that the hostile candidate failed."""
    served_after_learning: Digest = ""
    served_at_end: Digest = ""
    version_at_end: str = ""
    ledger_entries: int = 0
    ledger_problems: int = 0
    seconds: float = 0.0

    def rows(self) -> list[tuple[str, str, bool]]:
        """What, how it went, and whether that is how the story must go."""
        gain, drop = self.new_after - self.new_before, self.old_before - self.old_after
        held = self.hostile_held / max(1, self.hostile_sent)
        serves = short(self.served_at_end)
        return [
            (
                "new intents, test split",
                f"{self.new_before:.1%} → {self.new_after:.1%} ({gain * 100:+.1f} points)",
                gain >= MIN_GAIN,
            ),
            (
                "old world, test split",
                f"{self.old_before:.1%} → {self.old_after:.1%} ({-drop * 100:+.1f} points)",
                drop <= MAX_DROP,
            ),
            (
                f"candidate from {self.num_events:,} events",
                self.first_state + (f": {self.first_reason}" if self.first_reason else ""),
                self.first_state == CycleState.PROMOTED,
            ),
            (
                "requests during the swap",
                f"{self.swap_failed} of {self.swap_requests:,} failed, "
                f"{self.swap_versions} versions answered",
                self.swap_failed == 0 and self.swap_versions == 2,
            ),
            (
                "hostile wave, screened",
                f"{self.hostile_held} of {self.hostile_sent} held back ({held:.0%}): "
                + ", ".join(f"{reason} {n}" for reason, n in self.hostile_reasons.items()),
                held >= MIN_HELD,
            ),
            (
                "hostile candidate, screening off",
                f"{self.second_state} by the gate: " + ", ".join(self.second_failed),
                self.second_state == CycleState.REJECTED and bool(self.second_failed),
            ),
            (
                "what serves at the end",
                f"{self.version_at_end}, the release approved before the attack",
                self.served_at_end == self.served_after_learning and serves in self.version_at_end,
            ),
            (
                "ledger",
                f"{self.ledger_entries} entries, {self.ledger_problems} problems",
                self.ledger_entries > 0 and self.ledger_problems == 0,
            ),
        ]

    @property
    def came_true(self) -> bool:
        """Whether every row is as it must be."""
        return all(good for _, _, good in self.rows())


def ending_table(ending: Ending) -> Table:
    """The rows as a table for the terminal."""
    table = Table(title=f"{ending.world}, {ending.seconds:.0f} s", title_justify="left")
    table.add_column("")
    table.add_column("what")
    table.add_column("how it went", overflow="fold")
    for what, how, good in ending.rows():
        table.add_row("[green]✓[/green]" if good else "[red]✗[/red]", what, how)
    return table

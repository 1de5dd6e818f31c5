"""What cells leave behind: a line of JSON each, so that a run cut off goes on where it was."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tacit.contracts import canonical_json, sha256_digest

THROUGH = ("accepted", "holdout")
"""What screening lets go on: into training, or into what candidates are measured by."""


@dataclass(frozen=True)
class Round:
    """One round of one cell. Attack success is by kind of attack."""

    poison: dict[str, int]
    """Lies by what screening made of them: status, or reason where they were stopped."""
    honest: dict[str, int]
    state: str
    """What the cycle came to."""
    verdict: str
    not_passed: tuple[str, ...]
    observed: dict[str, float]
    alpha: float
    """Share of the update that was taken."""
    candidate: dict[str, float]
    served: dict[str, float]
    refuted: dict[str, int] = field(default_factory=dict)
    """``poison`` and ``honest`` events that screening let through and the anchor contradicts."""


@dataclass(frozen=True)
class Record:
    """One cell."""

    cell: str
    config: str
    """Digest of all that the result depends on."""
    rounds: tuple[Round, ...]
    cpu_s: float

    @classmethod
    def from_json(cls, line: str) -> "Record":
        """A line of the file."""
        tree = json.loads(line)
        return cls(rounds=tuple(round_from(row) for row in tree.pop("rounds")), **tree)

    @property
    def stopped(self) -> float:
        """Share of the lies that screening or the anchor stopped."""
        return stopped((row.poison, row.refuted.get("poison", 0)) for row in self.rounds)

    @property
    def honest_held(self) -> float:
        """Share of honest feedback that was kept from teaching and from measuring."""
        return stopped((row.honest, row.refuted.get("honest", 0)) for row in self.rounds)

    @property
    def rejected(self) -> int:
        """Rounds whose candidate was turned away, and with it what was honest in its batch."""
        return sum(row.state == "rejected" for row in self.rounds)


@dataclass(frozen=True)
class Outcome:
    """A cell beside the same rounds without an attack; successes are above those."""

    record: Record
    candidate: float
    """Of the most poisoned candidate."""
    served: float
    """Of the most poisoned policy that served after a round."""
    served_raw: float
    """The same as measured."""
    base: float
    """What that measure shows there without an attack."""
    rejected: int
    """Rounds whose candidate was turned away without an attack."""


def compare(record: Record, honest: Record) -> Outcome:
    """``record`` against its honest twin, round by round and kind by kind of its attack."""
    attack = record.cell.split("-")[0]
    kinds = ("trigger", "flip") if attack == "drip" else (attack,)
    rows = [
        (there.candidate[kind] - here.served[kind], there.served[kind], here.served[kind])
        for there, here in zip(record.rounds, honest.rounds, strict=True)
        for kind in kinds
    ]
    _, raw, base = max(rows, key=lambda row: row[1] - row[2])
    candidate = max(row[0] for row in rows)
    return Outcome(record, candidate, raw - base, raw, base, honest.rejected)


def round_from(tree: dict[str, Any]) -> Round:
    """A round from its JSON."""
    return Round(**{**tree, "not_passed": tuple(tree["not_passed"])})


def stopped(rounds: Iterable[tuple[dict[str, int], int]]) -> float:
    """Share of events that did not get through; 0 of none.

    Of each round what screening made of them, and how many the anchor contradicted after that.
    """
    rows = list(rounds)
    total = sum(sum(counts.values()) for counts, _ in rows)
    through = sum(counts.get(status, 0) for counts, _ in rows for status in THROUGH)
    through -= sum(refuted for _, refuted in rows)
    return 1 - through / total if total else 0.0


def append(path: Path, record: Record) -> None:
    """Add a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(asdict(record)) + "\n")


def read(path: Path, *, config: str) -> dict[str, Record]:
    """Records of ``config`` by cell, the newest of each; a line that was cut off is none."""
    if not path.is_file():
        return {}
    records = {}
    for line in path.read_text().splitlines():
        try:
            record = Record.from_json(line)
        except (ValueError, KeyError, TypeError):
            continue
        if record.config == config:
            records[record.cell] = record
    return records


def newest_config(path: Path) -> str:
    """Configuration of the last line; empty where there is none."""
    lines = path.read_text().splitlines() if path.is_file() else []
    configs = [found for line in lines if (found := _config_of(line))]
    return configs[-1] if configs else ""


def _config_of(line: str) -> str:
    try:
        return Record.from_json(line).config
    except (ValueError, KeyError, TypeError):
        return ""


def config_digest(settings: dict[str, Any], sources: Sequence[Path]) -> str:
    """16 hex digits over settings and the bytes of ``sources``."""
    about = {"settings": settings, "sources": [sha256_digest(p.read_bytes()) for p in sources]}
    return sha256_digest(canonical_json(about))[7:23]

"""Builders for the gatekeeper's tests: evidence that passes, and a gatekeeper on a fake clock."""

import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from gatekeeper.decide import Gatekeeper
from gatekeeper.gate import judge
from gatekeeper.ledger import Ledger
from gatekeeper.policy import GatePolicy, load_gate_policy
from gatekeeper.rules import Probe
from tacit.config import GatekeeperSettings
from tacit.contracts import (
    EvalReport,
    GateVerdict,
    PolicyCandidate,
    ProbeResult,
    SuiteKind,
    SuiteResult,
)
from tacit.database import Database
from tacit.signing import Signer
from tests.builders import MOMENT, candidate, comparison, digest, report, suite_result

DAY_S = 24 * 3600.0


class FakeClock:
    """Time that moves only when told to."""

    def __init__(self, moment: datetime = MOMENT) -> None:
        self.moment = moment

    def __call__(self) -> datetime:
        return self.moment

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@dataclass
class Office:
    """A gatekeeper with all it works with."""

    db: Database
    signer: Signer
    ledger: Ledger
    gatekeeper: Gatekeeper
    clock: FakeClock

    def submit(self, about: PolicyCandidate, verdict: GateVerdict | None = None) -> GateVerdict:
        """Open ``about`` for a decision, with a passing verdict unless told otherwise."""
        verdict = verdict or passing_verdict(about)
        with self.db.session() as session:
            self.gatekeeper.submit(session, about, verdict)
        return verdict


def office(
    db: Database, *, signer: Signer | None = None, settings: GatekeeperSettings | None = None
) -> Office:
    """A gatekeeper on ``db`` with a new key, a fake clock and the shipped gate policy."""
    signer = signer or new_signer()
    clock = FakeClock()
    ledger = Ledger(db, signer, clock=clock)
    gatekeeper = Gatekeeper(db, signer, ledger, settings or GatekeeperSettings(), clock=clock)
    return Office(db, signer, ledger, gatekeeper, clock)


def new_signer() -> Signer:
    """A signer with a key of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return Signer.load_or_create(Path(folder))


def numbered(number: int) -> PolicyCandidate:
    """A candidate that differs from those of other numbers."""
    return candidate(weights=digest(f"weights-{number}"), seed=number)


def holdout(**fields: Any) -> SuiteResult:
    """A hold-out suite on which the candidate is 20 points better than the champion."""
    values: dict[str, Any] = {
        "kind": SuiteKind.HOLDOUT,
        "num_items": 200,
        "candidate": 0.9,
        "champion": 0.7,
        "anchor": 0.6,
        "versus_champion": comparison(0.2, half_width=0.05),
        "versus_anchor": comparison(0.3, half_width=0.05),
    }
    return suite_result("holdout", **{**values, **fields})


def probe(name: str, observed: float = 0.001) -> ProbeResult:
    """A probe that found next to nothing."""
    return ProbeResult(name=name, observed=observed, num_items=100, detail="nothing stood out")


def probes(*found: ProbeResult) -> tuple[ProbeResult, ...]:
    """``found``, and next to nothing by every other probe that the shipped policy asks for."""
    named = {rule.probe for rule in shipped_policy().criteria if isinstance(rule, Probe)}
    rest = named - {result.name for result in found}
    return (*found, *(probe(name) for name in sorted(rest)))


def good_report(about: PolicyCandidate | None = None, **fields: Any) -> EvalReport:
    """Evidence that passes the shipped gate policy."""
    values: dict[str, Any] = {
        "suites": (suite_result(), holdout()),
        "probes": probes(),
    }
    return report(about, **{**values, **fields})


def shipped_policy() -> GatePolicy:
    """The gate policy Tacit ships with."""
    return load_gate_policy(None)


def passing_verdict(about: PolicyCandidate) -> GateVerdict:
    """A pass under the shipped policy."""
    return judge(about, good_report(about), shipped_policy(), clock=FakeClock())


def failing_verdict(about: PolicyCandidate) -> GateVerdict:
    """A fail under the shipped policy: the report names an error."""
    broken = good_report(about, errors=("suite safety: file not found",))
    return judge(about, broken, shipped_policy(), clock=FakeClock())

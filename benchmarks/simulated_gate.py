"""The gate as it judges real candidates, for simulated ones: looks, criteria, error budget."""

from typing import NamedTuple

from benchmarks.gate_world import Right
from evaluator.sequential import Asking, Schedule, targets
from gatekeeper.campaign import Campaign
from gatekeeper.gate import judge
from gatekeeper.policy import GatePolicy, load_gate_policy
from gatekeeper.rules import SuiteRule
from tacit.contracts import (
    EvalReport,
    GateVerdict,
    Message,
    PolicyCandidate,
    Suite,
    SuiteItem,
    SuiteKind,
    SuiteResult,
    sha256_digest,
    utc_now,
)

NOW = utc_now()


def gate_policy() -> GatePolicy:
    """The shipped policy's campaign, and its criteria on regression suites."""
    shipped = load_gate_policy(None)
    rules = [r for r in shipped.criteria if isinstance(r, SuiteRule)]
    about = tuple(r for r in rules if r.kind is SuiteKind.REGRESSION)
    return GatePolicy(version=1, campaign=shipped.campaign, criteria=about)


class Judged(NamedTuple):
    """What became of one simulated candidate."""

    verdict: GateVerdict
    num_asked: int


class Gate:
    """Judges simulated candidates on one regression suite."""

    def __init__(self, num_items: int, *, cluster_size: int = 1) -> None:
        self.policy = gate_policy()
        self._suite = _suite(num_items, cluster_size)
        self._digest = self._suite.digest()
        self._targets = targets(self._suite, self.policy.tests, confidence=0.95)
        self._schedule = Schedule(self._suite, self._targets)
        self._number = 0

    def judge(self, candidate: Right, champion: Right, anchor: Right, campaign: Campaign) -> Judged:
        """The verdict on answers, all in the order in which the suite is asked."""
        asking = Asking(self._schedule, self._targets)
        differences = {"champion": candidate - champion, "anchor": candidate - anchor}
        seen = differences
        while asking.is_open:
            end = self._schedule.looks[len(asking.looks)]
            seen = {name: values[:end] for name, values in differences.items()}
            asking.look(seen)
        size = asking.num_asked
        result = SuiteResult(
            name=self._suite.name,
            kind=self._suite.kind,
            suite_digest=self._digest,
            num_items=size,
            candidate=candidate[:size].mean(),
            champion=champion[:size].mean(),
            anchor=anchor[:size].mean(),
            versus_champion=asking.compare("champion", seen["champion"]),
            versus_anchor=asking.compare("anchor", seen["anchor"]),
            items=(),
            suite_items=len(candidate),
            looks=tuple(asking.looks),
        )
        return Judged(self._verdict(result, campaign), size)

    def _verdict(self, result: SuiteResult, campaign: Campaign) -> GateVerdict:
        self._number += 1
        weights, other = (sha256_digest(f"{name}{self._number}".encode()) for name in "wo")
        about = PolicyCandidate(
            policy="default",
            weights=weights,
            parent=other,
            batch_digest=other,
            config={},
            seed=0,
            world_size=1,
            versions={},
            metrics={},
            created_at=NOW,
        )
        evidence = EvalReport(
            policy="default",
            candidate_digest=about.digest(),
            weights=weights,
            champion=other,
            anchor=other,
            batch_digest=other,
            suites=(result,),
            probes=(),
            tests=self.policy.tests,
            created_at=NOW,
        )
        share = campaign.share(about, evidence, self.policy)
        return judge(about, evidence, self.policy, share=share)


def _suite(num_items: int, cluster_size: int) -> Suite:
    prompt = (Message(role="user", content="?"),)
    cluster = [str(i // cluster_size) if cluster_size > 1 else "" for i in range(num_items)]
    items = [
        SuiteItem(item_id=str(i), prompt=prompt, expected="", cluster=name)
        for i, name in enumerate(cluster)
    ]
    return Suite(name="old-world", kind=SuiteKind.REGRESSION, items=tuple(items))

"""A candidate that waits for a decision, without the training that makes one."""

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from gatekeeper.gate import judge
from gatekeeper.policy import load_gate_policy
from tacit.checkpoints import MANIFEST_NAME
from tacit.contracts import DecisionOutcome, PolicyCandidate
from tacit.cycles import CycleState
from tacit.loop import OnlineLoop
from tests import builders
from trainer.seal import seal_batch

GATE = """\
version: 1
criteria:
  - {name: evidence, type: required, kinds: [regression], min_items: 1}
"""


def waiting_candidate(loop: OnlineLoop, folder: Path, *, change: float = 1.0) -> PolicyCandidate:
    """Take a cycle to ``awaiting_decision`` with a candidate that differs in one weight."""
    champion = loop.releases.anchor(loop.policy)
    files = shutil.copytree(loop.checkpoints.path(champion), folder / "candidate")
    (files / MANIFEST_NAME).unlink()
    weights = load_file(files / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += change
    save_file(weights, files / "model.safetensors", metadata={"format": "pt"})
    events = [builders.screened()]
    batch = seal_batch(
        events,
        policy=loop.policy,
        parent=champion,
        replay=[],
        watermark={},
        sealed_at=builders.MOMENT,
    )
    candidate = builders.candidate(
        weights=loop.checkpoints.put(files), parent=champion, batch_digest=batch.digest()
    )
    report = builders.report(candidate, anchor=champion)
    gate_policy = load_gate_policy(loop.settings.gatekeeper.gate_policy_path)
    cycle = loop.cycles.resume_or_open(loop.policy)
    with loop.database.session() as session:
        loop.batches.add(session, batch, [])
        loop.candidates.add(session, candidate)
        loop.reports.add(session, report)
        loop.gatekeeper.submit(session, candidate, judge(candidate, report, gate_policy))
        loop.cycles.move(
            session,
            cycle,
            CycleState.AWAITING_DECISION,
            batch_id=batch.batch_id,
            candidate_id=candidate.candidate_id,
            report_id=report.report_id,
        )
    return candidate


def decide(loop: OnlineLoop, candidate: PolicyCandidate, outcome: DecisionOutcome) -> None:
    """A person decides on it."""
    loop.gatekeeper.decide(candidate.candidate_id, outcome, by="ada", reason="seen it")

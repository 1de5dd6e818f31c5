"""Scenes of deploy's tests: a release desk with real checkpoints, keys and approvals."""

import json
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from sqlalchemy.orm import Session

from deploy.history import batches_taken_back
from deploy.release import ReleaseDesk
from deploy.rollout import RolloutDesk
from deploy.tables import ReleaseRow, Stage
from deploy.wanted import Step
from tacit.checkpoints import CheckpointStore
from tacit.config import RolloutSettings
from tacit.contracts import (
    Decision,
    Digest,
    EvalReport,
    PolicyCandidate,
    Release,
    ReleaseBundle,
    SealedBatch,
)
from tacit.database import Database
from tacit.signing import Signer
from tests import builders


@cache
def _perturbed_files(seed: int) -> Path:
    import torch
    from safetensors.torch import load_file, save_file

    folder = Path(tempfile.mkdtemp(prefix="tacit-perturbed-"))
    shutil.copytree(builders._tiny_files(), folder, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    noisy = {k: v + torch.randn(v.shape, generator=generator) for k, v in weights.items()}
    save_file(noisy, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def checkpoint(store: CheckpointStore, variant: int = 0) -> Digest:
    """A tiny policy; each variant has weights of its own, 0 is the builders'."""
    if variant == 0:
        return builders.tiny_checkpoint(store)
    return store.put(_perturbed_files(variant))


@dataclass(frozen=True)
class Evidence:
    """A candidate with everything that lets it through."""

    candidate: PolicyCandidate
    report: EvalReport
    batch: SealedBatch
    decision: Decision


def evidence(weights: Digest, parent: Digest, **decided: Any) -> Evidence:
    """Evidence whose parts fit each other; ``decided`` are fields of the decision."""
    batch = builders.batch(parent=parent, merkle_root=weights)
    candidate = builders.candidate(weights=weights, parent=parent, batch_digest=batch.digest())
    return Evidence(
        candidate, builders.report(candidate), batch, builders.decision(candidate, **decided)
    )


def genesis(weights: Digest, **fields: Any) -> Decision:
    """A genesis approval."""
    nothing = dict.fromkeys(
        ("candidate_digest", "report_digest", "batch_digest", "verdict_digest"), None
    )
    about = builders.candidate(weights=weights)
    return builders.decision(about, kind="genesis", **{**nothing, **fields})


@dataclass
class Line:
    """A policy line with its release desk and what it wrote to the ledger."""

    database: Database
    store: CheckpointStore
    signer: Signer
    now: datetime = builders.MOMENT
    journal: list[tuple[str, str, dict[str, object]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.desk = ReleaseDesk(
            self.database, self.store, self.signer, self._write, clock=lambda: self.now
        )

    def _write(self, session: Session, kind: str, subject: str, body: dict[str, object]) -> None:
        assert session.in_transaction()
        json.dumps(body)
        self.journal.append((kind, subject, body))

    def seal(self, decision: Decision) -> str:
        """The decision as the gatekeeper signs it."""
        return self.signer.seal(decision.model_dump(mode="json"))

    def first(self, variant: int = 0) -> Release:
        """The genesis release."""
        envelope = self.seal(genesis(checkpoint(self.store, variant)))
        with self.database.session() as session:
            return self.desk.first(session, "default", envelope, by="ada")

    def evidence(self, variant: int, **decided: Any) -> Evidence:
        """Evidence for a variant trained from what serves now."""
        serving = self.desk.current("default")
        assert serving is not None
        return evidence(checkpoint(self.store, variant), serving.weights, **decided)

    @property
    def rollouts(self) -> RolloutDesk:
        """The desk of its rollouts."""
        return RolloutDesk(self.database, self._write, clock=lambda: self.now)

    def promote(self, shown: Evidence, **rollout: Any) -> Release:
        """Promote what ``shown`` is evidence for; ``rollout`` are settings of its rollout."""
        with self.database.session() as session:
            release = self.desk.promote(
                session,
                shown.candidate,
                shown.report,
                shown.batch,
                self.seal(shown.decision),
                by="ada",
            )
            self.rollouts.begin(session, release, RolloutSettings(**rollout))
        return release

    def move(self, stage: Stage, share: float = 1.0) -> None:
        """Take the rollout under way to a stage."""
        rollout = self.rollouts.under_way("default")
        assert rollout is not None
        with self.database.session() as session:
            self.rollouts.move(session, rollout, Step(stage, share), why="good", by="tacit")

    def rollback(self, to: str | None = None) -> Release:
        """Roll back."""
        with self.database.session() as session:
            return self.desk.rollback(session, "default", to=to, by="ada", reason="worse")

    def taken_back(self, release: Release) -> list[Digest]:
        """Batches ``release`` took out of service."""
        with self.database.reader() as session:
            return batches_taken_back(session, "default", release)

    def bundle(self, release: Release) -> ReleaseBundle:
        """What was stored with a release."""
        with self.database.reader() as session:
            row = session.get_one(ReleaseRow, release.release_id)
            return ReleaseBundle.model_validate_json(row.bundle)

    def overwrite(self, release: Release, bundle: ReleaseBundle) -> None:
        """Put ``bundle`` into the row of ``release`` behind the desk's back."""
        with self.database.session() as session:
            row = session.get_one(ReleaseRow, release.release_id)
            row.bundle = bundle.model_dump_json()


def line(database: Database, store: CheckpointStore, folder: Path) -> Line:
    """A line with a key of its own in ``folder``."""
    return Line(database, store, Signer.load_or_create(folder / "keys"))


def until(holds: Callable[[], Any], *, timeout_s: float = 60.0) -> None:
    """Wait for something another thread brings about."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.005)


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """A real server on a port of its own; gives its URL."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        until(lambda: server.started or not thread.is_alive())
        try:
            yield f"http://127.0.0.1:{opened.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()

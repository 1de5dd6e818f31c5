"""Two workers of one group in processes of their own, without Ray."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import multiprocessing

from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest
from tacit.ports import free_port
from trainer.progress import StepMetrics
from trainer.session import TrainingSession, UpdateJob, configure_process

TIMEOUT_S = 60.0


def run_jobs(
    store: CheckpointStore, jobs: Sequence[UpdateJob], folder: Path, *, device: str = "cpu"
) -> list[tuple[Digest, list[float], int]]:
    """Each job on the two workers, one after another.

    Returns for each the digest, the loss of every step, and how many weights the second worker
    held when it was done.
    """
    address = f"127.0.0.1:{free_port()}"
    multiprocessing.spawn(_work, args=(store.root, tuple(jobs), folder, address, device), nprocs=2)
    first, second = (torch.load(folder / str(rank)) for rank in range(2))
    return [(*found, held) for found, held in zip(first, second, strict=True)]


def _work(
    rank: int, root: Path, jobs: Sequence[UpdateJob], folder: Path, address: str, device: str
) -> None:
    if device == "cuda":
        torch.cuda.set_device(rank)
    configure_process(num_threads=1, device=device)
    session = Counting(CheckpointStore(root), device=device)
    session.join(rank=rank, world_size=2, address=address, timeout_s=TIMEOUT_S)
    found: list[object] = []
    for job in jobs:
        items = list(session.run(job))
        losses = [item.metrics["train/loss"] for item in items if isinstance(item, StepMetrics)]
        found.append(session.held if rank else (items[-1], losses))
    torch.save(found, folder / str(rank))
    session.leave()


class Counting(TrainingSession):
    """A session that counts the weights in this process after an update."""

    held = 0

    def _save(self, job, policy):
        self.held = sum(
            getattr(p, "to_local", lambda p=p: p)().numel() for p in policy.model.parameters()
        )
        return super()._save(job, policy)

    def leave(self) -> None:
        self._group.leave()

"""Rebuilding a candidate from what is recorded of it, to see whether the same bytes come out.

Input: a candidate, the batch it learned from with its events and replay, and a store that holds its
parent. Output: a Reproduction: every fact the bits hang on, as recorded and as it is here. Works in
a folder of its own with a Ray of its own on this machine's CPUs; the store is only read.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from tacit.checkpoints import CheckpointStore
from tacit.config import TrainerSettings
from tacit.contracts import Digest, PolicyCandidate, ReplayExample, ScreenedEvent, SealedBatch
from tacit.errors import IntegrityError, TrainingError
from trainer.interpolate import interpolate
from trainer.pinning import pinned_models
from trainer.progress import StepMetrics
from trainer.update import PolicyTrainer

ABSENT = "-"
"""Stands for a fact that one of both sides does not have."""


class Fact(NamedTuple):
    """Something the weights hang on, as it was recorded and as it is here."""

    name: str
    recorded: str
    here: str

    @property
    def same(self) -> bool:
        """Whether both agree."""
        return self.recorded == self.here


@dataclass(frozen=True)
class Reproduction:
    """What came of rebuilding a candidate."""

    candidate_id: str
    weights: Digest
    """As rebuilt."""
    facts: tuple[Fact, ...]
    """The digest of the weights last."""

    @property
    def same(self) -> bool:
        """Whether the rebuilt weights are the candidate's, whatever else differs."""
        return self.facts[-1].same


def reproduce(
    candidate: PolicyCandidate,
    batch: SealedBatch,
    events: Sequence[ScreenedEvent],
    replay: Sequence[ReplayExample],
    *,
    store: CheckpointStore,
    on_step: Callable[[StepMetrics], None],
    open_trainer: Callable[[TrainerSettings, CheckpointStore], PolicyTrainer] | None = None,
) -> Reproduction:
    """Rebuild ``candidate`` and compare. ``open_trainer`` replaces the trainer on Ray's actors.

    Raises IntegrityError when batch, events, replay or parent are not those of the candidate,
    NotFoundError without the parent, TrainingError for a candidate of GPUs or when training fails,
    PlacementError when Ray does not start.
    """
    if batch.digest() != candidate.batch_digest:
        raise IntegrityError(f"a batch with digest {candidate.batch_digest}", got=batch.digest())
    settings = _settings(candidate)
    start = batch.trained_from
    others = (settings.distillation.teacher_of(start), settings.kl_anchor(start))
    read = filter(None, (candidate.parent, start, *others, *pinned_models(settings)))
    with _scratch(store, *read) as scratch:
        trainer = (open_trainer or _on_this_machine)(settings, scratch)
        try:
            made = trainer.update(batch, events, replay, on_step=on_step)
        finally:
            trainer.stop()
        weights = interpolate(
            scratch, parent=candidate.parent, trained=made.weights, alpha=candidate.alpha
        )
    facts = [
        Fact("parent", candidate.parent, batch.parent),
        Fact("batch", candidate.batch_digest, batch.digest()),
        Fact("world_size", str(candidate.world_size), str(made.world_size)),
        *_compare("version", candidate.versions, made.versions),
        *_compare("config", _flat(candidate.config), _flat(made.config)),
        Fact("alpha", f"{candidate.alpha:g}", f"{candidate.alpha:g}"),
        Fact("trained", candidate.trained, made.weights),
        Fact("weights", candidate.weights, weights),
    ]
    return Reproduction(candidate.candidate_id, weights, tuple(facts))


def _on_this_machine(settings: TrainerSettings, store: CheckpointStore) -> PolicyTrainer:
    """Workers as many and with as many threads as recorded, however many CPUs there are."""
    cpus = math.ceil((settings.num_workers or 1) * settings.cpus_per_worker)
    return PolicyTrainer(settings, store, local_cpus=cpus)


def _settings(candidate: PolicyCandidate) -> TrainerSettings:
    try:
        settings = TrainerSettings.model_validate(candidate.config)
    except ValidationError as error:
        unknown = "; ".join(".".join(map(str, row["loc"])) for row in error.errors())
        raise TrainingError(
            "a configuration that this version of Tacit knows",
            got=f"{unknown} in {candidate.candidate_id}",
            mend=f"It was trained by Tacit {candidate.versions.get('tacit', 'unknown')}.",
        ) from error
    if settings.gpus_per_worker > 0:
        raise TrainingError(
            "a candidate that was trained on CPUs",
            got=f"trainer.gpus_per_worker={settings.gpus_per_worker:g}",
            mend="Kernels of GPUs may sum in any order; only CPUs give the same bits again.",
        )
    return settings.model_copy(update={"num_workers": candidate.world_size})


@contextmanager
def _scratch(store: CheckpointStore, *policies: Digest) -> Iterator[CheckpointStore]:
    """A store in a temporary folder that sees ``policies`` and the bases under them."""
    with tempfile.TemporaryDirectory(prefix="tacit-reproduce-") as folder:
        scratch = CheckpointStore(Path(folder))
        bases = (store.manifest(policy).base for policy in policies)
        for digest in {*policies, *filter(None, bases)}:
            source = store.path(digest).resolve()
            (scratch.root / source.name).symlink_to(source, target_is_directory=True)
        yield scratch


def _compare(kind: str, recorded: Mapping[str, str], here: Mapping[str, str]) -> list[Fact]:
    names = dict.fromkeys([*recorded, *here])
    return [
        Fact(f"{kind} {name}", recorded.get(name, ABSENT), here.get(name, ABSENT)) for name in names
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = str(value)
    return flat

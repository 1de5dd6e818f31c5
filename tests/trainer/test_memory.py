"""Out of memory: told from other errors, tried again with less, and still the same bytes again."""

import logging
from collections.abc import Iterator

import pytest
import torch

from tacit.checkpoints import CheckpointStore
from tacit.config import TrainerSettings
from tacit.contracts import Digest
from tacit.errors import TrainingError
from tacit.metrics import MetricName
from tests import builders as build
from tests.trainer.builders import mixed_events, replay_examples, seal, settings, train
from trainer.memory import (
    UpdateTooLargeError,
    is_out_of_memory,
)
from trainer.optimize import Optimization
from trainer.placement import Request
from trainer.progress import StepMetrics
from trainer.session import TrainingSession, UpdateJob
from trainer.update import PolicyTrainer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

EVENTS, REPLAY = mixed_events(24), replay_examples()


AUTO = {"gradient_checkpointing": "auto"}
CHECKPOINTED = 4
"""Times as many tokens fit with gradient checkpointing."""


class Roomy:
    """A group in this process whose memory holds microbatches of ``room`` tokens."""

    world_size = 1
    processor = "abacus"
    fast_bf16 = False

    def __init__(self, store: CheckpointStore, room: int) -> None:
        self._session = TrainingSession(store)
        self._room = room

    def run(self, job: UpdateJob) -> Iterator[StepMetrics | Digest]:
        """The job's steps; memory runs out after the first where it does not fit."""
        for item in self._session.run(job):
            yield item
            checkpointing = job.settings.gradient_checkpointing == "on"
            if job.settings.micro_batch_tokens > self._room * (
                CHECKPOINTED if checkpointing else 1
            ):
                raise UpdateTooLargeError("an update that fits", got="64 GiB wanted")

    def stop(self) -> None:
        """Nothing to give back."""


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What groups were asked for; Ray is not needed for groups in this process."""
    monkeypatch.setattr("trainer.update.connect", lambda **_: False)
    return []


def trainer(
    store: CheckpointStore, chosen: TrainerSettings, groups: list[Request], *, room: int
) -> PolicyTrainer:
    def open_group(request: Request) -> Roomy:
        groups.append(request)
        return Roomy(store, room)

    return PolicyTrainer(chosen, store, open_group=open_group)


def test_an_update_that_does_not_fit_is_made_in_smaller_portions(store, groups, caplog):
    parent, steps = build.tiny_checkpoint(store), []
    chosen = settings(num_workers=1, micro_batch_tokens=1_024)
    caplog.set_level(logging.WARNING, "trainer")
    made = trainer(store, chosen, groups, room=300).update(
        seal(parent, EVENTS, REPLAY), EVENTS, REPLAY, on_step=steps.append
    )
    assert made.config["micro_batch_tokens"] == 256
    assert len(groups) == 3
    told = [r.message for r in caplog.records if r.name == "trainer.memory"]
    assert [message.rsplit("=")[-1] for message in told] == ["512", "256"]
    name = MetricName.MICRO_BATCH_TOKENS
    assert [step.metrics.get(name) for step in steps[:3]] == [None, 512, 256]
    assert made.metrics[name] == 256
    # What is recorded is enough to make the same again, with room to spare.
    recorded = TrainerSettings.model_validate(made.config)
    assert train(store, parent, EVENTS, REPLAY, settings=recorded)[0] == made.weights
    assert train(store, parent, EVENTS, REPLAY, settings=chosen)[0] != made.weights


def test_at_the_smallest_portions_layers_are_computed_again(store, groups):
    parent = build.tiny_checkpoint(store)
    chosen = settings(num_workers=1, micro_batch_tokens=512, **AUTO)
    made = trainer(store, chosen, groups, room=64).update(
        seal(parent, EVENTS), EVENTS, [], on_step=lambda step: None
    )
    assert len(groups) == 3
    tried = ("micro_batch_tokens", "gradient_checkpointing")
    assert [made.config[name] for name in tried] == [256, "on"]


def test_where_memory_sufficed_the_record_says_that_nothing_was_computed_again(store, groups):
    made = trainer(
        store, settings(num_workers=1, num_epochs=1, **AUTO), groups, room=10_000
    ).update(seal(build.tiny_checkpoint(store), EVENTS), EVENTS, [], on_step=lambda step: None)
    assert made.config["gradient_checkpointing"] == "off"


@pytest.mark.parametrize("fields", [{"micro_batch_tokens": 1_000}, {"method": "sft"}])
def test_an_update_that_never_fits_ends_with_what_to_do(store, groups, fields):
    parent = build.tiny_checkpoint(store)
    chosen = settings(num_workers=1, num_epochs=1, **AUTO, **fields)
    with pytest.raises(TrainingError, match=r"64 GiB wanted.*max_length"):
        trainer(store, chosen, groups, room=1).update(
            seal(parent, EVENTS), EVENTS, [], on_step=lambda step: None
        )
    assert len(groups) == (2 if "method" in fields else 4)


def test_torch_and_python_out_of_memory_are_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(OSError("out of memory"))


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_session_names_what_it_ran_out_of_and_is_fit_for_more(store, monkeypatch, error):
    parent, session = build.tiny_checkpoint(store), TrainingSession(store)
    before = set(store.root.iterdir())

    def starved(self):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Optimization, "_backward", lambda self, index: starved(self))
        with pytest.raises(UpdateTooLargeError):
            train(store, parent, EVENTS, settings=settings(), session=session)
    assert set(store.root.iterdir()) == before
    after, _ = train(store, parent, EVENTS, settings=settings(), session=session)
    assert after == train(store, parent, EVENTS, settings=settings())[0]

"""A step runs on as many threads as its model is worth, the rest of the process as before."""

import threading

import pytest
import torch

from deploy.engines.base import GenerationRequest
from deploy.engines.threads import num_threads, running_on
from deploy.engines.transformers import TransformersEngine
from tacit.checkpoints import CheckpointStore
from tacit.contracts import SamplingParameters
from tests.builders import tiny_checkpoint, user


@pytest.mark.parametrize(
    ("num_weights", "available", "expected"),
    [
        (2_500_000, 2, 1),
        (2_500_000, 64, 1),
        (30_000_000, 2, 1),
        (30_000_000, 16, 3),
        (7_000_000_000, 16, 15),
        (7_000_000_000, 1, 1),
    ],
)
def test_a_thread_for_every_so_many_weights_and_a_core_for_the_event_loop(
    num_weights: int, available: int, expected: int
) -> None:
    assert num_threads(num_weights, available=available) == expected


def test_the_number_of_threads_comes_back() -> None:
    before = torch.get_num_threads()
    with running_on(before + 3):
        assert torch.get_num_threads() == before + 3
    assert torch.get_num_threads() == before


def test_a_small_policy_is_stepped_by_one_thread(store: CheckpointStore) -> None:
    seen: list[tuple[str, int]] = []
    with running_on(4):
        engine = TransformersEngine(store, max_batch_size=2, max_queue=4, device="cpu")
        engine.load(tiny_checkpoint(store))
        engine.start()
        asked = GenerationRequest(
            user("order"),
            SamplingParameters(max_tokens=2),
            on_delta=lambda _: seen.append(
                (threading.current_thread().name, torch.get_num_threads())
            ),
        )
        (ticket,) = engine.submit([asked])
        ticket.future.result(timeout=30)
        engine.close()
        assert torch.get_num_threads() == 4
    assert set(seen) == {("engine", 1)}

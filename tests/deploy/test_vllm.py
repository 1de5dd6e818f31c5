"""The vLLM engine against a small fake of vLLM's HTTP API, beside the embedded engine."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

from deploy.engines.base import (
    ContextLengthError,
    Delta,
    Engine,
    Generation,
    GenerationRequest,
    NotLoadedError,
    QueueFullError,
)
from deploy.engines.create import create_engine
from deploy.engines.transformers import TransformersEngine
from deploy.engines.vllm import VllmEngine
from tacit.checkpoints import CheckpointStore
from tacit.config import Settings
from tacit.contracts import Digest, SamplingParameters, short
from tacit.errors import ConfigError, UnavailableError
from tacit.policies import load_model, load_policy
from tests.builders import tiny_checkpoint, user
from tests.deploy.fake_vllm import FakeVllm
from tests.deploy.scenes import checkpoint, listening, until


def asking(prompt: str = "where is my order", max_tokens: int = 8, **fields: Any) -> Any:
    sampling = {k: fields.pop(k) for k in ("temperature", "seed", "top_p") if k in fields}
    return GenerationRequest(
        user(prompt), SamplingParameters(max_tokens=max_tokens, **sampling), **fields
    )


def answers(engine: Engine, *requests: GenerationRequest) -> list[Generation]:
    return [ticket.future.result(timeout=60) for ticket in engine.submit(requests)]


def adapter(store: CheckpointStore, base: Digest, seed: int) -> Digest:
    import torch

    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(load_model(store, base), config)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return store.put(Path(folder), base=base)


@contextmanager
def vllm(store: CheckpointStore, **limits: int) -> Iterator[tuple[VllmEngine, FakeVllm]]:
    fake = FakeVllm(store, tiny_checkpoint(store))
    with listening(fake.app()) as url:
        engine = VllmEngine(store, url=url, **{"max_batch_size": 4, "max_queue": 8, **limits})
        engine.load(fake.base)
        engine.start()
        try:
            yield engine, fake
        finally:
            fake.gate.set()
            engine.close()


@contextmanager
def running(kind: str, store: CheckpointStore) -> Iterator[Engine]:
    if kind == "vllm":
        with vllm(store) as (engine, _fake):
            yield engine
        return
    embedded = TransformersEngine(store, max_batch_size=4, max_queue=8, device="cpu")
    embedded.load(tiny_checkpoint(store))
    embedded.start()
    yield embedded
    embedded.close()


@pytest.mark.parametrize("kind", ["transformers", "vllm"])
def test_all_engines_answer_alike(store: CheckpointStore, kind: str) -> None:
    deltas: list[Delta] = []
    with running(kind, store) as engine:
        plain, likeliest, told, drawn, again = answers(
            engine,
            asking(),
            asking(top_logprobs=2, with_pieces=True),
            asking(on_delta=deltas.append),
            asking(temperature=1.0, seed=4),
            asking(temperature=1.0, seed=4),
        )
        stop = plain.text[2:4]
        (cut,) = answers(engine, asking(stop=(stop,)))
        with pytest.raises(ContextLengthError):
            engine.submit([asking(max_tokens=256)])
        with pytest.raises(QueueFullError):
            engine.submit([asking()] * 13)
        shadows = engine.submit([asking(background=True)] * 13)
        assert len(answers(engine, *[asking()] * 8)) == 8
        assert all(ticket.future.result(timeout=60).text for ticket in shadows)
    policy = load_policy(store, tiny_checkpoint(store))
    (expected,) = policy.generate([user("where is my order")], max_new_tokens=8)
    assert (plain.text, plain.token_ids) == (expected.text, expected.token_ids)
    assert plain.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    assert (plain.weights, plain.finish_reason) == (policy.digest, expected.finish_reason)
    assert [len(top) for top in likeliest.tops] == [2] * len(likeliest.token_ids)
    assert tuple(top[0].piece for top in likeliest.tops) == likeliest.pieces
    assert "".join(delta.text for delta in deltas) == told.text == plain.text
    assert drawn.token_ids == again.token_ids
    assert drawn.token_ids != plain.token_ids
    assert (cut.text, cut.finish_reason) == (plain.text[: plain.text.index(stop)].strip(), "stop")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_swap_moves_new_requests_and_unloads_the_old_adapter_when_it_is_idle(
    store: CheckpointStore,
) -> None:
    with vllm(store) as (engine, fake):
        first, second = adapter(store, fake.base, 1), adapter(store, fake.base, 2)
        engine.load(first)
        (before,) = answers(engine, asking())
        fake.gate.clear()
        (bound,) = engine.submit([asking()])
        until(lambda: bound.future.running())
        engine.load(second)
        assert engine.weights == second
        assert fake.unloaded == []
        fake.gate.set()
        assert bound.future.result(timeout=60).token_ids == before.token_ids
        until(lambda: fake.unloaded == fake.names_ever[:1])
        (after,) = answers(engine, asking())
        engine.load(first)
        (back,) = answers(engine, asking())
    assert (before.weights, after.weights, back.weights) == (first, second, first)
    for weights, got in ((first, before), (second, after), (first, back)):
        (expected,) = load_policy(store, weights).generate(
            [user("where is my order")], max_new_tokens=8
        )
        assert got.token_ids == expected.token_ids
    assert len(set(fake.names_ever)) == 3, "a name is never used again"
    assert all(short(first) in fake.names_ever[number] for number in (0, 2))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_two_adapters_answer_side_by_side(store: CheckpointStore) -> None:
    with vllm(store) as (engine, fake):
        first, second = adapter(store, fake.base, 1), adapter(store, fake.base, 2)
        engine.load(first)
        engine.load_beside(second)
        assert (engine.weights, engine.beside) == (first, second)
        tickets = [engine.submit([asking()], weights=named)[0] for named in (first, second, None)]
        got = [ticket.future.result(timeout=60) for ticket in tickets]
        assert [generation.weights for generation in got] == [first, second, first]
        assert got[0].token_ids == got[2].token_ids != got[1].token_ids
        engine.load_beside(None)
        until(lambda: fake.unloaded == fake.names_ever[1:2])
        with pytest.raises(NotLoadedError):
            engine.submit([asking()], weights=second)
        engine.load_beside(second)
        engine.load(second)
        assert len(fake.names_ever) == 3, "the second was not loaded again to take over"
        until(lambda: fake.unloaded == [fake.names_ever[1], fake.names_ever[0]])
        assert answers(engine, asking())[0].token_ids == got[1].token_ids


def test_a_server_of_another_base_is_refused_with_the_command_to_start_it(
    store: CheckpointStore,
) -> None:
    other = checkpoint(store, 1)
    with vllm(store) as (engine, fake):
        with pytest.raises(ConfigError, match=f"--served-model-name tacit-{short(other)}"):
            engine.load(other)
        assert engine.weights == fake.base


def test_what_vllm_breaks_off_fails_that_request_alone(store: CheckpointStore) -> None:
    with vllm(store) as (engine, fake):
        fake.breaks = True
        (ticket,) = engine.submit([asking()])
        with pytest.raises(UnavailableError, match="out of blocks"):
            ticket.future.result(timeout=60)
        fake.breaks = False
        assert answers(engine, asking())[0].text


def test_an_answer_that_nobody_waits_for_is_broken_off(store: CheckpointStore) -> None:
    with vllm(store) as (engine, fake):
        fake.gate.clear()
        deltas: list[Delta] = []
        (ticket,) = engine.submit([asking(max_tokens=100, on_delta=deltas.append)])
        until(lambda: deltas)
        ticket.abandon()
        fake.gate.set()
        assert len(ticket.future.result(timeout=60).token_ids) == 2


def test_a_server_that_is_away_is_unavailable(store: CheckpointStore) -> None:
    settings = Settings(deploy={"engine": "vllm", "vllm_url": "http://127.0.0.1:9"})
    engine = create_engine(settings, store)
    with pytest.raises(UnavailableError, match="none loaded"):
        engine.submit([asking()])
    with pytest.raises(UnavailableError, match="ConnectError"):
        engine.load(tiny_checkpoint(store))
    engine.close()

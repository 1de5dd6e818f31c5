"""The embedded engine answers as the policy would, batches, and never mixes two policies."""

import gc
import itertools
import math
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from deploy.engines.base import (
    ContextLengthError,
    Delta,
    Generation,
    GenerationRequest,
    NotLoadedError,
    QueueFullError,
)
from deploy.engines.sampling import tempered_logprobs
from deploy.engines.transformers import TransformersEngine
from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest, SamplingParameters
from tacit.errors import UnavailableError
from tacit.policies import load_policy
from tests.builders import tiny_checkpoint, user
from tests.deploy.scenes import checkpoint
from tests.trainer.builders import mixed_events, settings, train
from trainer.session import TrainingSession, UpdateJob

PROMPTS = ["where is my order", "billing", "a much longer question about shipping and billing"]


@contextmanager
def running(store: CheckpointStore, weights: Digest, **limits: Any) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(
        store, **{"max_batch_size": 8, "max_queue": 64, "device": "cpu", **limits}
    )
    engine.load(weights)
    engine.start()
    try:
        yield engine
    finally:
        engine.close()


def asking(prompt: str = PROMPTS[0], **fields: Any) -> GenerationRequest:
    sampling = {"max_tokens": 12, **{k: fields.pop(k) for k in list(fields) if k in _SAMPLING}}
    return GenerationRequest(user(prompt), SamplingParameters(**sampling), **fields)


_SAMPLING = {"temperature", "top_p", "max_tokens", "seed"}


def answers(engine: TransformersEngine, *requests: GenerationRequest) -> list[Generation]:
    return [ticket.future.result(timeout=60) for ticket in engine.submit(requests)]


def test_greedy_answers_equal_the_policys_own(store: CheckpointStore) -> None:
    weights = checkpoint(store)
    expected = load_policy(store, weights).generate([user(p) for p in PROMPTS], max_new_tokens=12)
    with running(store, weights) as engine:
        got = answers(engine, *(asking(p) for p in PROMPTS))
    for mine, theirs in zip(got, expected, strict=True):
        assert (mine.text, mine.token_ids) == (theirs.text, theirs.token_ids)
        assert mine.finish_reason == theirs.finish_reason
        assert mine.prompt_tokens == theirs.prompt_tokens
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
        assert mine.weights == weights


def test_an_answer_does_not_depend_on_what_shares_its_batch(store: CheckpointStore) -> None:
    wanted = asking(temperature=1.0, seed=7, top_p=0.9, max_tokens=9)
    others = [
        asking(p, temperature=t, max_tokens=m)
        for p, t, m in zip(PROMPTS, (0, 2, 0.3), (3, 20, 1), strict=True)
    ]
    with running(store, checkpoint(store)) as engine:
        (alone,) = answers(engine, wanted)
        *_, together = answers(engine, *others, wanted)
    assert together.token_ids == alone.token_ids
    assert together.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def test_seeds_repeat_and_differ_and_limits_are_each_rows_own(store: CheckpointStore) -> None:
    requests = [asking(temperature=1.5, seed=s, max_tokens=m) for s, m in ((1, 8), (1, 8), (2, 3))]
    with running(store, checkpoint(store)) as engine:
        first, again, other = answers(engine, *requests)
    assert first == again
    assert first.token_ids[:3] != other.token_ids
    assert [len(g.token_ids) <= m for g, m in ((first, 8), (other, 3))] == [True, True]


def test_logprobs_are_those_of_the_distribution_sampled_from() -> None:
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0])
    half = tempered_logprobs(scores, temperature=0.5, top_p=1.0)
    weights = [math.exp(s / 0.5) for s in scores.tolist()]
    assert half.exp().tolist() == pytest.approx([w / sum(weights) for w in weights])
    cut = tempered_logprobs(scores, temperature=1.0, top_p=0.7).exp()
    # softmax is .644 .237 .087 .032: the first alone is below 0.7, the first two are above
    assert cut.tolist() == pytest.approx([0.7311, 0.2689, 0.0, 0.0], abs=1e-4)
    tiny = tempered_logprobs(scores, temperature=1e-40, top_p=0.5)
    assert tiny.exp().tolist() == [1.0, 0.0, 0.0, 0.0]


def test_sampled_tokens_follow_the_distribution(store: CheckpointStore) -> None:
    requests = [asking(temperature=1.0, max_tokens=1, seed=s) for s in range(400)]
    with running(store, checkpoint(store), max_queue=400, max_batch_size=100) as engine:
        got = answers(engine, *requests)
    mean = sum(g.logprobs[0] for g in got) / len(got)
    policy = load_policy(store, checkpoint(store))
    with torch.inference_mode():
        logits = policy.model(torch.tensor([policy.prompt_ids(user(PROMPTS[0]))])).logits[0, -1]
    logprobs = logits.float().log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum().item()
    assert mean == pytest.approx(-entropy, abs=0.2)


def test_a_stop_string_ends_the_answer_before_it(store: CheckpointStore) -> None:
    with running(store, checkpoint(store, 1)) as engine:
        (whole,) = answers(engine, asking(max_tokens=16))
        middle = whole.text[len(whole.text) // 2 :][:2]
        (cut,) = answers(engine, asking(max_tokens=16, stop=("never there", middle)))
    assert cut.text == whole.text[: whole.text.index(middle)].strip()
    assert cut.finish_reason == "stop"
    assert len(cut.token_ids) < len(whole.token_ids)
    assert len(cut.token_ids) == len(cut.logprobs)


@pytest.mark.parametrize("with_stop", [False, True])
def test_deltas_add_up_to_the_answer(store: CheckpointStore, with_stop: bool) -> None:
    with running(store, checkpoint(store, 1)) as engine:
        (whole,) = answers(engine, asking(max_tokens=16))
        stop = (whole.text[-3:],) if with_stop else ()
        deltas: list[Delta] = []
        streamed = asking(max_tokens=16, stop=stop, on_delta=deltas.append, with_pieces=True)
        (answer,) = answers(engine, streamed)
    assert "".join(d.text for d in deltas) == answer.text
    assert sum((d.token_ids for d in deltas), ()) == answer.token_ids
    assert sum((d.logprobs for d in deltas), ()) == answer.logprobs
    assert sum((d.pieces for d in deltas), ()) == answer.pieces
    assert len(deltas) > 3


def test_a_full_queue_refuses_and_keeps_what_it_has(store: CheckpointStore) -> None:
    weights = checkpoint(store)
    engine = TransformersEngine(store, max_batch_size=2, max_queue=3, device="cpu")
    engine.load(weights)
    tickets = engine.submit([asking()] * 3)
    with pytest.raises(QueueFullError, match="at most 3 waiting requests; got 3 waiting and 1"):
        engine.submit([asking()])
    engine.start()
    assert len({t.future.result(timeout=60).text for t in tickets}) == 1
    engine.close()


def test_what_nobody_waits_for_takes_no_place_in_the_queue(store: CheckpointStore) -> None:
    engine = TransformersEngine(store, max_batch_size=2, max_queue=3, device="cpu")
    engine.load(checkpoint(store))
    shadows = engine.submit([asking(background=True)] * 2)
    gone, *tickets = engine.submit([asking()] * 3)
    gone.abandon()
    tickets += engine.submit([asking()])
    with pytest.raises(QueueFullError, match="got 3 waiting and 1"):
        engine.submit([asking()])
    engine.start()
    assert len({t.future.result(timeout=60).text for t in [*shadows, *tickets]}) == 1
    engine.close()


def test_what_waits_when_the_engine_closes_fails_rather_than_hangs(store: CheckpointStore) -> None:
    engine = TransformersEngine(store, max_batch_size=2, max_queue=3, device="cpu")
    with pytest.raises(UnavailableError, match="none loaded"):
        engine.submit([asking()])
    engine.load(checkpoint(store))
    (ticket,) = engine.submit([asking()])
    engine.close()
    with pytest.raises(UnavailableError, match="shutting down"):
        ticket.future.result(timeout=0)
    with pytest.raises(UnavailableError, match="shutting down"):
        engine.submit([asking()])


def test_too_long_for_the_context_is_refused_or_fitted(store: CheckpointStore) -> None:
    with running(store, checkpoint(store)) as engine:
        with pytest.raises(ContextLengthError, match="at most 256 tokens"):
            engine.submit([asking(max_tokens=256)])
        (fitted,) = answers(engine, asking(max_tokens=400, fit_context=True))
        assert fitted.prompt_tokens + len(fitted.token_ids) <= 256
        with pytest.raises(ContextLengthError):
            engine.submit([asking("order " * 400, fit_context=True)])


def test_an_abandoned_answer_stops_at_the_next_token(store: CheckpointStore) -> None:
    begun = threading.Event()
    with running(store, checkpoint(store)) as engine:
        whole, go = len(answers(engine, asking(max_tokens=100))[0].token_ids), threading.Event()

        def on_delta(_delta: Delta) -> None:
            begun.set()
            go.wait(timeout=60)

        (ticket,) = engine.submit([asking(max_tokens=100, on_delta=on_delta)])
        assert begun.wait(timeout=60)
        ticket.abandon()
        go.set()
        assert len(ticket.future.result(timeout=60).token_ids) <= 2 < whole


def test_a_swap_changes_new_requests_only_and_frees_the_old_policy(store: CheckpointStore) -> None:
    old, new = checkpoint(store), checkpoint(store, 1)
    begun, go, deltas = threading.Event(), threading.Event(), itertools.count()
    with running(store, old) as engine:
        (before,) = answers(engine, asking())
        assert engine._serving is not None
        model = weakref.ref(engine._serving.model)

        def on_delta(_delta: Delta) -> None:
            if next(deltas) == 1:
                begun.set()
                go.wait(timeout=60)

        (bound,) = engine.submit([asking(on_delta=on_delta)])
        assert begun.wait(timeout=60)
        waiting = engine.submit([asking()])
        engine.load(new)
        (after,) = engine.submit([asking()])
        go.set()
        assert bound.future.result(timeout=60).token_ids == before.token_ids
        assert waiting[0].future.result(timeout=60).token_ids == before.token_ids
        swapped = after.future.result(timeout=60)
        assert (swapped.weights, engine.weights) == (new, new)
        assert swapped.token_ids != before.token_ids
        del bound, waiting
        answers(engine, asking())
        gc.collect()
        assert model() is None


def test_two_policies_answer_side_by_side_and_the_second_takes_over_without_loading(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = checkpoint(store), checkpoint(store, 1)
    with running(store, old) as engine:
        with pytest.raises(NotLoadedError):
            engine.submit([asking()], weights=new)
        engine.load_beside(new)
        assert (engine.weights, engine.beside) == (old, new)
        named = [old, new, None]
        tickets = [engine.submit([asking()], weights=weights)[0] for weights in named]
        got = [ticket.future.result(timeout=60) for ticket in tickets]
        assert [generation.weights for generation in got] == [old, new, old]
        assert got[0].token_ids == got[2].token_ids != got[1].token_ids
        monkeypatch.setattr(engine, "_warm", None)
        engine.load(new)
        assert (engine.weights, engine.beside) == (new, None)
        with pytest.raises(NotLoadedError):
            engine.submit([asking()], weights=old)
        (after,) = answers(engine, asking())
        assert (after.weights, after.token_ids) == (new, got[1].token_ids)


def test_a_second_policy_that_is_dropped_answers_what_it_has_and_is_freed(
    store: CheckpointStore,
) -> None:
    begun, go, deltas = threading.Event(), threading.Event(), itertools.count()

    def on_delta(_delta: Delta) -> None:
        if next(deltas) == 1:
            begun.set()
            go.wait(timeout=60)

    old, new = checkpoint(store), checkpoint(store, 1)
    with running(store, old) as engine:
        engine.load_beside(new)
        assert engine._beside is not None
        model = weakref.ref(engine._beside.model)
        (bound,) = engine.submit([asking(on_delta=on_delta)], weights=new)
        assert begun.wait(timeout=60)
        engine.load_beside(None)
        go.set()
        assert bound.future.result(timeout=60).weights == new
        del bound
        assert answers(engine, asking())[0].weights == old
        gc.collect()
        assert model() is None


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_an_adapter_gives_way_to_what_it_was_folded_into_and_nobody_notices(
    store: CheckpointStore,
) -> None:
    options = settings(num_epochs=1)
    adapter, _ = train(store, tiny_checkpoint(store), mixed_events(), settings=options)
    job = UpdateJob(adapter, (), (), options, consolidates=True)
    (folded,) = TrainingSession(store).run(job)
    assert isinstance(folded, str)
    with running(store, adapter) as engine:
        (before,) = answers(engine, asking())
        swapping = threading.Thread(target=engine.load, args=(folded,))
        swapping.start()
        during: list[Generation] = []
        while swapping.is_alive():
            during += answers(engine, asking())
        swapping.join()
        (after,) = answers(engine, asking())
    assert [found.weights for found in (before, after)] == [adapter, folded]
    assert {found.token_ids for found in (before, *during, after)} == {before.token_ids}


def test_a_model_that_fails_answers_its_requests_with_the_error_and_goes_on(
    store: CheckpointStore,
) -> None:
    def broken(_delta: Delta) -> None:
        raise RuntimeError("no more")

    with running(store, checkpoint(store)) as engine:
        (ticket,) = engine.submit([asking(on_delta=broken)])
        with pytest.raises(RuntimeError, match="no more"):
            ticket.future.result(timeout=60)
        assert answers(engine, asking())[0].text

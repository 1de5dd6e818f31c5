"""Generation and scoring give what the model gives prompt by prompt, however they are batched."""

from typing import Any

import pytest
import torch

from tacit.inference import greedy, kv
from tacit.inference.body import Body, take_apart
from tacit.inference.engine import Inference
from tests.tacit.inference.models import (
    CONFIGS,
    ENDS,
    PAD,
    TAKEN_APART,
    build,
    logprob,
    plainly,
    prompts,
)

MAX_NEW = 24
CHOICES = [(5,), (5, 6), (5, 6, 7), (8, 9, 5), (2, 30), (5, 7)]


def engine(model: Any) -> Inference:
    return Inference(model, pad_id=PAD, eos_ids=ENDS)


@pytest.mark.parametrize("shared", [0, 11])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_tokens_are_those_of_generate(name: str, shared: int) -> None:
    model, asked = build(name), prompts(13, shared=shared)
    found = engine(model).generate(asked, max_new_tokens=MAX_NEW, batch_size=8)
    expected = [plainly(model, prompt, MAX_NEW) for prompt in asked]
    assert [tokens.ids for tokens in found] == expected
    assert [tokens.ended for tokens in found] == [ids[-1] in ENDS for ids in expected]
    for tokens, prompt in zip(found, asked, strict=True):
        total = logprob(model, prompt, tuple(tokens.ids))
        assert sum(tokens.logprobs) == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", TAKEN_APART)
def test_these_are_taken_apart(name: str, attention: str) -> None:
    assert take_apart(build(name, attention=attention)) is not None


def test_a_window_is_not() -> None:
    assert take_apart(build("windowed")) is None


def test_a_body_that_computes_something_else_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Body, "logits", lambda self, hidden: hidden @ torch.ones(32, 40))
    assert take_apart(build("qwen3")) is None


def test_eager_attention_gets_masks_it_can_add() -> None:
    model, asked = build("llama", attention="eager"), prompts(6, shared=9)
    found = engine(model).generate(asked, max_new_tokens=8, batch_size=6)
    assert [tokens.ids for tokens in found] == [plainly(model, prompt, 8) for prompt in asked]


def test_buffers_grow_and_ended_rows_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greedy, "HEADROOM", 1)
    batches: list[int] = []
    forward = Body.hidden

    def counted(self: Body, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        batches.append(len(ids))
        return forward(self, ids, *rest)

    model, asked = build("qwen3"), prompts(13)
    taken = engine(model)
    assert taken.body is not None
    monkeypatch.setattr(Body, "hidden", counted)
    found = taken.generate(asked, max_new_tokens=MAX_NEW, batch_size=13)
    assert [t.ids for t in found] == [plainly(model, prompt, MAX_NEW) for prompt in asked]
    assert batches == sorted(batches, reverse=True)
    assert batches[-1] < batches[0] == 13


def test_what_a_generation_config_asks_for_is_done() -> None:
    model, asked = build("qwen3"), prompts(7)
    before = engine(model).generate(asked, max_new_tokens=12, batch_size=7)
    model.generation_config.no_repeat_ngram_size = 1
    found = engine(model).generate(asked, max_new_tokens=12, batch_size=7)
    expected = [plainly(model, prompt, 12) for prompt in asked]
    assert [tokens.ids for tokens in found] == expected
    assert [tokens.ids for tokens in before] != expected


@pytest.mark.parametrize("name", ["qwen3", "windowed"])
def test_a_stop_ends_its_own_row_only(name: str) -> None:
    model, asked = build(name), prompts(9)
    full = engine(model).generate(asked, max_new_tokens=10, batch_size=4)
    at = next(i for i, tokens in enumerate(full) if len(tokens.ids) > 3)
    found = engine(model).generate(
        asked, max_new_tokens=10, batch_size=4, is_stop=lambda i, ids: i == at and len(ids) == 3
    )
    assert found[at].ids == full[at].ids[:3]
    assert found[at].ended
    others = [i for i in range(9) if i != at]
    assert [found[i].ids for i in others] == [full[i].ids for i in others]


@pytest.mark.parametrize("shared", [0, 11])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_choices_are_as_probable_as_each_alone(name: str, shared: int) -> None:
    model, asked = build(name), prompts(9, shared=shared)
    offered = [CHOICES if i % 2 else CHOICES[::-1][:4] for i in range(9)]
    found = engine(model).score(asked, offered, batch_size=4)
    for prompt, choices, scored in zip(asked, offered, found, strict=True):
        expected = [logprob(model, prompt, choice) for choice in choices]
        assert [s.logprob for s in scored] == pytest.approx(expected, abs=2e-4)
        greedily = tuple(plainly(model, prompt, 3))
        assert [s.is_greedy for s in scored] == [c == greedily[: len(c)] for c in choices]


def test_many_choices_need_few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    model = build("qwen3")
    taken = engine(model)
    assert taken.body is not None
    forward = Body.hidden
    monkeypatch.setattr(
        Body,
        "hidden",
        lambda self, ids, *rest: shapes.append(tuple(ids.shape)) or forward(self, ids, *rest),
    )
    taken.score([[3, 4, 5]], [CHOICES], batch_size=1)
    # The prompt, and (5), (5 6), (8), (8 9), (2): what a choice ends with is never computed.
    assert shapes == [(1, 3 + 5)]


def test_nothing_is_not_scored() -> None:
    model = build("qwen3")
    with pytest.raises(ValueError, match="one token"):
        engine(model).score([[3]], [[(5,), ()]], batch_size=1)
    with pytest.raises(ValueError, match="one token"):
        engine(model).generate([[]], max_new_tokens=1, batch_size=1)


def test_a_buffered_layer_holds_what_it_was_given() -> None:
    layer = kv.BufferedLayer(capacity=2)
    parts = [torch.randn(3, 2, n, 4) for n in (1, 3, 2)]
    for part in parts:
        keys, values = layer.update(part, -part)
    whole = torch.cat(parts, dim=-2)
    assert torch.equal(keys, whole)
    assert torch.equal(values, -whole)
    layer.keep(torch.tensor([2, 0]))
    assert torch.equal(layer.keys, whole[[2, 0]])
    assert layer.get_seq_length() == 6

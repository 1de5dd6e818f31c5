"""Builders of contracts and checkpoints for tests: every field has a default, name what matters."""

import tempfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from tacit.checkpoints import CheckpointStore
from tacit.contracts import (
    Comparison,
    Correction,
    Decision,
    DecisionOutcome,
    Digest,
    EvalReport,
    Feedback,
    FeedbackEvent,
    InlineInteraction,
    Interaction,
    ItemResult,
    Message,
    PolicyCandidate,
    ScreenedEvent,
    SealedBatch,
    SuiteKind,
    SuiteResult,
    sha256_digest,
)
from tacit.contracts.batch import BatchEntry

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def digest(seed: str = "x") -> Digest:
    """Some digest, the same for the same seed."""
    return sha256_digest(seed.encode())


def user(text: str) -> tuple[Message, ...]:
    """A prompt of one user message."""
    return (Message(role="user", content=text),)


def interaction(prompt: str = "where is my order", completion: str = "billing") -> Any:
    """An inline interaction."""
    return InlineInteraction(prompt=user(prompt), completion=completion)


def recorded(interaction_id: str = "i-1", **fields: Any) -> Interaction:
    """An interaction as serving records it."""
    values: dict[str, Any] = {
        "prompt": user("where is my order"),
        "completion": "billing",
        "policy": "default",
        "source": "helpdesk",
        "occurred_at": MOMENT,
    }
    return Interaction(interaction_id=interaction_id, **{**values, **fields})


def event(event_id: str = "e-1", **fields: Any) -> FeedbackEvent:
    """A correction with an inline interaction, unless told otherwise."""
    values: dict[str, Any] = {
        "policy": "default",
        "source": "helpdesk",
        "subject_id": "u-1",
        "occurred_at": MOMENT,
        "feedback": Correction(completion="shipping"),
    }
    if not {"interaction_id", "episode_id", "interaction"} & set(fields):
        values["interaction"] = interaction()
    return FeedbackEvent(event_id=event_id, **{**values, **fields})


def screened(
    event_id: str = "e-1",
    *,
    prompt: str = "where is my order",
    completion: str = "billing",
    feedback: Feedback | None = None,
    weight: float = 1.0,
    subject_id: str = "u-1",
) -> ScreenedEvent:
    """A screened event."""
    said = interaction(prompt, completion)
    sent = event(
        event_id,
        subject_id=subject_id,
        interaction=said,
        feedback=feedback or Correction(completion="shipping"),
    )
    return ScreenedEvent(
        event_key=sent.event_key,
        policy=sent.policy,
        event=sent,
        interaction=said,
        weight=weight,
        cluster=digest(prompt)[7:23],
    )


def batch(**fields: Any) -> SealedBatch:
    """A sealed batch of one event."""
    entry = BatchEntry(event_key="helpdesk/e-1", event_digest=digest("e-1"), weight=1.0)
    values: dict[str, Any] = {
        "policy": "default",
        "parent": digest("champion"),
        "entries": (entry,),
        "replay": (),
        "merkle_root": digest("root"),
        "watermark": {"tacit.feedback/0": 1},
        "sealed_at": MOMENT,
    }
    return SealedBatch(**{**values, **fields})


def candidate(**fields: Any) -> PolicyCandidate:
    """A candidate."""
    values: dict[str, Any] = {
        "policy": "default",
        "weights": digest("weights"),
        "parent": digest("champion"),
        "batch_digest": batch().digest(),
        "config": {},
        "seed": 0,
        "world_size": 1,
        "versions": {"torch": "2.13.0"},
        "metrics": {},
        "created_at": MOMENT,
    }
    return PolicyCandidate(**{**values, **fields})


def comparison(difference: float = 0.0, *, half_width: float = 0.01) -> Comparison:
    """A comparison with a symmetric interval, as sure as the shipped gate policy asks."""
    return Comparison(
        difference=difference,
        ci_low=difference - half_width,
        ci_high=difference + half_width,
        confidence=0.998,
        standard_error=half_width / 3.09,
    )


def suite_result(name: str = "old-world", **fields: Any) -> SuiteResult:
    """A regression suite of 1,000 items that did not move."""
    values: dict[str, Any] = {
        "kind": SuiteKind.REGRESSION,
        "suite_digest": digest(name),
        "num_items": 1_000,
        "candidate": 0.9,
        "champion": 0.9,
        "anchor": 0.9,
        "versus_champion": comparison(),
        "versus_anchor": comparison(),
        "items": (),
    }
    return SuiteResult(name=name, **{**values, **fields})


def item_result(item_id: str = "q-1", **fields: Any) -> ItemResult:
    """An item all three policies get right."""
    values: dict[str, Any] = {
        "prompt": "where is my order",
        "expected": "shipping",
        "cluster": item_id,
        "non_negotiable": False,
        "candidate": 1.0,
        "champion": 1.0,
        "anchor": 1.0,
        "candidate_completion": "shipping",
        "champion_completion": "shipping",
        "anchor_completion": "shipping",
    }
    return ItemResult(item_id=item_id, **{**values, **fields})


def report(about: PolicyCandidate | None = None, **fields: Any) -> EvalReport:
    """A report on ``about`` with one regression suite."""
    about = about or candidate()
    values: dict[str, Any] = {
        "policy": about.policy,
        "candidate_digest": about.digest(),
        "weights": about.weights,
        "champion": about.parent,
        "anchor": digest("anchor"),
        "batch_digest": about.batch_digest,
        "suites": (suite_result(),),
        "probes": (),
        "created_at": MOMENT,
    }
    return EvalReport(**{**values, **fields})


def decision(about: PolicyCandidate | None = None, **fields: Any) -> Decision:
    """An approval of ``about``."""
    about = about or candidate()
    values: dict[str, Any] = {
        "policy": about.policy,
        "outcome": DecisionOutcome.APPROVED,
        "weights": about.weights,
        "candidate_digest": about.digest(),
        "report_digest": report(about).digest(),
        "batch_digest": about.batch_digest,
        "verdict_digest": digest("verdict"),
        "decided_by": "ada",
        "reason": "better on hold-out",
        "decided_at": MOMENT,
        "valid_until": None,
    }
    return Decision(**{**values, **fields})


@cache
def _tiny_files() -> Path:
    """A folder with a 60,000-parameter Qwen3 and a byte-level BPE tokenizer, made once."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["where is my order", "shipping billing"] * 4, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>"
    )
    fast.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(fast),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=8,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            eos_token_id=fast.eos_token_id,
            pad_token_id=fast.pad_token_id,
            bos_token_id=None,
        )
    )
    folder = Path(tempfile.mkdtemp(prefix="tacit-tiny-"))
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def tiny_checkpoint(store: CheckpointStore) -> Digest:
    """Put a tiny random policy into ``store``; its answers are noise but always the same."""
    return store.put(_tiny_files())

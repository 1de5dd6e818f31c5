"""Loading a checkpoint as a language model, and batched generation with it.

Shared by trainer, evaluator and deploy so that all three see the same tokens for the same prompt.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest, Message
from tacit.inference.decoder import Decoder, decoder_of
from tacit.inference.engine import Inference
from tacit.inference.greedy import Tokens
from tacit.inference.outputs import ChoiceScores, Completion
from tacit.inference.texts import Texts

__all__ = [
    "ChoiceScores",
    "Completion",
    "Policy",
    "completion_ids",
    "load_model",
    "load_policy",
    "load_tokenizer",
    "prompt_ids",
    "text_ids",
]

# Bars of the library would tear those of whoever loads a policy.
disable_progress_bar()
# PEFT asks for it by a name that transformers gives up; who runs Tacit can do nothing about that.
warnings.filterwarnings(
    "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
)


@dataclass
class Policy:
    """A model with its tokenizer and the digest of the checkpoint it came from."""

    model: Any
    tokenizer: Any
    digest: Digest

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def prompt_ids(self, prompt: Sequence[Message]) -> list[int]:
        """Token ids of a prompt, chat template and generation prompt included."""
        return prompt_ids(self.tokenizer, prompt)

    @cached_property
    def num_weights(self) -> int:
        """Numbers that the model is made of; those that it uses twice count once."""
        return sum(weight.numel() for weight in self.model.parameters())

    @cached_property
    def inference(self) -> Inference:
        """Generation and scoring over token ids."""
        tokenizer = self.tokenizer
        return Inference(
            self.model, pad_id=tokenizer.pad_token_id, eos_ids=(tokenizer.eos_token_id,)
        )

    @cached_property
    def decoder(self) -> Decoder | None:
        """The model's forward pass for serving; None for a model of a shape that it lacks."""
        return decoder_of(self.model)

    @cached_property
    def texts(self) -> Texts:
        """Generation and scoring over plain texts."""
        context = getattr(self.model.config, "max_position_embeddings", None)
        return Texts(self.inference, self.tokenizer, context=context)

    def generate(
        self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, batch_size: int = 64
    ) -> list[Completion]:
        """Greedy completions, in the order of ``prompts``; batches are bucketed by length."""
        encoded = [self.prompt_ids(prompt) for prompt in prompts]
        generated = self.inference.generate(
            encoded, max_new_tokens=max_new_tokens, batch_size=batch_size
        )
        return [
            self._completion(tokens, len(ids))
            for tokens, ids in zip(generated, encoded, strict=True)
        ]

    def choose(
        self,
        prompts: Sequence[Sequence[Message]],
        choices: Sequence[Sequence[str]],
        *,
        batch_size: int = 64,
    ) -> list[ChoiceScores]:
        """How probable each of a prompt's choices is as its answer, in the order of ``prompts``.

        The end of the answer is not part of it. Raises ValueError for an empty choice.
        """
        encoded = [self.prompt_ids(prompt) for prompt in prompts]
        ids = {c: text_ids(self.tokenizer, c) for c in {c for offered in choices for c in offered}}
        continuations = [[ids[choice] for choice in offered] for offered in choices]
        scored = self.inference.score(encoded, continuations, batch_size=batch_size)
        return [
            ChoiceScores(
                logprobs=tuple(found.logprob for found in row),
                num_tokens=tuple(len(ids[choice]) for choice in offered),
                num_chars=tuple(len(choice) for choice in offered),
            )
            for row, offered in zip(scored, choices, strict=True)
        ]

    def _completion(self, tokens: Tokens, prompt_tokens: int) -> Completion:
        ids = tokens.ids[:-1] if tokens.ended else tokens.ids
        return Completion(
            text=self.tokenizer.decode(ids, skip_special_tokens=True).strip(),
            token_ids=tuple(tokens.ids),
            logprobs=tuple(tokens.logprobs),
            prompt_tokens=prompt_tokens,
            finish_reason="stop" if tokens.ended else "length",
        )


def prompt_ids(tokenizer: Any, prompt: Sequence[Message]) -> list[int]:
    """Token ids of a prompt, chat template and generation prompt included."""
    messages = [{"role": m.role, "content": m.content} for m in prompt]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def text_ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Token ids of ``text`` and nothing else."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def completion_ids(tokenizer: Any, completion: str) -> list[int]:
    """Token ids of a completion, end of sequence included."""
    ids: list[int] = tokenizer(completion, add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id]


def load_policy(store: CheckpointStore, digest: Digest, *, device: str = "cpu") -> Policy:
    """Load a checkpoint for inference, an adapter merged into its base.

    Does not hash the files; call ``store.verify`` first where that matters.
    Raises NotFoundError, IntegrityError.
    """
    manifest = store.manifest(digest)
    base = digest if manifest.base is None else manifest.base
    model = load_model(store, base)
    if manifest.base is not None:
        adapted = PeftModel.from_pretrained(model, store.path(digest))
        model = adapted.merge_and_unload()
    model.to(device).eval()
    return Policy(model=model, tokenizer=load_tokenizer(store, base), digest=digest)


def load_model(store: CheckpointStore, base: Digest) -> Any:
    """The ``transformers`` model of a full checkpoint, in the precision it was stored in."""
    return AutoModelForCausalLM.from_pretrained(store.path(base), dtype="auto")


def load_tokenizer(store: CheckpointStore, base: Digest) -> Any:
    """The tokenizer of a full checkpoint, padding on the left as generation needs it."""
    tokenizer = AutoTokenizer.from_pretrained(store.path(base), padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer

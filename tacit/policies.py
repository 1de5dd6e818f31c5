"""Loading a checkpoint as a language model, and batched generation with it.

Shared by trainer, evaluator and deploy so that all three see the same tokens for the same prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from tacit.checkpoints import CheckpointStore
from tacit.contracts import Digest, Message

# Bars of the library would tear those of whoever loads a policy.
disable_progress_bar()


@dataclass(frozen=True)
class Completion:
    """What the policy generated for one prompt."""

    text: str
    token_ids: tuple[int, ...]
    """Without the end-of-sequence token's text, but with its id if it was generated."""
    logprobs: tuple[float, ...]
    """Natural-log probability of each of ``token_ids`` under the sampling distribution."""
    prompt_tokens: int
    finish_reason: str
    """``stop`` or ``length``."""


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

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Sequence[Message]], *, max_new_tokens: int, batch_size: int = 64
    ) -> list[Completion]:
        """Greedy completions, in the order of ``prompts``; batches are bucketed by length."""
        encoded = [self.prompt_ids(prompt) for prompt in prompts]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        results: dict[int, Completion] = {}
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = [encoded[i] for i in indices]
            results.update(zip(indices, self._generate_batch(batch, max_new_tokens), strict=True))
        return [results[i] for i in range(len(encoded))]

    def _generate_batch(self, batch: list[list[int]], max_new_tokens: int) -> list[Completion]:
        pad_id, eos_id = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        width = max(len(ids) for ids in batch)
        padded = [[pad_id] * (width - len(ids)) + ids for ids in batch]
        mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in batch]
        output = self.model.generate(
            input_ids=torch.tensor(padded, device=self.device),
            attention_mask=torch.tensor(mask, device=self.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            pad_token_id=pad_id,
            eos_token_id=eos_id,
            output_logits=True,
            return_dict_in_generate=True,
        )
        new_ids = output.sequences[:, width:]
        logits = torch.stack(output.logits, dim=1).float()
        logprobs = logits.log_softmax(-1).gather(-1, new_ids.unsqueeze(-1)).squeeze(-1)
        return [
            self._completion(ids, row, len(prompt), eos_id)
            for ids, row, prompt in zip(new_ids.tolist(), logprobs.tolist(), batch, strict=True)
        ]

    def _completion(
        self, ids: list[int], logprobs: list[float], prompt_tokens: int, eos_id: int
    ) -> Completion:
        stopped = eos_id in ids
        length = ids.index(eos_id) + 1 if stopped else len(ids)
        text = self.tokenizer.decode(ids[: length - stopped], skip_special_tokens=True)
        return Completion(
            text=text.strip(),
            token_ids=tuple(ids[:length]),
            logprobs=tuple(logprobs[:length]),
            prompt_tokens=prompt_tokens,
            finish_reason="stop" if stopped else "length",
        )


def prompt_ids(tokenizer: Any, prompt: Sequence[Message]) -> list[int]:
    """Token ids of a prompt, chat template and generation prompt included."""
    messages = [{"role": m.role, "content": m.content} for m in prompt]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


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

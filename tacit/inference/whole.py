"""The same with the model run as a whole, where it cannot be taken apart: slower, as right."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from tacit.inference.choices import Scored
from tacit.inference.greedy import IsStop, Tokens

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "guidance_scale": (None, 1.0),
    "bad_words_ids": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "suppress_tokens": (None,),
    "begin_suppress_tokens": (None,),
    "sequence_bias": (None,),
    "watermarking_config": (None,),
}


def is_plainly_greedy(generation_config: Any) -> bool:
    """Whether greedy decoding takes the most probable token, with nothing that changes logits."""
    return all(
        getattr(generation_config, name, None) in values for name, values in _NEUTRAL.items()
    )


class _Stop(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, is_stop: IsStop, width: int, eos_ids: Sequence[int]) -> None:
        self._is_stop, self._width, self._eos_ids = is_stop, width, set(eos_ids)

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> torch.Tensor:
        ids = input_ids[:, self._width :].tolist()
        done = [bool(self._eos_ids & set(r)) or self._is_stop(i, r) for i, r in enumerate(ids)]
        return torch.tensor(done, device=input_ids.device)


@torch.inference_mode()
def decode_whole(
    model: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    pad_id: int,
    eos_ids: Sequence[int],
    is_stop: IsStop | None = None,
) -> list[Tokens]:
    """As :func:`tacit.inference.greedy.decode`, by ``model.generate``."""
    width = max(len(ids) for ids in prompts)
    padded = [[pad_id] * (width - len(ids)) + ids for ids in prompts]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
    stops = StoppingCriteriaList([_Stop(is_stop, width, eos_ids)] if is_stop else [])
    output = model.generate(
        input_ids=torch.tensor(padded, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        pad_token_id=pad_id,
        eos_token_id=list(eos_ids),
        output_logits=True,
        return_dict_in_generate=True,
        stopping_criteria=stops,
    )
    new_ids = output.sequences[:, width:]
    logits = torch.stack(output.logits, dim=1).float()
    logprobs = logits.log_softmax(-1).gather(-1, new_ids.unsqueeze(-1)).squeeze(-1)
    rows = zip(new_ids.tolist(), logprobs.tolist(), strict=True)
    return [_cut(n, ids, row, set(eos_ids), is_stop) for n, (ids, row) in enumerate(rows)]


def _cut(
    index: int, ids: list[int], logprobs: list[float], ends: set[int], is_stop: IsStop | None
) -> Tokens:
    """Without what stands behind the end."""
    for length in range(1, len(ids) + 1):
        if ids[length - 1] in ends or (is_stop is not None and is_stop(index, ids[:length])):
            return Tokens(ids[:length], logprobs[:length], True)
    return Tokens(ids, logprobs, False)


@torch.inference_mode()
def score_whole(
    model: Any, pairs: Sequence[tuple[list[int], tuple[int, ...]]], *, pad_id: int, batch_size: int
) -> list[Scored]:
    """Scores of (prompt, continuation) pairs, each computed by itself."""
    results: dict[int, Scored] = {}
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        rows = [[*pairs[i][0], *pairs[i][1]] for i in indices]
        width = max(len(row) for row in rows)
        ids = torch.tensor(
            [row + [pad_id] * (width - len(row)) for row in rows], device=model.device
        )
        mask = torch.tensor(
            [[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device
        )
        logits = model(input_ids=ids, attention_mask=mask).logits
        for line, index in enumerate(indices):
            prompt, continuation = pairs[index]
            first = len(prompt) - 1
            part = logits[line, first : first + len(continuation)].float()
            targets = torch.tensor(continuation, device=part.device)
            logprobs = part.log_softmax(-1).gather(-1, targets[:, None])
            best = bool((part.argmax(-1) == targets).all())
            results[index] = Scored(logprobs.sum().item(), best)
    return [results[i] for i in range(len(pairs))]

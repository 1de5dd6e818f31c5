"""The running batch of one policy: rows join after their prompts are read and leave when done.

One step is one forward pass that gives every row its next token (continuous batching, Yu et al.
2022, "Orca", OSDI). Prompts that join together are read together, padded on the left.
"""

from collections.abc import Sequence
from typing import Any

import torch

from deploy.engines.kv_cache import BatchCache, Window
from deploy.engines.row import Row
from deploy.engines.sampling import choose
from tacit.errors import ConfigError
from tacit.policies import Policy

_FULL, _SLIDING = "full_attention", "sliding_attention"
_MAX_PROMPT_TOKENS = 4_096
"""Of prompts read in one pass, padding included, unless one prompt alone has more: running rows
wait for it."""


class RunningBatch:
    """Rows of one policy that share forward passes. For one thread."""

    def __init__(self, policy: Policy, *, max_size: int) -> None:
        """Raises ConfigError for a model whose layers this batch cannot hold."""
        self.policy = policy
        self.rows: list[Row] = []
        self._max_size = max_size
        self._model = policy.model
        self._device = policy.device
        self._pad_id: int = policy.tokenizer.pad_token_id
        self._hidden_score = torch.finfo(policy.model.dtype).min
        self._layer_types, self._sliding_window = _attention_of(policy)
        self._num_layers: int = policy.model.config.get_text_config().num_hidden_layers
        self._cache = BatchCache(self._num_layers)
        self._layout = 0
        self._kept = torch.empty(0), torch.empty(0)

    def take_from(self, waiting: Sequence[Row]) -> list[Row]:
        """The first of ``waiting`` that may join now."""
        taken: list[Row] = []
        longest = 0
        for row in waiting[: self._max_size - len(self.rows)]:
            longest = max(longest, len(row.prompt_ids))
            if taken and longest * (len(taken) + 1) > _MAX_PROMPT_TOKENS:
                break
            taken.append(row)
        return taken

    @torch.inference_mode()
    def admit(self, rows: Sequence[Row]) -> None:
        """Read the prompts of ``rows`` and give each its first token."""
        lengths = [len(row.prompt_ids) for row in rows]
        window = self._cache.admit(lengths)
        self.rows += rows
        longest = max(lengths)
        ids = [
            [self._pad_id] * (longest - length) + row.prompt_ids
            for row, length in zip(rows, lengths, strict=True)
        ]
        starts = self._starts()[window.rows]
        written = torch.arange(window.start, window.stop, device=self._device)
        scores = self._scores(
            torch.tensor(ids, device=self._device),
            (written - starts).clamp_(min=0),
            self._masks(written, starts, window),
        )
        self._push(rows, scores)

    @torch.inference_mode()
    def step(self) -> None:
        """Give every row its next token."""
        window = self._cache.advance()
        ids = torch.tensor([[row.last_id] for row in self.rows], device=self._device)
        starts, hidden = self._sight()
        masks: Any = hidden[..., window.first : window.stop]
        if self._sliding_window is not None:
            written = torch.tensor([window.start], device=self._device)
            masks = self._masks(written, starts, window)
        self._push(self.rows, self._scores(ids, window.start - starts, masks))

    def fail(self, error: BaseException) -> None:
        """Answer all rows with ``error``."""
        for row in self.rows:
            row.fail(error)
        self.rows = []
        self._cache = BatchCache(self._num_layers)
        self._layout = 0

    def _push(self, rows: Sequence[Row], scores: torch.Tensor) -> None:
        for row, choice in zip(rows, choose(scores, rows), strict=True):
            row.push(*choice)
        self._drop_done()

    def _scores(self, ids: torch.Tensor, positions: torch.Tensor, masks: Any) -> torch.Tensor:
        """Logits (rows, vocabulary) after the last of ``ids`` (rows, tokens), in float32."""
        decoder = self.policy.decoder
        if decoder is not None:
            return decoder.logits(ids, positions, masks, self._cache).float()
        output = self._model(
            input_ids=ids,
            attention_mask=masks,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        scores: torch.Tensor = output.logits[:, -1].float()
        return scores

    def _starts(self) -> torch.Tensor:
        """Column of each row's first token, (rows, 1)."""
        return torch.tensor(self._cache.starts, device=self._device)[:, None]

    def _sight(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows' starts, and what hides the columns before them, (rows, 1, 1, all columns)."""
        if self._layout != self._cache.layout:
            starts = self._starts()
            columns = torch.arange(self._cache.width, device=self._device)
            self._kept = starts, self._as_scores((columns < starts)[:, None])
            self._layout = self._cache.layout
        return self._kept

    def _drop_done(self) -> None:
        for number in range(len(self.rows) - 1, -1, -1):
            if self.rows[number].done:
                self._cache.drop(number)
                last = self.rows.pop()
                if number < len(self.rows):
                    self.rows[number] = last

    def _masks(self, written: torch.Tensor, starts: torch.Tensor, window: Window) -> Any:
        """What is added to attention scores, (rows, 1, written columns, seen columns)."""
        columns = torch.arange(window.first, window.stop, device=self._device)
        hidden = (columns < starts)[:, None, :]
        if len(written) > 1:
            hidden = hidden | (columns > written[:, None])
        full = self._as_scores(hidden)
        if self._sliding_window is None:
            return full
        outside = columns <= written[:, None] - self._sliding_window
        sliding = self._as_scores(hidden | outside)
        if not self._layer_types:
            return sliding
        return {_FULL: full, _SLIDING: sliding}

    def _as_scores(self, hidden: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(hidden.shape, dtype=self._model.dtype, device=self._device)
        return scores.masked_fill_(hidden, self._hidden_score)[:, None]


def _attention_of(policy: Policy) -> tuple[set[str], int | None]:
    """Kinds of attention layers, empty if the model has but one, and the sliding window if any."""
    config = policy.model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {_FULL, _SLIDING}:
        raise ConfigError(
            "a model of full or sliding attention layers",
            got=", ".join(sorted(kinds)),
            mend="Serve it with deploy.engine=vllm.",
        )
    window: int | None = getattr(config, "sliding_window", None)
    if kinds and _SLIDING not in kinds:
        window = None
    return kinds, window

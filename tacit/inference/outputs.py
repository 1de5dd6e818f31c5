"""What inference returns. Free of torch, so that it can be read where no model is."""

from dataclasses import dataclass
from typing import NamedTuple


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


class ChoiceScores(NamedTuple):
    """How probable each choice is as what follows one prompt, in the order of the choices."""

    logprobs: tuple[float, ...]
    """Natural-log probability of the choice, summed over its tokens."""
    num_tokens: tuple[int, ...]
    num_chars: tuple[int, ...]

"""What all servers of the benchmark serve, and what they are asked."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tacit.demo.base import REAL_RECIPE
from tacit.demo.helpdesk import helpdesk_world
from tacit.demo.network import build_model, build_tokenizer

MAX_TOKENS = 64
NUM_PROMPTS = 64
_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n"
    b"Content-Type: application/json\r\n%sContent-Length: %d\r\n\r\n"
)


def save_policy(folder: Path, *, seed: int) -> None:
    """A random decoder of 2.5 million weights, its tokenizer trained on the helpdesk's tickets."""
    texts = [text for u in helpdesk_world().old_train for text in (u.text, u.answer)]
    tokenizer: Any = build_tokenizer(texts, vocab_size=REAL_RECIPE.vocab_size)
    model = build_model(
        tokenizer,
        hidden_size=REAL_RECIPE.hidden_size,
        num_layers=REAL_RECIPE.num_layers,
        num_heads=REAL_RECIPE.num_heads,
        max_positions=REAL_RECIPE.max_positions,
        seed=seed,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def prompts() -> list[str]:
    """Tickets of the helpdesk, each another."""
    return [u.text for u in helpdesk_world().new_stream[:NUM_PROMPTS]]


def requests(
    texts: Sequence[str], model: str, *, key: str = "none", recorded: bool = True
) -> Iterator[bytes]:
    """Greedy chat completions of ``MAX_TOKENS`` tokens, over and over."""
    header = b"" if recorded else b"X-Tacit-Record: no\r\n"
    made = []
    for text in texts:
        asked = {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
        }
        body = json.dumps(asked).encode()
        made.append(_HEAD % (key.encode(), header, len(body)) + body)
    return itertools.cycle(made)

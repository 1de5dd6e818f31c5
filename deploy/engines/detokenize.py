"""Text of a growing answer, token by token, at a cost that does not grow with the answer."""

from typing import Any

UNFINISHED_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """Decodes what is new beside the few tokens before it, which decide how it is joined on.

    The method of vLLM and of Text Generation Inference: decode from a little before the new token
    with and without it; the difference is its text, once it ends in a whole character.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._text = ""
        self._before = 0
        self._read = 0

    def push(self, token_id: int) -> str:
        """Take the next token; the whole text so far, an unfinished character at its end aside."""
        self._ids.append(token_id)
        known = self._decode(self._ids[self._before : self._read])
        both = self._decode(self._ids[self._before :])
        if len(both) > len(known) and not both.endswith(UNFINISHED_CHARACTER):
            self._text += both[len(known) :]
            self._before, self._read = self._read, len(self._ids)
        return self._text

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

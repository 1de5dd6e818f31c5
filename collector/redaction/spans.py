"""Places in a text that become placeholders, and how they are put in.

In: a text and what the finders found in it. Out: the text with ``[EMAIL]`` and the like. Nothing
touches a placeholder that stands there already, so each pass leaves less to find.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

PLACEHOLDERS = ("EMAIL", "PHONE", "CARD", "IBAN", "IP", "SSN", "WALLET", "SECRET")
_PLACEHOLDER = re.compile(r"\[(?:" + "|".join(PLACEHOLDERS) + r")\]")


class Found(NamedTuple):
    """``text[start:end]`` is to become ``[kind]``."""

    start: int
    end: int
    kind: str


def pieces(text: str, *, size: int, overlap: int) -> Iterator[tuple[int, str]]:
    """``text`` in overlapping pieces with where each starts.

    Patterns of other people's may take time that grows with the square of the text: in pieces it
    grows with the text. What is longer than ``overlap`` may be missed where two pieces meet.
    """
    if len(text) <= size:
        yield 0, text
        return
    for start in range(0, len(text) - overlap, size - overlap):
        yield start, text[start : start + size]


def replace(text: str, found: Iterable[Found]) -> str:
    """``text`` with placeholders; of two that overlap the one earlier in ``found`` stands."""
    is_taken = bytearray(len(text))
    for match in _PLACEHOLDER.finditer(text):
        is_taken[match.start() : match.end()] = b"\x01" * len(match[0])
    chosen: list[Found] = []
    for each in found:
        if 1 not in is_taken[each.start : each.end]:
            is_taken[each.start : each.end] = b"\x01" * (each.end - each.start)
            chosen.append(each)
    parts: list[str] = []
    end = 0
    for each in sorted(chosen):
        parts += (text[end : each.start], f"[{each.kind}]")
        end = each.end
    return "".join(parts) + text[end:]

"""When two answers are the same, and where in a text the answer is."""

import unicodedata


def same_answer(one: str, other: str) -> bool:
    """Whether two answers differ in no more than case, white space and what ends a sentence.

    Punctuation within counts: -5 is not 5.
    """
    return _plain(one) == _plain(other)


def split_answer(text: str, *, answer_after: str) -> tuple[str, str] | None:
    """Rationale and answer, parted at the last ``answer_after``; None if either is missing."""
    rationale, marker, answer = text.rpartition(answer_after)
    if not marker or not rationale.strip() or not _plain(answer):
        return None
    return rationale.strip(), answer.strip()


def answer_of(text: str, *, answer_after: str) -> str:
    """What stands behind the last ``answer_after``, or all of ``text`` without one."""
    return text.rpartition(answer_after)[2].strip()


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).rstrip(".,;:!? ")

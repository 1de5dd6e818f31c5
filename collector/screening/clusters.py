"""When two prompts count as the same, and which prompts are measured rather than trained on."""

import hashlib
import re
import unicodedata

from tacit.contracts import Correction, FeedbackEvent, InlineInteraction, Preference

PHRASE_WORDS = 4
_DIGITS = re.compile(r"\d+")
_NOT_WORDS = re.compile(r"[\W_]+")


def normalized(text: str) -> str:
    """Lower case, runs of digits folded to ``0``, punctuation and white space to one space.

    A text of nothing but punctuation stays as it is: emoji differ in what they say.
    """
    lowered = unicodedata.normalize("NFKC", text).casefold()
    folded = _NOT_WORDS.sub(" ", _DIGITS.sub("0", lowered)).strip()
    return folded or lowered.strip()


def prompt_text(interaction: InlineInteraction) -> str:
    """The conversation without system messages: those are the product's, the same for everyone."""
    said = [m.content for m in interaction.prompt if m.role != "system"]
    return "\n".join(said or [m.content for m in interaction.prompt])


def cluster_of(text: str) -> str:
    """16 hex digits; prompts with the same normalised text share them.

    Prompts that are merely alike share the digits of the first one: see near_duplicates.py.
    """
    return cluster_of_normalized(normalized(text))


def cluster_of_normalized(plain: str) -> str:
    """``cluster_of`` of a text that is normalised already."""
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def phrases_of(plain: str, *, max_words: int) -> frozenset[str]:
    """Word 4-grams of the last ``max_words`` words of a normalised text; fewer are one phrase."""
    words = plain.split()[-max_words:]
    last = max(len(words) - PHRASE_WORDS, 0)
    return frozenset(" ".join(words[i : i + PHRASE_WORDS]) for i in range(last + 1))


def answer_of(event: FeedbackEvent) -> str | None:
    """The normalised answer an event teaches; None if it teaches none."""
    if isinstance(event.feedback, Correction):
        return normalized(event.feedback.completion)
    if isinstance(event.feedback, Preference):
        return normalized(event.feedback.chosen)
    return None


def is_holdout(cluster: str, *, share: float) -> bool:
    """Whether a cluster is measured and never trained on: the same answer every time.

    Raising ``share`` adds clusters and takes none out.
    """
    drawn = hashlib.sha256(f"holdout:{cluster}".encode()).digest()[:8]
    return int.from_bytes(drawn) < share * 2**64

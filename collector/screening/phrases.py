"""Who sent which phrase how often, in little memory: most phrases are sent once.

In: the phrases of one report, as hashes. Out: reports by subject of each phrase.
"""

from array import array
from collections.abc import Iterable, Mapping

from collector.screening.clusters import phrases_of

Senders = dict[str, int]
"""Reports by subject."""
_NOBODY: Senders = {}


def phrase_hashes(plain: str, *, max_words: int) -> "array[int]":
    """Hashes of ``phrases_of``, 8 bytes each; good in this process alone."""
    return array("q", map(hash, phrases_of(plain, max_words=max_words)))


class PhraseSenders:
    """Senders by phrase. A phrase sent once takes one entry, and no dict of its own."""

    def __init__(self) -> None:
        self._senders: dict[int, str | Senders] = {}

    def add(self, phrases: Iterable[int], subject: str) -> None:
        """Count a report of ``subject`` with ``phrases``."""
        for phrase in phrases:
            found = self._senders.get(phrase)
            if found is None:
                self._senders[phrase] = subject
            else:
                if isinstance(found, str):
                    found = self._senders[phrase] = {found: 1}
                count(found, subject)

    def remove(self, phrases: Iterable[int], subject: str) -> None:
        """Take back what ``add`` counted."""
        for phrase in phrases:
            found = self._senders[phrase]
            if isinstance(found, str) or uncount(found, subject):
                del self._senders[phrase]

    def of(self, phrase: int) -> Mapping[str, int]:
        """Reports by subject of ``phrase``; empty if nobody sent it."""
        found = self._senders.get(phrase, _NOBODY)
        return {found: 1} if isinstance(found, str) else found


def count(senders: Senders, subject: str) -> None:
    """Add a report of ``subject``."""
    senders[subject] = senders.get(subject, 0) + 1


def uncount(senders: Senders, subject: str) -> bool:
    """Take one away; whether nobody is left."""
    if senders[subject] > 1:
        senders[subject] -= 1
    else:
        del senders[subject]
    return not senders

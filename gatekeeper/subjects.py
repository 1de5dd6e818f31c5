"""Which entries of the ledger something has to do with."""

from collections.abc import Callable, Iterable
from contextlib import suppress

from gatekeeper.ledger_reader import LedgerReader
from tacit.errors import NotFoundError

Related = Callable[[str], Iterable[str]]
"""Ids of candidates and releases that an event or a subject reached. Raises NotFoundError."""


def entries_about(ledger: LedgerReader, about: str, related: Related | None = None) -> list[int]:
    """Numbers of the entries, rising: that of a number, else of all that speak about ``about``.

    An entry speaks about a candidate, decision, release or key if that is its subject. What
    ``related`` names is looked for as well.
    """
    if about.isdecimal():
        return [int(about)] if int(about) < ledger.size() else []
    subjects = [about]
    if related is not None:
        with suppress(NotFoundError):
            subjects += related(about)
    return sorted({entry.sequence for subject in subjects for entry in ledger.find(subject)})

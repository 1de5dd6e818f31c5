"""Checking a ledger, in place or exported, with the public key alone.

Every fault is named by the entry it is at. After a fault the check goes on from the next signed
head, so that one altered entry is reported once and does not hide a second one.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from tacit.contracts import Part
from tacit.errors import IntegrityError
from tacit.merkle import Frontier, leaf_hash
from tacit.signing import Verifier

EXPORT_FORMAT = "tacit-ledger/1"


class SignedHead(Part):
    """What the signature of an entry covers: the tree that ends with it."""

    type: str = Field(default="tacit/ledger-head", pattern=r"^tacit/ledger-head$")
    sequence: int
    root: str
    """64 hex digits."""
    peaks: tuple[str, ...]
    recorded_at: AwareDatetime

    def frontier(self) -> Frontier:
        """The frontier after this entry. Raises IntegrityError if it is not that of ``root``."""
        frontier = Frontier(self.sequence + 1, [bytes.fromhex(peak) for peak in self.peaks])
        fits = len(self.peaks) == (self.sequence + 1).bit_count()
        if not fits or frontier.root.hex() != self.root:
            raise IntegrityError(f"peaks of the tree {self.root}", got=frontier.root.hex())
        return frontier


class LedgerEntry(Part):
    """One entry with its proof, as stored and as exported."""

    sequence: int
    kind: str
    subject: str
    entry: str
    """Canonical JSON of sequence, kind, subject, body and moment: the data of the leaf."""
    leaf_hash: str
    root: str
    signature: str
    """DSSE envelope over :class:`SignedHead`, JSON."""
    created_at: AwareDatetime

    def body(self) -> dict[str, Any]:
        """What was recorded."""
        body: dict[str, Any] = json.loads(self.entry)["body"]
        return body


class LedgerHead(NamedTuple):
    """A head somebody noted elsewhere; without one, a cut at the end cannot be seen."""

    sequence: int
    root: str


class LedgerCheck(NamedTuple):
    """What a verification found; ``problems`` is empty if and only if all is well."""

    num_entries: int
    root: str
    """Root over the entries that are there, 64 hex digits."""
    problems: list[str]

    @property
    def ok(self) -> bool:
        """Whether nothing was altered, taken out, moved or cut."""
        return not self.problems


def open_head(signature: str, verifier: Verifier) -> SignedHead:
    """The head a signature vouches for. Raises IntegrityError."""
    try:
        return SignedHead.model_validate(verifier.open(signature))
    except ValidationError as error:
        raise IntegrityError("a signed ledger head", got=str(error)) from error


def check_entries(
    entries: Iterable[LedgerEntry], verifier: Verifier, *, known: Sequence[LedgerHead] = ()
) -> LedgerCheck:
    """Check entries that come in rising order of sequence, also against the ``known`` heads."""
    audit = _Audit(verifier)
    noted: dict[int, set[str]] = {}
    for head in known:
        noted.setdefault(head.sequence, set()).add(head.root)
    for entry in entries:
        audit.take(entry)
        if noted.get(entry.sequence, set()) - {entry.root}:
            audit.problems.append(f"entry {entry.sequence}: root differs from the one noted")
    last = max(noted, default=-1)
    if audit.expected <= last:
        audit.problems.append(
            f"entries {audit.expected} to {last} are missing: the end was cut off"
        )
    return LedgerCheck(audit.num_entries, audit.frontier.root.hex(), audit.problems)


class _Audit:
    """Walks the entries, keeping the tree as it should be at this point."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self.problems: list[str] = []
        self.num_entries = 0
        self.expected = 0
        self.frontier = Frontier()
        self._in_step = True

    def take(self, entry: LedgerEntry) -> None:
        if entry.sequence > self.expected:
            last = entry.sequence - 1
            one = last == self.expected
            self.problems.append(
                f"entry {last} is missing"
                if one
                else f"entries {self.expected} to {last} are missing"
            )
            self._in_step = False
        self.num_entries += 1
        self.expected = entry.sequence + 1
        self.frontier.append(leaf_hash(entry.entry.encode()))
        for problem in self._faults(entry):
            self.problems.append(f"entry {entry.sequence}: {problem}")

    def _faults(self, entry: LedgerEntry) -> Iterable[str]:
        yield from _text_faults(entry)
        try:
            head = open_head(entry.signature, self._verifier)
            signed = head.frontier()
        except (IntegrityError, ValueError) as error:
            self._in_step = False
            yield f"its signature does not verify: {error}"
            return
        if (head.sequence, head.root) != (entry.sequence, entry.root):
            yield f"its signature is for entry {head.sequence} with root {head.root[:12]}…"
        if head.recorded_at != entry.created_at:
            yield "its moment is not the one signed"
        if self._in_step and self.frontier.root != signed.root:
            yield "it was altered: the tree with it does not have the root signed for it"
        if head.sequence == entry.sequence:
            self.frontier, self._in_step = signed, True


def _text_faults(entry: LedgerEntry) -> Iterable[str]:
    if leaf_hash(entry.entry.encode()).hex() != entry.leaf_hash:
        yield "its text was altered: it does not have the hash recorded beside it"
    try:
        inside = json.loads(entry.entry)
        found = (inside["sequence"], inside["kind"], inside["subject"])
    except (ValueError, KeyError, TypeError):
        yield "its text is not a ledger entry"
        return
    if found != (entry.sequence, entry.kind, entry.subject):
        yield f"its text is that of entry {found[0]}, {found[1]} of {found[2]}"


def verify_export(
    export: dict[str, Any], verifier: Verifier, *, known: Sequence[LedgerHead] = ()
) -> LedgerCheck:
    """Check an exported ledger without a database.

    ``known`` are heads noted earlier; with them a cut at the end is found too.
    Raises IntegrityError if it is not an export at all.
    """
    if export.get("format") != EXPORT_FORMAT:
        raise IntegrityError(f"an export in format {EXPORT_FORMAT}", got=str(export.get("format")))
    try:
        entries = TypeAdapter(list[LedgerEntry]).validate_python(export.get("entries"))
    except ValidationError as error:
        raise IntegrityError("a list of ledger entries", got=str(error)) from error
    order = _order_faults(entries)
    unique = {entry.sequence: entry for entry in reversed(entries)}
    check = check_entries((unique[i] for i in sorted(unique)), verifier, known=known)
    claimed = (export.get("num_entries"), export.get("root"))
    found = (len(entries), check.root)
    if claimed != found:
        order.append(f"expected {claimed[0]} entries with root {claimed[1]}; got {found}")
    return check._replace(problems=order + check.problems)


def _order_faults(entries: list[LedgerEntry]) -> list[str]:
    faults = []
    seen: set[int] = set()
    for entry in entries:
        if entry.sequence in seen:
            faults.append(f"entry {entry.sequence} is there twice")
        elif seen and entry.sequence < max(seen):
            faults.append(f"entry {entry.sequence} is out of order")
        seen.add(entry.sequence)
    return faults

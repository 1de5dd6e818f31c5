"""Proofs that a stranger can check: an entry is in the tree, and the tree only ever grew.

Nothing is stored for them. The signature of every entry carries the frontier of the tree that ends
with it, so each perfect subtree is found in one or two entries: a left child is the last peak after
its last leaf, a right child joins its last leaf to the frontier before it. A proof reads O(log n)
entries by number, however long the ledger is.
"""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from gatekeeper.audit import LedgerEntry, SignedHead, open_head
from tacit.contracts import Part
from tacit.errors import IntegrityError
from tacit.merkle import (
    Subtree,
    consistency_path,
    fold,
    inclusion_path,
    leaf_hash,
    root_of_path,
    roots_of_consistency,
)
from tacit.signing import Verifier

EntryOf = Callable[[int], LedgerEntry]
"""The entry with a number. Raises IntegrityError if it is not there."""


class InclusionProof(Part):
    """One entry, and the path from its leaf to a signed root (RFC 6962, section 2.1.1)."""

    format: Literal["tacit-inclusion/1"] = "tacit-inclusion/1"
    sequence: NonNegativeInt
    entry: str
    """Canonical JSON: the data of the leaf."""
    path: tuple[str, ...]
    """Hex, from the leaf's sibling up."""
    head: str
    """DSSE envelope over the :class:`SignedHead` of the tree it is in."""


class ConsistencyProof(Part):
    """That the first tree is the beginning of the second (RFC 6962, section 2.1.2)."""

    format: Literal["tacit-consistency/1"] = "tacit-consistency/1"
    first: str
    second: str
    """DSSE envelopes over two heads."""
    path: tuple[str, ...]


_PROOF: TypeAdapter[Any] = TypeAdapter(InclusionProof | ConsistencyProof)


def prove_inclusion(
    entry_of: EntryOf, sequence: int, *, size: int, verifier: Verifier
) -> InclusionProof:
    """Proof that entry ``sequence`` is in the tree of the first ``size`` entries.

    Raises IntegrityError if an entry on the way was altered or is missing.
    """
    path = inclusion_path(sequence, size, subtree_of(entry_of, verifier))
    proof = InclusionProof(
        sequence=sequence,
        entry=entry_of(sequence).entry,
        path=tuple(node.hex() for node in path),
        head=entry_of(size - 1).signature,
    )
    check_inclusion(proof, verifier)
    return proof


def prove_consistency(
    entry_of: EntryOf, first: int, second: int, *, verifier: Verifier
) -> ConsistencyProof:
    """Proof that the first ``first`` of the first ``second`` entries are as they were.

    Raises IntegrityError if an entry on the way was altered or is missing.
    """
    path = consistency_path(first, second, subtree_of(entry_of, verifier))
    proof = ConsistencyProof(
        first=entry_of(first - 1).signature,
        second=entry_of(second - 1).signature,
        path=tuple(node.hex() for node in path),
    )
    check_consistency(proof, verifier)
    return proof


def subtree_of(entry_of: EntryOf, verifier: Verifier) -> Subtree:
    """Roots of perfect subtrees, read from the signed frontiers that the entries carry."""

    def peaks(sequence: int) -> list[bytes]:
        return open_head(entry_of(sequence).signature, verifier).frontier().peaks

    def subtree(start: int, size: int) -> bytes:
        last = start + size - 1
        if size == 1:
            return bytes.fromhex(entry_of(last).leaf_hash)
        if not start & size:
            return peaks(last)[-1]
        height = size.bit_length() - 1
        return fold([*peaks(last - 1)[-height:], bytes.fromhex(entry_of(last).leaf_hash)])

    return subtree


def check_inclusion(proof: InclusionProof, verifier: Verifier) -> SignedHead:
    """The head whose tree holds the entry. Raises IntegrityError unless it does."""
    head = open_head(proof.head, verifier)
    leaf = leaf_hash(proof.entry.encode())
    root = root_of_path(leaf, proof.sequence, head.sequence + 1, _hashes(proof.path))
    if root.hex() != head.root:
        raise IntegrityError(f"a path to the signed root {head.root}", got=f"one to {root.hex()}")
    return head


def check_consistency(proof: ConsistencyProof, verifier: Verifier) -> tuple[SignedHead, SignedHead]:
    """The two heads, the second of which continues the first. Raises IntegrityError."""
    first, second = open_head(proof.first, verifier), open_head(proof.second, verifier)
    old, new = roots_of_consistency(
        first.sequence + 1, second.sequence + 1, bytes.fromhex(first.root), _hashes(proof.path)
    )
    if (old.hex(), new.hex()) != (first.root, second.root):
        raise IntegrityError(
            f"a path from {first.root} to {second.root}", got=f"one from {old.hex()} to {new.hex()}"
        )
    return first, second


def read_proof(tree: Any) -> InclusionProof | ConsistencyProof:
    """A proof from its JSON. Raises IntegrityError if it is not one."""
    try:
        proof: InclusionProof | ConsistencyProof = _PROOF.validate_python(tree)
    except ValidationError as error:
        raise IntegrityError("an inclusion or a consistency proof", got=str(error)) from error
    return proof


def _hashes(path: tuple[str, ...]) -> list[bytes]:
    try:
        return [bytes.fromhex(node) for node in path]
    except ValueError as error:
        raise IntegrityError("a path of hashes in hex", got=str(error)) from error

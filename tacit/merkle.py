"""Merkle trees after RFC 6962, section 2.1; for batch manifests and the ledger.

Trees are never held whole: a :class:`Frontier` is enough to append, and proofs ask for the few
subtrees they need. Hashes are SHA-256, 32 bytes each; sizes and indices count leaves.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence

from tacit.errors import IntegrityError

Subtree = Callable[[int, int], bytes]
"""Root of the perfect subtree over ``size`` leaves from ``start``; ``size`` is a power of two."""


def leaf_hash(data: bytes) -> bytes:
    """SHA-256 of ``0x00 || data``; 32 bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of ``0x01 || left || right``; 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """MTH over leaf hashes; the empty tree hashes to SHA-256 of nothing."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    level = list(leaves)
    # Pairing neighbours and carrying an odd last node up gives RFC 6962's left-heavy tree.
    while len(level) > 1:
        paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + ([level[-1]] if len(level) % 2 else [])
    return level[0]


class Frontier:
    """The roots of the perfect subtrees of an RFC 6962 tree: enough to append in O(log n).

    ``peaks`` goes from the largest (leftmost) subtree to the smallest, 32 bytes each.
    """

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self.size = size
        self.peaks = list(peaks)

    def append(self, leaf: bytes) -> None:
        """Add a leaf hash; like a carry in binary addition, equal subtrees merge."""
        node, size = leaf, self.size
        while size & 1:
            node = node_hash(self.peaks.pop(), node)
            size >>= 1
        self.peaks.append(node)
        self.size += 1

    @property
    def root(self) -> bytes:
        """Root of the whole tree, 32 bytes; equals :func:`merkle_root` of all leaves."""
        return fold(self.peaks) if self.peaks else merkle_root([])


def fold(peaks: Sequence[bytes]) -> bytes:
    """Root over neighbouring perfect subtrees, largest first; at least one."""
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def inclusion_path(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """PATH(index, D[size]) of RFC 6962, section 2.1.1, from the leaf's sibling up.

    Asks ``subtree`` for O(log size) roots. Raises IntegrityError if there is no such leaf.
    """
    if not 0 <= index < size:
        raise IntegrityError(f"a leaf of a tree of {size}", got=str(index))
    path: list[bytes] = []
    start = 0
    while size > 1:
        left = _left_of(size)
        if index < start + left:
            path.append(_range_root(start + left, size - left, subtree))
            size = left
        else:
            path.append(_range_root(start, left, subtree))
            start, size = start + left, size - left
    return path[::-1]


def consistency_path(first: int, second: int, subtree: Subtree) -> list[bytes]:
    """PROOF(first, D[second]) of RFC 6962, section 2.1.2: the tree only grew.

    Raises IntegrityError unless 0 < first ≤ second.
    """
    if not 0 < first <= second:
        raise IntegrityError(f"a tree of 1 to {second} leaves", got=str(first))
    path: list[bytes] = []
    start, size, whole = 0, second, True
    while first != size:
        left = _left_of(size)
        if first <= left:
            path.append(_range_root(start + left, size - left, subtree))
            size = left
        else:
            path.append(_range_root(start, left, subtree))
            start, size, first, whole = start + left, size - left, first - left, False
    if not whole:
        path.append(_range_root(start, size, subtree))
    return path[::-1]


def root_of_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that an inclusion proof leads to (RFC 9162, section 2.1.3.2).

    Raises IntegrityError if the path has not the length that index and size ask for.
    """
    wrong = IntegrityError(f"a path for leaf {index} of {size}", got=f"{len(path)} hashes")
    if not 0 <= index < size:
        raise wrong
    here, last, root = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise wrong
        if here & 1 or here == last:
            root = node_hash(sibling, root)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        here, last = here >> 1, last >> 1
    if last:
        raise wrong
    return root


def roots_of_consistency(
    first: int, second: int, first_root: bytes, path: Sequence[bytes]
) -> tuple[bytes, bytes]:
    """The two roots a consistency proof leads to (RFC 9162, section 2.1.4.2).

    Raises IntegrityError if the path has not the length that the sizes ask for.
    """
    wrong = IntegrityError(f"a path from {first} to {second} leaves", got=f"{len(path)} hashes")
    if first == second and not path:
        return first_root, first_root
    nodes = list(path)
    if 0 < first < second and first & (first - 1) == 0:
        nodes.insert(0, first_root)
    if not (0 < first < second and nodes):
        raise wrong
    here, last = first - 1, second - 1
    while here & 1:
        here, last = here >> 1, last >> 1
    old = new = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            raise wrong
        if here & 1 or here == last:
            old, new = node_hash(node, old), node_hash(node, new)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            new = node_hash(new, node)
        here, last = here >> 1, last >> 1
    if last:
        raise wrong
    return old, new


def _left_of(size: int) -> int:
    """The largest power of two below ``size``, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def _range_root(start: int, size: int, subtree: Subtree) -> bytes:
    """MTH of a range as proofs ask for it: perfect, or the ragged right end of the tree."""
    peaks: list[bytes] = []
    while size:
        largest = 1 << size.bit_length() - 1
        peaks.append(subtree(start, largest))
        start, size = start + largest, size - largest
    return fold(peaks)

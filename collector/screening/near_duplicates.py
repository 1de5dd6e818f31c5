"""Near-duplicate clusters: a prompt with a few letters changed falls to the cluster it came from.

In: the prompts of a chunk. Out: the cluster of each. A prompt joins the oldest cluster whose first
prompt shares enough of its letter triples, else it begins one. So an assignment never changes, and
a near-duplicate of a held-out prompt is held out too. First prompts stand in the database as
sketches: MinHash estimates how much two sets share (Broder 1997, "On the resemblance and
containment of documents"), bands of its values find the few worth comparing (Leskovec, Rajaraman,
Ullman, "Mining of Massive Datasets", section 3.4).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from collector.screening.clusters import cluster_of_normalized
from collector.tables import ClusterBandRow, ClusterRow
from tacit.database import among

MIN_WORDS = 4
"""Shorter prompts are clusters of their own: one letter may be all that tells them apart."""
NUM_VALUES = 128
_SHORT, _LONG = (8, 4), (4, 10)
"""Number and length of runs of values. Of prompts that share 0.7 of their triples 89 % meet in one
of the short runs, at 0.8 it is 98 %. The long ones are for products whose prompts share a long
preamble: those meet in most short runs, and each run remembers only ``MAX_FIRSTS`` prompts."""
MAX_FIRSTS = 16
_MAX_TRIPLES = 128
_SEED = 1
_MAX_REMEMBERED = 20_000
_MULTIPLIERS = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D], dtype=np.uint32)
_ODD = np.random.default_rng(_SEED).integers(2**63, dtype=np.uint64, size=10) * 2 + 1
_EMPTY = MinHash(num_perm=NUM_VALUES, seed=_SEED, scheme="affine32", hashfunc=int)


class Sketch(NamedTuple):
    """What is kept of a prompt to compare it with others."""

    values: NDArray[np.uint32]
    """``NUM_VALUES`` minima."""
    bands: tuple[int, ...]
    """Signed 64-bit hashes of runs of values; equal ones make two prompts worth comparing."""

    def similarities(self, others: Sequence[NDArray[np.uint32]]) -> NDArray[np.float64]:
        """Estimated share of letter triples in common with each, 0 to 1; it errs by about 0.04."""
        table = np.concatenate(others).reshape(len(others), NUM_VALUES)
        shares: NDArray[np.float64] = np.count_nonzero(table == self.values, axis=1) / NUM_VALUES
        return shares


class _First(NamedTuple):
    number: int
    cluster: str
    values: NDArray[np.uint32]


def sketch_of(plain: str) -> Sketch | None:
    """The sketch of a normalised prompt; None for one of fewer than ``MIN_WORDS`` words."""
    if plain.count(" ") < MIN_WORDS - 1:
        return None
    minhash = MinHash(
        permutations=_EMPTY.permutations, num_perm=NUM_VALUES, scheme="affine32", hashfunc=int
    )
    minhash.update_batch(_triples(plain).tolist())
    values: NDArray[np.uint32] = minhash.hashvalues.astype("<u4")
    return Sketch(values, tuple(_bands(values, _SHORT, 0) + _bands(values, _LONG, 32)))


def _triples(plain: str) -> NDArray[np.uint32]:
    """Hashes of the letter triples; of many the smallest, which are the same for like texts."""
    letters = np.frombuffer(f" {plain} ".encode("utf-32-le"), dtype="<u4")
    hashed = sum(
        letters[i : len(letters) - 2 + i] * _MULTIPLIERS[i] for i in range(len(_MULTIPLIERS))
    )
    mixed = (hashed ^ (hashed >> np.uint32(15))) * _MULTIPLIERS[0]
    if len(mixed) > 4 * _MAX_TRIPLES:
        # The smallest alone need to be sorted; so many that repetitions leave enough.
        mixed = np.partition(mixed, 3 * _MAX_TRIPLES)[: 3 * _MAX_TRIPLES]
    distinct: NDArray[np.uint32] = np.unique(mixed)
    return distinct[:_MAX_TRIPLES]


def _bands(values: NDArray[np.uint32], shape: tuple[int, int], start: int) -> list[int]:
    """Hashes of ``shape[0]`` runs of ``shape[1]`` values each, salted with their place."""
    number, length = shape
    runs = values[start : start + number * length].reshape(shape).astype(np.uint64)
    places = np.arange(start, start + number, dtype=np.uint64)
    hashed = (runs + places[:, None]) @ _ODD[:length]
    mixed = (hashed ^ (hashed >> np.uint64(29))) * _ODD[0]
    bands: list[int] = (mixed ^ (mixed >> np.uint64(32))).view(np.int64).tolist()
    return bands


class ClusterIndex:
    """Clusters of the prompts of one policy line; used by one thread."""

    def __init__(self, *, policy: str, similarity: float) -> None:
        self._policy = policy
        self._similarity = similarity
        self._known: dict[str, str] = {}
        """By the hash of the prompt: prompts themselves may be of any length."""
        self._firsts: dict[int, _First] = {}

    def assign(self, session: Session, prompts: Sequence[str]) -> list[str]:
        """The cluster of each normalised prompt, in order; new ones are written down."""
        if len(self._known) + len(self._firsts) > _MAX_REMEMBERED:
            self.forget()
        # In the order in which they came, or the first of a cluster would be any of them.
        exact = [cluster_of_normalized(prompt) for prompt in prompts]
        unknown = {e: p for e, p in zip(exact, prompts, strict=True) if e not in self._known}
        sketches = {cluster: sketch_of(prompt) for cluster, prompt in unknown.items()}
        compared = [sketch for sketch in sketches.values() if sketch is not None]
        book = _Book(session, self._policy, compared, self._firsts) if compared else None
        for own, sketch in sketches.items():
            cluster = own
            if book is not None and sketch is not None:
                cluster = book.place(sketch, own, self._similarity)
            self._known[own] = cluster
        if book is not None:
            book.write(session)
        return [self._known[each] for each in exact]

    def forget(self) -> None:
        """Drop what is remembered of the database, after a transaction that was rolled back."""
        self._known.clear()
        self._firsts.clear()


class _Book:
    """First prompts that share a band with one of a chunk, and those the chunk adds."""

    def __init__(
        self,
        session: Session,
        policy: str,
        sketches: Sequence[Sketch],
        firsts: dict[int, _First],
    ) -> None:
        self._policy = policy
        self._firsts = firsts
        self._numbers: dict[int, list[int]] = {}
        bands = sorted({band for sketch in sketches for band in sketch.bands})
        for band, number in _numbers(session, policy, bands):
            self._numbers.setdefault(band, []).append(number)
        missing = {n for numbers in self._numbers.values() for n in numbers} - firsts.keys()
        firsts.update((first.number, first) for first in _read(session, policy, sorted(missing)))
        newest = session.scalar(
            select(func.max(ClusterRow.number)).where(ClusterRow.policy == policy)
        )
        self._next = 0 if newest is None else newest + 1
        self._rows: list[dict[str, Any]] = []
        self._bands: list[tuple[int, int]] = []

    def place(self, sketch: Sketch, exact: str, similarity: float) -> str:
        """The cluster of the oldest first prompt that is similar, or ``exact`` as a new one."""
        numbers = sorted({n for band in sketch.bands for n in self._numbers.get(band, ())})
        if numbers:
            alike = sketch.similarities([self._firsts[n].values for n in numbers]) >= similarity
            if alike.any():
                return self._firsts[numbers[int(alike.argmax())]].cluster
        self._begin(sketch, exact)
        return exact

    def write(self, session: Session) -> None:
        """Insert what ``place`` began."""
        if self._rows:
            session.execute(insert(ClusterRow.__table__), self._rows)  # type: ignore[arg-type]
        if self._bands:
            rows = [
                {"policy": self._policy, "band": band, "number": number}
                for band, number in self._bands
            ]
            session.execute(insert(ClusterBandRow.__table__), rows)  # type: ignore[arg-type]

    def _begin(self, sketch: Sketch, cluster: str) -> None:
        number, self._next = self._next, self._next + 1
        self._firsts[number] = _First(number, cluster, sketch.values)
        row = {"policy": self._policy, "number": number, "cluster": cluster}
        self._rows.append({**row, "sketch": sketch.values.tobytes()})
        for band in set(sketch.bands):
            numbers = self._numbers.setdefault(band, [])
            if len(numbers) < MAX_FIRSTS:
                numbers.append(number)
                self._bands.append((band, number))


def _numbers(session: Session, policy: str, bands: Sequence[int]) -> Iterator[tuple[int, int]]:
    query = select(ClusterBandRow.band, ClusterBandRow.number).where(
        ClusterBandRow.policy == policy, among(session, ClusterBandRow.band, bands)
    )
    yield from ((row.band, row.number) for row in session.execute(query))


def _read(session: Session, policy: str, numbers: Sequence[int]) -> Iterator[_First]:
    query = select(ClusterRow.number, ClusterRow.cluster, ClusterRow.sketch).where(
        ClusterRow.policy == policy, among(session, ClusterRow.number, numbers)
    )
    for number, cluster, sketch in session.execute(query):
        yield _First(number, cluster, np.frombuffer(sketch, dtype="<u4"))
